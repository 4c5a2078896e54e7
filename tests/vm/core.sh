#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Threat 10: a crash inside must not start the host's core handler, whatever the tenant does to its limit.  For the guest of
# tests/vm/hard.sh, since it changes kernel.core_pattern.
# shellcheck source=tests/vm/guest_lib.sh
. "$(dirname "$0")/guest_lib.sh"
write_config </dev/null
default_route
handled=/run/handled
cat >/run/handler <<END
#!/bin/bash
echo "\$1 \$2" >>$handled
cat >/dev/null
END
chmod 755 /run/handler
: >$handled
echo '|/run/handler %P %e' >/proc/sys/kernel/core_pattern
handled() { wc -l <$handled; }
crash='kill -SEGV $$'
# The kernel waits for nobody: a handler that was started has written by the time that one started later has.
settle() {
	local before
	before=$(handled)
	bash -c "ulimit -c unlimited; $crash" 2>/dev/null
	until_true 20 test "$(($(handled) + 0))" -gt "$before" || until_true 20 grown "$before"
}
grown() { [ "$(handled)" -gt "$1" ]; }

settle
ok $(($(handled) != 1)) "a crash on the host starts the handler ($(handled))"
yes "the daemon is ready" start_daemon
inside() { ctl run -- "$@" >"$dir/out" 2>&1; code=$?; }
# crashed NAME COMMAND...: it crashes inside, and only the host's own crash after it is handled
crashed() {
	local name=$1 before
	shift
	before=$(handled)
	inside "$@"
	settle
	[ $code -ge 137 ] && [ "$(handled)" = $((before + 1)) ]
	ok $? "$name: no handler (exit code $code, $(($(handled) - before - 1)) started)"
}
crashed "a crash with the limit untouched" sh -c "$crash"
crashed "after ulimit -c 0" sh -c "ulimit -c 0; $crash"
crashed "after ulimit -c 1" bash -c "ulimit -c 1; $crash"
crashed "after ulimit -c unlimited" bash -c "ulimit -c unlimited; $crash"
limit='import os, resource, signal, ctypes
for soft, hard in ((0, 0), (0, 1), (1, 1), (-1, -1)):
    try: resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    except (OSError, ValueError): pass
buf = (ctypes.c_ulong * 2)(0, 0)
ctypes.CDLL(None).syscall(160, 4, buf)
os.kill(os.getpid(), signal.SIGSEGV)'
crashed "after setrlimit and prlimit64 with 0" python3 -c "$limit"
crashed "a crash of a child as another user" sh -c "setpriv --reuid 1000 sh -c 'ulimit -c 0; kill -SEGV \$\$'; kill -SEGV \$\$"
before=$(handled)
id=$(create -- sh -c 'ulimit -c 0; sleep 1; kill -SEGV $$')
until_true 60 sh -c "'$top_builddir/sandboxctl' --socket /run/vmdaemon/api.sock inspect $id | grep -q Failed"
settle
is "$(($(handled) - before))" 1 "a crash of the entrypoint: no handler"
says "its end is told" "139\|signal 11\|SEGV" ctl inspect "$id"
ctl rm "$id" >/dev/null 2>&1
stop_daemon

# Without the filter the handler runs as root of the host.
if fault_points; then
	# guard, handlers: the agent sets the limit once more, so that one alone does not matter
	for row in core-limit/0 core-filter/1; do
		start_daemon "SBX_FAULT=${row%/*}:fail" || ok 1 "daemon without ${row%/*}"
		before=$(handled)
		inside sh -c "ulimit -c 0; $crash"
		settle
		is "$(($(handled) - before - 1))" "${row#*/}" "without the guard ${row%/*}, after ulimit -c 0: handlers"
		stop_daemon
	done
else
	ok 0 "each guard taken away # SKIP no fault points in this build"
fi
echo core >/proc/sys/kernel/core_pattern
"$top_builddir/sandboxd" --purge --config "$dir/config" >"$dir/out" 2>&1
ok $? "purge"
echo "1..$n"
