#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# One gateway serves all sandboxes: what one of them floods it with must not keep it from the others.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
EOF
start_daemon
ok $? "the daemon starts"
a=$(create) b=$(create)
is "$(state_of "$a")/$(state_of "$b")" Running/Running "two sandboxes"
measure() { timeout 120 python3 "${top_srcdir:-.}/tests/system/fair.py" "$run/api.sock" "$a" "$b" "$1" 40 2>>"$log"; }
for kind in none lines bytes unread; do
	read -r p50 p99 max n < <(measure $kind)
	echo "# $kind: p50 $p50 us, p99 $p99 us, longest $max us, $n streams"
	# far above what a busy machine needs, far below what one sandbox could do before it had a share
	[ "${p50:-999999}" -lt 30000 ] && [ "${p99:-999999}" -lt 300000 ]
	ok $? "$kind: the other sandbox answers"
done
done_testing
