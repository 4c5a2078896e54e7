#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Sums over all sandboxes: a create that would exceed one is refused with words, and whatever was promised, the group that holds
# them all keeps the host's reserve out of their reach.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
tasks=$(cat /proc/sys/kernel/pid_max)
[ "$(cat /proc/sys/kernel/threads-max)" -ge "$tasks" ] || tasks=$(cat /proc/sys/kernel/threads-max)
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
	[limits]
	reserve_pids = $((tasks - 400))
	pids_overcommit = 2
	memory_overcommit = 1
EOF
start_daemon
ok $? "the daemon starts"
create_with() { # create_with PIDS MEMORY: the id
	api POST /v1/sandboxes "{\"image\":{\"uri\":\"host\"},\"timeout\":600,\"resourceLimits\":{\"pids\":\"$1\",\"memory\":\"$2\"},\
\"entrypoint\":[\"sleep\",\"600\"]}" | sed -n 's/^{"id":"\([^"]*\)".*/\1/p'
}
a=$(create_with 300 64Mi) b=$(create_with 300 64Mi)
is "$(count)" 2 "two of 300 processes of the 800 that may be promised"
api POST /v1/sandboxes '{"image":{"uri":"host"},"timeout":600,"resourceLimits":{"pids":"300"},"entrypoint":["sleep","600"]}' >/dev/null
is "$(status) $(sed -n 's/.*"code":"\([^"]*\)".*/\1/p' "$work/body")" "429 SANDBOX::HOST_FULL" "a third is refused"
grep -q '900 of 800.*limits.pids_overcommit.*limits.reserve_pids' "$work/body"
ok $? "which sum, and what raises it: $(cut -c 1-200 "$work/body")"
is "$(count)" 2 "and leaves no record"
api POST /v1/sandboxes '{"image":{"uri":"host"},"timeout":600,"resourceLimits":{"pids":"10","memory":"4096Gi"},"entrypoint":["sleep","600"]}' >/dev/null
is "$(status) $(grep -c limits.memory_overcommit "$work/body")" "429 1" "memory beyond the host's is refused, too"
c=$(create_with 200 64Mi)
is "$(state_of "$c")" Running "what still fits is made"
api DELETE "/v1/sandboxes/$c" >/dev/null

# two fork bombs: promised 600 together, there are 400
root=$(ls -d /sys/fs/cgroup/pids/sandboxd-$instance /sys/fs/cgroup/sandboxd-$instance 2>/dev/null | head -n 1)
is "$(cat "$root/pids.max")" 400 "the group of all sandboxes is bounded"
for id in "$a" "$b"; do
	execd "$id" /command '{"command":"python3 -c \"import os, time\nwhile True:\n  try:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n  except OSError: time.sleep(0.05)\n\"","background":true}' >/dev/null
done
full() { [ "$(cat "$root/pids.current")" -ge 395 ]; }
until_true 30 full
ok $? "two fork bombs fill it ($(cat "$root/pids.current"))"
[ "$(cat "$root/pids.current")" -le 400 ]
ok $? "and no more ($(cat "$root/pids.current"))"
(exit 0)
ok $? "the host forks as before"
for id in "$a" "$b"; do api DELETE "/v1/sandboxes/$id" >/dev/null; done
is "$(status)" 204 "they are deleted"
if grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	stop_daemon
	echo max >"$root/pids.max"
	echo cgroup-all:fail >"$fault"
	start_daemon
	: >"$fault"
	is "$(cat "$root/pids.max")" max "without the bound of all"
	a=$(create_with 300 64Mi) b=$(create_with 300 64Mi)
	for id in "$a" "$b"; do
		execd "$id" /command '{"command":"python3 -c \"import os, time\nwhile True:\n  try:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n  except OSError: time.sleep(0.05)\n\"","background":true}' >/dev/null
	done
	over() { [ "$(cat "$root/pids.current")" -gt 450 ]; }
	until_true 30 over
	ok $? "they take what they were promised ($(cat "$root/pids.current"))"
	for id in "$a" "$b"; do api DELETE "/v1/sandboxes/$id" >/dev/null; done
fi
done_testing
