#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a sandbox reaches and what it does not: each denied target is really there and answers somebody else.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"

world_up
for addr in 198.51.100.10 10.9.0.5 169.254.169.254 192.168.7.7 100.64.1.1; do serve_tcp "$world" $addr 80; done
serve_tcp $$ 198.51.100.1 80
serve_tcp $$ 198.51.100.1 8080
serve_tcp $$ 127.0.0.1 81
ip route add 10.9.0.5 dev out; ip route add 192.168.7.7 dev out; ip route add 169.254.169.254 dev out; ip route add 100.64.1.1 dev out
before=$(nft list ruleset; cat /proc/sys/net/ipv4/conf/out/forwarding)

driver_start
is "${answer%% *}" ok "router, uplink and rules are there"
tell open; is "$answer" "ok 1" "the uplink is up"
sandbox a 0
sandbox b 1
serve_tcp "$b" 10.231.0.2 80
serve_tcp "$a" 10.231.0.1 80

# the targets answer the host, so a refusal below is ours
for addr in 198.51.100.10 10.9.0.5 169.254.169.254 192.168.7.7 100.64.1.1; do yes "$addr answers the host" reach $$ $addr 80; done
yes "a's own server answers a" reach "$a" 10.231.0.1 80

is "$(reach "$a" 198.51.100.10 80)" "hello 198.51.100.1" "a reaches the internet, masqueraded"
yes "a pings the internet" pings "$a" 198.51.100.10
yes "a pings its gateway" pings "$a" 169.254.1.1
no "a does not reach b" reach "$a" 10.231.0.2 80
no "a does not ping b" pings "$a" 10.231.0.2
no "b does not reach a" reach "$b" 10.231.0.1 80
no "a does not reach the host's address" reach "$a" 198.51.100.1 80
no "a does not ping the host" pings "$a" 198.51.100.1
no "a does not reach the host's end of the uplink" reach "$a" 169.254.253.1 81
no "a does not reach the router's end of the uplink" reach "$a" 169.254.253.2 81
no "a does not reach metadata" reach "$a" 169.254.169.254 80
no "a does not reach 10.0.0.0/8" reach "$a" 10.9.0.5 80
no "a does not reach 192.168.0.0/16" reach "$a" 192.168.7.7 80
no "a does not reach 100.64.0.0/10" reach "$a" 100.64.1.1 80
no "a does not reach an address of the subnet that nobody has" reach "$a" 10.231.9.9 80
no "the host does not reach a" reach $$ 10.231.0.1 80
no "the world does not reach a by route" in_ns "$world" bash -c 'ip route add 10.231.0.0/16 via 198.51.100.1; timeout 2 bash -c "exec 3<>/dev/tcp/10.231.0.1/80"'
no "a's gateway has no other port" reach "$a" 169.254.1.1 80

# 124 is timeout(1)'s code for silence; the time itself would depend on the machine
timeout 20 nsenter -t "$a" -n -- bash -c 'exec 3<>/dev/tcp/10.9.0.5/80' 2>/dev/null
code=$?
ok $((code == 124)) "a refusal is told, not left to silence (exit code $code)"

# an address of the host that comes later is denied as well (rtnetlink), and multicast and broadcast always
ip addr add 203.0.113.9/32 dev out
serve_tcp $$ 203.0.113.9 80
yes "a new address of the host answers the host" reach $$ 203.0.113.9 80
for _ in 1 2 3 4 5 6 7 8 9 10; do
	nsenter --net="$run/router" nft list set inet sandboxd host4 | grep -q 203.0.113.9 && break
	tell open
done
yes "the router's set has the new address" sh -c "nsenter --net=$run/router nft list set inet sandboxd host4 | grep 203.0.113.9"
no "a does not reach it" reach "$a" 203.0.113.9 80

# IPv6: none on eth0, ::1 inside
no "a has no IPv6 address on eth0" sh -c "nsenter -t $a -n ip -6 addr show dev eth0 | grep inet6"
yes "a has ::1" sh -c "nsenter -t $a -n ip -6 addr show dev lo | grep ::1"

tell purge
is "$answer" "ok purged" "purge"
wait "$driver_pid"
is "$(nft list ruleset; cat /proc/sys/net/ipv4/conf/out/forwarding)" "$before" "rules and forwarding of the host are as before"
no "the uplink is gone" ip link show "$uplink"
done_testing
