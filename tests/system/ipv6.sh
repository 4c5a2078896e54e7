#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# network.ipv6 = true, from real sandboxes: what reaches the world by IPv6 and what does not, rows 17, 38, 52, 84 and 85 of the egress
# contract, and that nothing of it remains on the host.  SBX_FAULT6=NAME runs it without one guard (all of NAME's checks go red).
: "${top_srcdir:=.}"
. "$top_srcdir/tests/system/daemon_lib.sh"
[ -e /proc/sys/net/ipv6/conf/all/disable_ipv6 ] || { echo "1..0 # SKIP the kernel has no IPv6"; exit 0; }
script=$(readlink -f "$top_srcdir/tests/system/ipv6.py")
echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6

# The world is the far end of a veth; our side is the host, which has heard its default route from a router.
ip link add out type veth peer name world
unshare -n sleep infinity &
world_pid=$!
own_net() { [ "$(readlink /proc/$world_pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until_true 5 own_net || { echo "1..1"; echo "not ok 1 - a network namespace for the world"; exit 1; }
ip link set world netns $world_pid
in_world() { nsenter --net=/proc/$world_pid/ns/net "$@"; }
ip addr add 198.51.100.1/24 dev out
ip addr add 2001:db8:99::1/64 dev out nodad
ip link set out up
in_world sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up; ip link set world up
ip addr add 198.51.100.53/24 dev world; ip addr add 2001:db8:99::2/64 dev world nodad
for a in 2001:db8:100::10 2001:db8:100::11 2001:db8:100::20 2001:db8:100::30 fd12:3456::5 fd00:ec2::254 64:ff9b::a09:5; do ip addr add $a/128 dev lo nodad; done'
ip route add default via 198.51.100.53
ip route add default via 2001:db8:99::2
nsenter --net=/proc/$world_pid/ns/net python3 "$script" serve "$work/asked" "$work/arrived" >"$work/served" 2>&1 &
server_pid=$!
finish() { kill $server_pid $world_pid 2>/dev/null; cleanup; }
trap finish EXIT
until_true 10 grep -q serving "$work/served"
: >"$work/asked" >"$work/arrived"
arrived() { grep -c "$1" "$work/arrived"; }
host_state() { # what may not change on the host
	ip -o link | sed 's/@.*//; s/^[0-9]*: //' | sort
	ip -6 route
	ip -6 rule
	nft list ruleset
	grep -rs . /proc/sys/net/ipv6/conf/all /proc/sys/net/ipv6/conf/default /proc/sys/net/ipv6/conf/out /proc/sys/net/ipv6/conf/lo \
		/proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/out | grep -v stable_secret
}
host_state >"$work/before"

config() {
	cat <<-EOF
	[server]
	port = 0
	endpoint_port = 0
	[dns]
	upstreams = ["198.51.100.53"]
	static_hosts = ["fixed.test=2001:db8:100::30", "fixed4.test=198.51.100.11"]
	[pool]
	target = 2
	[network]
	ipv6 = true
	EOF
}
config | write_config

# A host that cannot is refused, and says why.
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
out=$(timeout 60 "$top_builddir/sandboxd" --standalone --config "$work/config" 2>&1)
code=$?
ok "$([ $code != 0 ] && [ $code != 124 ]; echo $?)" "a host with IPv6 switched off is refused at the start ($code)"
case $out in *net.ipv6*"switched off"*) ok 0 "and says why" ;; *) ok 1 "and says why"; printf '%s\n' "$out" | tail -3 | sed 's/^/# /' ;; esac
echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6
ip addr add 2001:db8:99::1/64 dev out nodad 2>/dev/null
ip route replace default via 2001:db8:99::2
link_local() { ip -o -6 addr show dev out scope link | grep -q . && ! ip -o -6 addr show dev out tentative | grep -q .; }
until_true 10 link_local
host_state >"$work/before"

[ -z "${SBX_FAULT6:-}" ] || export SBX_FAULT="$SBX_FAULT6:fail"
[ -z "${SBX_FAULT6:-}" ] || fault=
start_daemon
ok $? "the daemon is ready with IPv6"

inside() { local id=$1; shift; ctl exec "$id" -- "$@"; }
get() { inside "$1" timeout 20 bash -c "exec 3<>/dev/tcp/$2/${3:-80} && echo x >&3 && head -n 1 <&3" 2>/dev/null | tr -d '\r'; }
resolves() { inside "$1" timeout 20 getent ahostsv6 "$2" 2>/dev/null | awk 'NR == 1 {print $1}'; }
allow() { printf '{"action":"allow","target":"%s"}' "$1"; }
deny() { printf '{"action":"deny","target":"%s"}' "$1"; }
policy() { printf '"networkPolicy":{"defaultAction":"%s","egress":[%s]}' "$1" "$2"; }
address6() { inside "$1" ip -o -6 addr show dev eth0 2>/dev/null | awk '{sub("/128", "", $4); print $4; exit}'; }
# The network namespace of a sandbox, for what no program in it may do: by its pid 1
net_of() { # net_of ADDRESS
	local p
	for p in $(pgrep -x sandbox-agent; pgrep -x exe) $(ps -eo pid=,uid= | awk -v b=$((0x78000000 - instance * 0x8000000)) '$2 >= b - 65536 && $2 < b + 64 * 65536 {print $1}'); do
		nsenter --net=/proc/$p/ns/net ip -o -6 addr show dev eth0 2>/dev/null | grep -q " $1/" && echo "/proc/$p/ns/net" && return
	done
}
frame() { nsenter --net="$1" python3 "$script" frame "$2" "$3" "$4"; }
# Waits for a packet that does pass, so that those before it would have arrived too.
marker=0
settled() { # settled ID
	marker=$((marker + 1))
	inside "$1" python3 -c "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.sendto(b'x', ('2001:db8:aaaa::$marker', 9)); s.sendto(b'x', ('2001:db8:aaaa::$marker', 9))"
	until_true 10 grep -q "2001:db8:aaaa::$marker " "$work/arrived"
}

free=$(create)
a=$(create '["sleep","600"]' "$(policy deny "$(allow ok.test),$(allow pool.test),$(allow ula.test),$(allow nat.test),$(allow mapped.test),$(allow fixed.test),$(allow fixed4.test)")")
b=$(create '["sleep","600"]' "$(policy deny "$(allow 2001:db8:100::/64),$(deny 2001:db8:100::11),$(allow fd12:3456::5),$(allow fd00:ec2::254)")")
[ -n "$free" ] && [ -n "$a" ] && [ -n "$b" ]
ok $? "three sandboxes, two with policies"

# ---- the way out ----
free6=$(address6 "$free") a6=$(address6 "$a")
case $free6 in fd53:4258:*) ok 0 "a sandbox has an address of subnet_v6: $free6" ;; *) ok 1 "a sandbox has an address of subnet_v6: $free6" ;; esac
is "$(inside "$free" ip -o -6 addr | grep -c 'tentative\|fe80')" 0 "no link-local address, nothing tentative"
is "$(inside "$free" ip -6 neigh | grep -vc PERMANENT)" 0 "row 84: no neighbour that could grow cold"
is "$(get "$free" 2001:db8:100::10)" "2001:db8:100::10 sees 2001:db8:99::1" "row 84: it reaches the world, as the host"
is "$(arrived "^fd53:")" 0 "its own address is not seen there"
is "$(inside "$free" ping -6 -c 1 -W 10 2001:db8:100::10 >/dev/null 2>&1; echo $?)" 0 "a ping"
inside "$free" sh -c 'echo 1 >/proc/sys/net/ipv6/conf/eth0/accept_ra' >/dev/null 2>&1
ok "$([ $? != 0 ]; echo $?)" "a tenant cannot switch advertisements on"

# ---- what nobody reaches ----
out_ll=$(ip -o -6 addr show dev out scope link | awk '{sub("/64", "", $4); print $4; exit}')
for far in 2001:db8:99::2 fd12:3456::5 fd00:ec2::254 64:ff9b::a09:5 2002:a09:5::1 ::ffff:0:10.9.0.5 2001:db8:99::1 "$out_ll" "$a6" ff02::1; do
	before=$(wc -l <"$work/arrived")
	is "$(get "$free" "$far")" "" "no policy: $far is not reached"
done
is "$(arrived ' fd12:3456::5 \| fd00:ec2::254 \| 64:ff9b::\| 2002:')" 0 "nor does a packet to one of them arrive"
nsenter --net="$(net_of "$a6")" python3 -c 'import socket
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", 8000)); s.listen(8)
print("up", flush=True)
while True: s.accept()[0].sendall(b"another sandbox\n")' >"$work/inside" 2>&1 &
other_pid=$!
until_true 10 grep -q up "$work/inside"
is "$(get "$free" "$a6" 8000)" "" "row 17: another sandbox is not reached by IPv6"
kill $other_pid
python3 -c 'import socket
s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("::", 8001)); s.listen(8)
print("up", flush=True)
while True: s.accept()[0].sendall(b"the host\n")' >"$work/onhost" 2>&1 &
other_pid=$!
until_true 10 grep -q up "$work/onhost"
for far in 2001:db8:99::1 "$out_ll" "$(ip -o -6 addr show dev out scope link | awk '{sub("/64", "", $4); print $4; exit}')%eth0" fe80::5342; do
	is "$(get "$free" "$far" 8001)" "" "row 17: nor is the host at $far"
done
kill $other_pid
# The host's own table would drop that too, without a word: who refused it says why.
reason_of() { api GET "/v1/sandboxes/$free/egress/events" | python3 -c 'import json, sys
text = sys.stdin.read()
events = json.loads(text)
for e in events if isinstance(events, list) else events.get("items", events.get("events", [])):
    if e.get("address") == sys.argv[1]: print(e["reason"]); break' "$1"; }
told() { [ -n "$(reason_of "$1")" ]; }
until_true 10 told 2001:db8:99::1
is "$(reason_of 2001:db8:99::1)" host "a refused address of the host is told as one"
is "$(reason_of 2001:db8:99::2)" private "and one of its network as private"
is "$(reason_of "$a6")" sandbox "and that of another sandbox"

# ---- frames that no program inside can send ----
net=$(net_of "$free6")
ok "$([ -n "$net" ]; echo $?)" "the sandbox's namespace"
frame "$net" udp "$free6" 2001:db8:bbbb::1
until_true 10 grep -q '2001:db8:bbbb::1 ' "$work/arrived"
ok $? "a frame of its own address passes"
n=1
for source in "$a6" 2001:db8:99::1 2001:db8:100::10 fe80::1 ::1 :: fd53:4258::1 "${free6%:*}:9999"; do
	n=$((n + 1))
	frame "$net" udp "$source" "2001:db8:bbbb::$n"
done
# What a may not, the one without a policy may: by a's link that word counts for nothing.
n=$((n + 1))
frame "$(net_of "$a6")" udp "$free6" "2001:db8:bbbb::$n"
for kind in routing routing4 fragment atomic hop options esp ipip sctp na redirect; do
	n=$((n + 1))
	frame "$net" $kind "$free6" "2001:db8:bbbb::$n"
done
settled "$free"
is "$(grep -o '2001:db8:bbbb::[0-9]* ' "$work/arrived" | sort -u | wc -l)" 1 "row 85: no foreign source, no extension header, no other protocol arrives"
in_router() { nsenter --net="$run/router" "$@"; }
in_router ip -6 route >"$work/router-before"
for to in ff02::1 fe80::5342 "$a6"; do
	frame "$net" ra fe80::1 $to
	frame "$net" ra "$free6" $to
done
settled "$free"
in_router ip -6 route >"$work/router-after"
ok "$(cmp -s "$work/router-before" "$work/router-after"; echo $?)" "row 85: an advertisement from inside changes no route of the router"
is "$(inside "$a" ip -6 route | grep -c 2001:db8:bad)" 0 "nor of another sandbox"
is "$(ip -6 route | grep -c 2001:db8:bad)" 0 "nor of the host"

# An ICMP error is tracked with the flow that it is about: that of another sandbox is not its sender's way out.
inside "$free" python3 -c 'import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("", 42001)); s.connect(("2001:db8:100::11", 9999)); s.send(b"x")'
until_true 10 grep -q ' 2001:db8:100::11 17$' "$work/arrived"
ok $? "a flow of a sandbox without a policy"
frame "$(net_of "$a6")" "about=$free6,42001" "$a6" 2001:db8:100::11
settled "$free"
is "$(arrived ' 2001:db8:100::11 58$')" 0 "an error of another sandbox about it gets nowhere"
frame "$net" "about=$free6,42001" "$free6" 2001:db8:100::11
until_true 20 grep -q ' 2001:db8:100::11 58$' "$work/arrived"
ok $? "one of its own gets there"

# ---- policies ----
is "$(get "$a" 2001:db8:100::10)" "" "row 85: an address of which no name was looked up is closed"
is "$(get "$a" ok.test)" "2001:db8:100::10 sees 2001:db8:99::1" "row 52: an allowed name opens its address"
is "$(get "$a" 2001:db8:100::11)" "" "and no other"
is "$(inside "$a" timeout 20 getent ahostsv6 oth.test >/dev/null; echo $?)" 2 "a denied name"
is "$(grep -c '^oth.test' "$work/asked")" 0 "is asked of nobody"
is "$(resolves "$a" ula.test)$(resolves "$a" nat.test)$(inside "$a" python3 -c 'import socket
try: print([x[4][0] for x in socket.getaddrinfo("mapped.test", 80, socket.AF_INET6)][0])
except OSError: pass')" "" "row 52: ULA, NAT64 and mapped answers are taken out"
is "$(get "$b" 2001:db8:100::20)" "2001:db8:100::20 sees 2001:db8:99::1" "a rule for a range opens it"
is "$(get "$b" 2001:db8:100::11)" "" "but for what a deny names"
is "$(get "$b" fd12:3456::5)" "fd12:3456::5 sees 2001:db8:99::1" "a rule opens a private address"
is "$(get "$b" fd00:ec2::254)" "" "never a metadata service"
took=$(inside "$a" python3 -c 'import socket, time
b = time.monotonic()
s = socket.socket(socket.AF_INET6)
s.settimeout(20)
try: s.connect(("2001:db8:100::11", 80))
except OSError as e: print(type(e).__name__)')
is "$took" ConnectionRefusedError "a refusal by TCP is told at once"
took=$(inside "$a" python3 -c 'import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect(("2001:db8:100::11", 9))
try:
    s.send(b"x"); s.recv(10)
except OSError as e: print(e.errno)')
is "$took" 13 "and by UDP as prohibited"
denied() { api GET "/v1/sandboxes/$a/egress/events" | grep -q '"address":"2001:db8:100::11"'; }
until_true 10 denied
ok $? "the journal has the address"
inside_denied() { inside "$a" cat /run/sandbox/denied.jsonl | grep -q '2001:db8:100::11'; }
until_true 10 inside_denied
ok $? "and the sandbox can read it"
out=$(ctl egress explain "$a" 2001:db8:100::11 2>&1)
case $out in *denied*) ok 0 "explain says denied" ;; *) ok 1 "explain says denied"; printf '# %s\n' "$out" ;; esac
out=$(ctl egress explain "$b" 2001:db8:100::20 2>&1)
case $out in *allowed*) ok 0 "and allowed where a rule allows" ;; *) ok 1 "and allowed where a rule allows"; printf '# %s\n' "$out" ;; esac

# Names with fixed addresses, and the built-in addresses of encrypted resolvers.
is "$(resolves "$a" fixed4.test)" "::ffff:198.51.100.11" "a static host without an IPv6 address has none"
is "$(get "$a" 2001:db8:100::30)" "" "the address of one is closed"
is "$(resolves "$a" fixed.test)" 2001:db8:100::30 "it has that"
is "$(get "$a" fixed.test)" "2001:db8:100::30 sees 2001:db8:99::1" "and it is open from then on"
is "$(grep -c '^fixed' "$work/asked")" 0 "nobody was asked"
d=$(create '["sleep","600"]' "$(policy allow "$(deny x.test)")")
inside "$d" timeout 20 bash -c 'exec 3<>/dev/tcp/2620:fe::fe/443' 2>/dev/null
refused_doh() { api GET "/v1/sandboxes/$d/egress/events" | grep -q '"address":"2620:fe::fe".*"reason":"doh"'; }
until_true 10 refused_doh
ok $? "HTTPS of a known resolver is refused at its IPv6 address where names are denied"
out=$(ctl egress explain "$d" '[2620:fe::fe]:443' 2>&1)
case $out in *denied*) ok 0 "and explain says so" ;; *) ok 1 "and explain says so"; printf '# %s\n' "$out" ;; esac

# Row 38: whatever IPv6 address is asked for names, the sandbox's own name server answers, from that address.
cat >"$work/ask.py" <<'EOF'
import socket, struct, sys
how, server, name = sys.argv[1:]
question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\x1c\0\1"
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((server, 53))
s.sendall((struct.pack("!H", len(question)) if how == "tcp" else b"") + question)
answer = s.recv(2000)[2 if how == "tcp" else 0:]
print(socket.inet_ntop(socket.AF_INET6, answer[-16:]) if struct.unpack("!H", answer[6:8])[0] else "rcode %d" % (answer[3] & 15))
EOF
asks() { inside "$1" python3 -c "$(cat "$work/ask.py")" "$2" "$3" "$4" 2>&1 | tail -n 1; }
for server in 2001:db8:53::1 2001:4860:4860::8888; do
	is "$(asks "$a" udp $server ok.test)" 2001:db8:100::10 "row 38: $server answers by UDP"
	is "$(asks "$a" tcp $server ok.test)" 2001:db8:100::10 "row 38: and by TCP"
	is "$(asks "$a" udp $server oth.test)" "rcode 3" "row 38: by the policy of who asks"
done
is "$(arrived ' 2001:db8:53::1 \| 2001:4860:4860::8888 ')" 0 "row 38: nobody else saw it"

# ---- the life of a flow ----
inside "$a" bash -c 'exec 3<>/dev/tcp/pool.test/80 && echo x >&3 && head -n 1 <&3 && read -r -t 60 x <&3; echo "ended $?"' >"$work/flow" 2>&1 &
flow_pid=$!
until_true 20 grep -q 2001:db8:100::20 "$work/flow"
ctl egress rm "$a" pool.test >/dev/null 2>&1
wait $flow_pid
ok "$(grep -q 'ended 1' "$work/flow"; echo $?)" "a narrowed policy ends a connection that only receives"
is "$(get "$a" 2001:db8:100::20)" "" "and its address is closed"
is "$(get "$a" ok.test)" "2001:db8:100::10 sees 2001:db8:99::1" "what is still allowed goes on"
kill -9 "$(child broker)"
serving_again() { [ "$(get "$a" 2001:db8:100::10)" = "2001:db8:100::10 sees 2001:db8:99::1" ]; }
until_true 20 serving_again
ok $? "kill -9 of the broker: what was open stays open"
is "$(get "$a" 2001:db8:100::11)" "" "and what was closed stays closed"
in_router nft flush ruleset
flushed_back() { in_router nft list table inet sandboxd 2>/dev/null | grep -q 'chain ready'; }
until_true 20 flushed_back
is "$(get "$a" 2001:db8:100::11)" "" "flushed rules open nothing"
until_true 20 serving_again
ok $? "and come back with the lease"
b_conn() { in_router cat /proc/net/nf_conntrack 2>/dev/null | grep -c "$1"; }
if in_router test -r /proc/net/nf_conntrack; then
	full=$(python3 -c 'import ipaddress, sys; print(ipaddress.ip_address(sys.argv[1]).exploded)' "$free6")
	ok "$([ "$(b_conn "$full")" -gt 0 ]; echo $?)" "the router knows connections of the sandbox"
	api DELETE "/v1/sandboxes/$free" >/dev/null
	no_entries() { [ "$(b_conn "$full")" = 0 ]; }
	until_true 20 no_entries
	ok $? "and none once it is gone"
else
	echo "# /proc/net/nf_conntrack is not there: entries of a dead sandbox are not looked at"
fi

# ---- beside another instance, and the end ----
delete_all
stop_daemon
unset SBX_FAULT
one_config=$work/config1
mv "$work/config" "$one_config"
one=$instance one_run=$run one_state=$state
take_instance
run=$work/run2 state=$work/state2
mkdir "$run" "$state"
config | write_config
fault=$work/fault
start_daemon
ok $? "a second instance with IPv6, while the links of the first are there"
second=$(create)
is "$(get "$second" 2001:db8:100::10)" "2001:db8:100::10 sees 2001:db8:99::1" "its sandboxes reach the world"
"$top_builddir/sandboxd" --purge --config "$one_config" >>"$log" 2>&1
is "$(get "$second" 2001:db8:100::11)" "2001:db8:100::11 sees 2001:db8:99::1" "also when the first has been purged"
delete_all
stop_daemon
sed -i 's/^ipv6 = true/ipv6 = false/' "$work/config"
start_daemon
ok $? "and again without IPv6"
plain=$(create)
is "$(inside "$plain" ip -o -6 addr | grep -vc ' ::1/128')" 0 "row 17: without it a sandbox has ::1 and nothing else"
is "$(get "$plain" 2001:db8:100::10)" "" "and reaches nothing by IPv6"
is "$(resolves "$plain" ok.test)" "" "AAAA is empty"
delete_all
stop_daemon
"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1
is $? 0 "purged"
host_state >"$work/after"
ok "$(cmp -s "$work/before" "$work/after"; echo $?)" "the host is as it was: links, routes, rules, sysctls"
cmp -s "$work/before" "$work/after" || diff "$work/before" "$work/after" | head -20 | sed 's/^/# /'
done_testing
