#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# IPv6 of sandboxes on this kernel: nftables with IPv6 sets, translation, and forwarding without a switch for single interfaces
# (before 6.17), which may not cost the host what its routers tell it.  Guest of tests/vm/run.sh.  Argument: a directory for the state.
dir=${1:-/mnt/disk}/six
mkdir -p "$dir"
. "$(dirname "$0")/guest_lib.sh"
script=$(dirname "$0")/../system/ipv6.py

ip link del out 2>/dev/null # what daemon.sh made for its default route has the same addresses
unshare -n sleep infinity &
world=$!
own_net() { [ "$(readlink /proc/$world/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until_true 20 own_net
ip link add six type veth peer name world
ip link set world netns $world
ip addr add 198.51.100.1/24 dev six
ip addr add 2001:db8:99::1/64 dev six nodad
echo 1 >/proc/sys/net/ipv6/conf/six/accept_ra
ip link set six up
nsenter --net=/proc/$world/ns/net sh -c 'ip link set lo up; ip link set world up; ip addr add 198.51.100.53/24 dev world
ip addr add 2001:db8:99::2/64 dev world nodad
for a in 2001:db8:100::10 2001:db8:100::11 2001:db8:100::20 fd12:3456::5 fd00:ec2::254 64:ff9b::a09:5; do ip addr add $a/128 dev lo nodad; done'
ip route replace default via 198.51.100.53
ip route add default via 2001:db8:99::2
: >"$dir/asked" >"$dir/arrived"
nsenter --net=/proc/$world/ns/net python3 "$script" serve "$dir/asked" "$dir/arrived" >"$dir/served" 2>&1 &
server=$!
until_true 60 grep -q serving "$dir/served"
sysctls() {
	for c in all default six lo; do grep -H . /proc/sys/net/ipv6/conf/$c/forwarding /proc/sys/net/ipv6/conf/$c/accept_ra; done
}
sysctls >"$dir/before"
write_config <<'EOF'
[dns]
upstreams = ["198.51.100.53"]
[network]
ipv6 = true
EOF
# An overloaded machine makes the guest's clock leap, which ends what has a deadline: once more then.
started() { start_daemon || start_daemon || { tail -n 12 "$dir/log"; cat "$dir/served"; false; }; }
yes "a daemon with IPv6" started
get() { ctl exec "$1" -- timeout 30 bash -c "exec 3<>/dev/tcp/$2/80 && echo x >&3 && head -n 1 <&3" 2>"$dir/out"; }
is "$([ -e /proc/sys/net/ipv6/conf/six/force_forwarding ] || cat /proc/sys/net/ipv6/conf/six/accept_ra)" \
	"$([ -e /proc/sys/net/ipv6/conf/six/force_forwarding ] || echo 2)" "advertisements are still heard while the host forwards"
a=$(create --egress deny --allow ok.test)
b=$(create)
is "$(get "$b" 2001:db8:100::10)" "2001:db8:100::10 sees 2001:db8:99::1" "a sandbox reaches the world as the host"
is "$(get "$b" fd12:3456::5)" "" "but no private address"
is "$(get "$a" 2001:db8:100::10)" "" "a policy closes what no name opened"
is "$(get "$a" ok.test)" "2001:db8:100::10 sees 2001:db8:99::1" "and a name opens it"
is "$(get "$a" 2001:db8:100::11)" "" "and nothing else"
stop_daemon
yes "purge" "$top_builddir/sandboxd" --purge --config "$dir/config"
sysctls >"$dir/after"
yes "the host's switches are as they were" diff "$dir/before" "$dir/after"
kill $server $world
ip link del six 2>/dev/null
echo "1..$n"
