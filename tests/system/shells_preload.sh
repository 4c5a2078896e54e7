#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A clone of broker-shells has not the libraries that it does not run; where the host preloads one into every program it has all.
[ -n "${OWN_MOUNTS:-}" ] || OWN_MOUNTS=1 exec unshare -m -- "$0" "$@"
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
[ ! -e /etc/ld.so.preload ] || { echo "1..0 # SKIP this host preloads libraries"; exit 0; }
grep -q '^SAN_CFLAGS = .*address' "$top_builddir/Makefile" && { echo "1..0 # SKIP sanitizers"; exit 0; }
write_config <<-END
[server]
port = 0
[pool]
target = 2
END
makes_shells() { # sets shells, to the pid of a broker-shells that is ready
	local p
	for p in $(pgrep -P "$(child broker)" -x broker-shells); do
		shells=$p
		[ "$(sed -n 's/^Seccomp:[^0-9]*//p' "/proc/$p/status")" = 2 ] && return
	done
	return 1
}
not_copied() { # how many areas of libnftables a clone would not have
	awk '/^[0-9a-f]+-/ {here = /libnftables/} here && /^VmFlags:.* dc/ {n++} END {print n + 0}' "/proc/$shells/smaps"
}
copies_less() { [ "$(not_copied)" -gt 0 ]; }

start_daemon
until_true 10 makes_shells
ok $? "broker-shells runs"
copies_less
ok $? "its clones have not all libraries"
stop_daemon

cp -a /etc "$work/etc" 2>/dev/null
: >"$work/etc/ld.so.preload"
if mount --bind "$work/etc" /etc 2>/dev/null; then
	start_daemon
	until_true 10 makes_shells
	ok $? "broker-shells runs where something is preloaded"
	is "$(not_copied)" 0 "and its clones have all"
	id=$(create)
	is "$(ctl exec "$id" -- echo works)" works "a sandbox starts"
	delete_all
	stop_daemon
	umount /etc
else
	ok 0 "a host that preloads # SKIP no bind mount over /etc"
fi
done_testing
