#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A FORWARD chain of iptables-legacy that drops: no rule of nftables can follow it, so doctor has to say what mends it, and what it
# says has to mend.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"
if ! command -v iptables-legacy >/dev/null || ! iptables-legacy -L FORWARD >"$run/last" 2>&1; then
	echo "1..0 # SKIP no iptables-legacy on this kernel: $(head -c 100 "$run/last" 2>/dev/null | tr '\n' ' ')"
	exit 0
fi
world_up
driver_start
sandbox a 0
yes "the internet is there" pings "$a" 198.51.100.10
row() { "$top_builddir/tests/system/host_rows" "$run" | grep -A 2 " - net.foreign_forward:"; }
iptables-legacy -P FORWARD DROP
no "a legacy chain that drops cuts it off" pings "$a" 198.51.100.10
yes "doctor names it" sh -c "top_builddir=$top_builddir; $top_builddir/tests/system/host_rows $run | grep 'net.foreign_forward: rules of iptables-legacy'"
mend=$(row | sed -n 's/.*mend: //p')
case $mend in iptables-legacy\ *) ok 0 "and a command: $mend" ;; *) ok 1 "and a command: $mend" ;; esac
yes "the command works" sh -c "$mend"
yes "and the internet is there again" pings "$a" 198.51.100.10
no "but nobody from outside gets in" pings "$world" 10.231.0.1
no "nor a sandbox to what is private" pings "$a" 10.9.0.5
done_testing
