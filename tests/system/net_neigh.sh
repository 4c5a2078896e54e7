#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Threat 16: the neighbour table is one for all namespaces of the machine.  What a sandbox sends, also with rights that it does not
# have, must not cost an entry: not in the sandbox, not in the router, not in the host.  Three locks: the route leads by the
# gateway, the links know no ARP, the router answers none.  Each of the last two alone holds, and without both it is seen to fail.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"

# Entries of any state: the ones of a link without ARP are not shown otherwise.
list_neigh() { { ip -4 neigh show nud all; nsenter --net="$run/router" ip -4 neigh show nud all; in_ns "$a" ip -4 neigh show nud all; } | sed '/dev lo/d; s/ lladdr.*//' | sort; }
count_router() { nsenter --net="$run/router" ip -4 neigh show nud all | grep -c 10.99.; }
# spray_udp N: datagrams to N addresses of everywhere
spray_udp() {
	in_ns "$a" python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
n = int(sys.argv[1])
for i in range(n):
    for net in ("10.231.%d.%d", "198.51.%d.%d", "8.%d.%d.1", "169.254.%d.%d"):
        try: s.sendto(b"x", (net % (i >> 8 & 255, i & 255), 9))
        except OSError: pass' "$1"
}
# spray_arp N KIND: ARP frames of N senders, as a tenant with CAP_NET_RAW could send them: requests for the gateway, or
# answers that nobody asked for
spray_arp() {
	in_ns "$a" python3 -c '
import socket, struct, sys
n, op = int(sys.argv[1]), int(sys.argv[2])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0x0806))
me = s.getsockname()[4]
for i in range(n):
    sender = bytes((10, 99, i >> 8 & 255, i & 255))
    target = bytes((169, 254, 1, 1)) if op == 1 else sender
    to = b"\xff" * 6
    s.send(to + me + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, op) + me + sender + to + target)' "$1" "$2"
}
router_sysctl() { nsenter --net="$run/router" sh -c "echo $2 >/proc/sys/net/ipv4/conf/all/$1; for f in /proc/sys/net/ipv4/conf/*/$1; do echo $2 >\$f; done"; }

world_up
driver_start
sandbox a 0
in_ns "$a" ip link show eth0 | grep -q NOARP
ok $? "the sandbox's link knows no ARP"
nsenter --net="$run/router" ip link show "$(nsenter --net="$run/router" ip -o link | sed -n "s/^$a_if: \([^@:]*\).*/\1/p")" | grep -q NOARP
ok $? "nor does the router's end"
spray_udp 1 # the host learns its own gateway
before=$(list_neigh)
spray_udp 5000
is "$(list_neigh)" "$before" "20,000 addresses tried: no neighbour entry more, of any state"
spray_arp 300 1
spray_arp 300 2
is "$(count_router)" 0 "600 forged ARP frames: no entry in the router"
router_sysctl arp_ignore 0
router_sysctl arp_accept 1
spray_arp 300 1
spray_arp 300 2
is "$(count_router)" 0 "nor with a router that would answer: a link without ARP drops the frames"
driver_stop

# the lock taken away
umount -l "$run/router"; rm -rf "${run:?}"/*
ip link del "$uplink" 2>/dev/null
export SBX_FAULT=veth-arp:fail
if grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	driver_start
	sandbox a 1
	in_ns "$a" ip link show eth0 | grep -q NOARP
	ok $(($? == 0)) "without the guard the link knows ARP"
	spray_arp 300 1
	spray_arp 300 2
	is "$(count_router)" 0 "the router that answers none holds alone"
	router_sysctl arp_ignore 0
	router_sysctl arp_accept 1
	spray_arp 300 1
	spray_arp 300 2
	ok $(($(count_router) < 250)) "without both each sender costs an entry ($(count_router) of 300)"
else
	ok 0 "the guards taken away # SKIP no fault points in this build"
fi
done_testing
