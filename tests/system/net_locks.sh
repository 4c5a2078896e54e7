#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Where one attack is stopped at two places or more: each lock is taken out of the loaded rules alone, and the others hold; with all
# out the attack is seen to succeed, so that none of the checks before is idle.  The driver is stopped meanwhile: it would mend.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"
in_router() { nsenter --net="$run/router" "$@"; }
# place HOST|ROUTER COMMAND...
place() {
	local where=$1
	shift
	if [ "$where" = router ]; then in_router "$@"; else "$@"; fi
}
# unlock "PLACE CHAIN TEXT": deletes the one rule of that chain whose text begins so; with "+" before it: inserts that rule
unlock() {
	local where chain text table handle
	read -r where chain text <<<"${1#+}"
	table="inet $([ "$where" = router ] && in_router nft list tables | sed -n 's/^table inet //p' || echo sandboxd-nettest)"
	if [ "${1#+}" != "$1" ]; then # a lock that is the end of a chain: a rule before it opens it
		# shellcheck disable=SC2086
		place "$where" nft insert rule $table "$chain" "$text"
		return
	fi
	# shellcheck disable=SC2086 # family and name
	handle=$(place "$where" nft -a list chain $table "$chain" | TEXT=$text awk '
		index($0, "\t\t" ENVIRON["TEXT"]) == 1 {ours = 1}
		ours && /# handle/ {print $NF; ours = 0}')
	[ "$(echo "$handle" | wc -w)" = 1 ] || { echo "# no rule, or more: $1"; return 1; }
	# shellcheck disable=SC2086
	place "$where" nft delete rule $table "$chain" handle "$handle"
}
# All anew: what is loaded outlives a driver.
restore() {
	kill -CONT "$driver_pid"
	kill -9 "$driver_pid"
	wait "$driver_pid" 2>/dev/null
	ip link del "$uplink" 2>/dev/null
	umount -l "$run/router"
	rm -rf "${run:?}"/*
	nft delete table inet sandboxd-nettest
	fresh
}
fresh() {
	driver_start
	sandbox a 0
	sandbox b 1
	kill -STOP "$driver_pid"
}
# locks NAME ATTACK LOCK LOCK...: ATTACK is a function that is true when it succeeded
locks() {
	local name=$1 attack=$2 lock
	shift 2
	$attack
	ok $(($? == 0)) "$name: refused"
	for lock in "$@"; do
		unlock "$lock" && ! $attack
		ok $? "$name: still refused without \"$lock\""
		restore
	done
	for lock in "$@"; do unlock "$lock"; done
	$attack
	ok $? "$name: without all $# of them it succeeds"
	restore
	$attack
	ok $(($? == 0)) "$name: refused again"
}

world_up
fresh
in_ns "$world" ip route add 10.231.0.0/16 via 198.51.100.1
in_ns "$world" nft "add table inet seen; add chain inet seen in { type filter hook prerouting priority -500; }
	add rule inet seen in iifname w0 ip saddr 203.0.113.9 counter comment forged
	add rule inet seen in iifname w0 ip saddr 10.231.0.0/16 counter comment bare"
seen() { in_ns "$world" nft list chain inet seen in | sed -n "s/.*packets \([0-9]*\) .*comment \"$1\".*/\1/p"; }
forge() { # forge SOURCE: a raw UDP packet, as a sandbox with CAP_NET_RAW could send it
	in_ns "$a" python3 -c '
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
udp = struct.pack("!HHHH", 4000, 9, 9, 0) + b"x"
ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(sys.argv[1]), socket.inet_aton("198.51.100.10"))
s.sendto(ip + udp, ("198.51.100.10", 0))' "$1"
}

to_host() { pings "$a" 198.51.100.1 >/dev/null 2>&1; }
locks "a sandbox to an address of the host" to_host "router judge ct original ip daddr @host4" "host input iifname \"$uplink\" drop"

to_sandbox() { pings "$a" 10.231.0.2 >/dev/null 2>&1; }
locks "a sandbox to another" to_sandbox "router forward oifname != \"uplink\"" "+router judge ct original ip daddr 10.231.0.2 accept"

forged_source() {
	local before
	before=$(seen forged)
	forge 203.0.113.9
	[ "$(seen forged)" -gt "$before" ]
}
locks "a forged source from outside the subnet" forged_source "router raw fib saddr" "host prerouting iifname \"$uplink\" ip saddr !=" \
	"+router judge ip saddr 203.0.113.9 accept"

from_world() { pings "$world" 10.231.0.1 >/dev/null 2>&1; }
locks "the world to a sandbox" from_world "host forward oifname \"$uplink\" drop" "+router inbound ip daddr 10.231.0.1 accept" \
	"+router judge ct original ip daddr 10.231.0.1 accept"

kill -CONT "$driver_pid"
tell open
is "$answer" "ok 1" "the driver goes on"
yes "and the internet is there" pings "$a" 198.51.100.10
done_testing
