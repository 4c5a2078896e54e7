#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Attacks on the guards: forged sources, flows of the slot's last tenant, rules flushed under a flood, a forward chain of
# others that drops, a dead broker, names and neighbours.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"

# counter_at PID: counts packets from 10.231.0.0/16 or to 10.9.0.5 that arrive at the peer, whatever they are
counter_on() {
	in_ns "$world" nft "add table inet seen; add chain inet seen in { type filter hook prerouting priority -500; }
		add rule inet seen in iifname w0 ip daddr 10.9.0.5 counter comment denied
		add rule inet seen in iifname w0 ip saddr 10.231.0.0/16 counter comment unmasked
		add rule inet seen in iifname w0 ip daddr 198.51.100.10 counter comment allowed"
}
seen() { in_ns "$world" nft list chain inet seen in | sed -n "s/.*packets \([0-9]*\) .*comment \"$1\".*/\1/p"; }
# flood PID ADDR SECONDS: UDP as fast as it goes
flood() {
	nsenter -t "$1" -n -- python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end, n = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    try: s.sendto(b"x", (sys.argv[1], 9)); n += 1
    except OSError: pass
print(n)' "$2" "$3"
}
# forge PID SOURCE DESTINATION: a raw UDP packet to port 9, as a sandbox with CAP_NET_RAW could send it
forge() {
	in_ns "$1" python3 -c '
import socket, struct, sys
src, dst, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
frag, ihl = int(sys.argv[4], 0), int(sys.argv[5])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for i in range(n):
    udp = struct.pack("!HHHH", 4000 + i, 9, 9, 0) + b"x"
    ip = struct.pack("!BBHHHBBH4s4s", 0x40 | ihl, 0, ihl * 4 + len(udp), i + 1, frag, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst))
    s.sendto(ip + b"\x01" * (ihl * 4 - 20) + udp, (dst, 0))' "$2" "$3" "${4:-1}" "${5:-0}" "${6:-5}"
}

world_up
ip route add 10.9.0.5 dev out
# Docker's habit: a forward chain that drops by default, with its own chain for rules of others
nft 'add table ip filter; add chain ip filter DOCKER-USER; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
	add rule ip filter FORWARD jump DOCKER-USER; add rule ip filter FORWARD ct state established accept comment "docker-own"'
nft 'add table ip ufw; add chain ip ufw ufw-forward { type filter hook forward priority 0; policy drop; }'
nft 'add table inet firewalld; add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }
	add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited'
before=$(nft list ruleset)
driver_start
sandbox a 0
sandbox b 1
counter_on

# --- beside chains that drop ---
yes "beside Docker, ufw and firewalld a reaches the internet" pings "$a" 198.51.100.10
is "$(nft list chain ip filter DOCKER-USER | grep -c 'comment "sandboxd-nettest"')" 2 "accept rules are in Docker's chain for rules of others"
is "$(nft list chain ip filter FORWARD | grep -c sandboxd-nettest)" 0 "and not in Docker's own chain"
nft flush chain ip ufw ufw-forward
for _ in $(seq 40); do
	[ "$(nft list chain ip ufw ufw-forward | grep -c sandboxd-nettest)" = 2 ] && break
	read -r -t 0.1 <> <(:)
done
yes "a chain that was flushed by its owner gets its accept rules again" pings "$a" 198.51.100.10

# --- forged sources (threats: anti-spoof, before connection tracking) ---
entries() { nsenter --net="$run/router" sh -c 'conntrack -L 2>/dev/null | wc -l'; }
nsenter --net="$run/router" conntrack -F >/dev/null 2>&1
allowed=$(seen allowed)
forge "$a" 10.231.0.2 198.51.100.10 50
forge "$a" 198.51.100.1 198.51.100.10 50
forge "$a" 169.254.1.1 198.51.100.10 50
forge "$a" 127.0.0.1 198.51.100.10 50
forge "$a" 10.231.77.77 198.51.100.10 50
is "$(seen allowed)" "$allowed" "250 packets with forged sources: none arrives"
is "$(entries)" 0 "nor costs a connection entry"
forge "$a" 10.231.0.1 198.51.100.10 1 0x2000
forge "$a" 10.231.0.1 198.51.100.10 1 0 6
is "$(seen allowed)" "$allowed" "fragments and IP options do not pass"
forge "$a" 10.231.0.1 198.51.100.10 1
is "$(seen allowed)" "$((allowed + 1))" "the same packet with the own source does"
is "$(seen unmasked)" 0 "no packet ever left with a sandbox's address"

# --- neighbours: the table is one for the whole machine ---
count_neigh() { { ip neigh; nsenter --net="$run/router" ip neigh; in_ns "$a" ip neigh; } | wc -l; }
neigh=$(count_neigh)
in_ns "$a" python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(20000):
    try: s.sendto(b"x", ("10.231.%d.%d" % (i >> 8 & 255, i & 255), 9))
    except OSError: pass'
is "$(count_neigh)" "$neigh" "20,000 addresses tried: no neighbour entry more"

# --- flush ruleset under a flood ---
counters() { nft list ruleset | grep -c "table inet sandboxd-nettest"; }
flood "$a" 10.9.0.5 6 >"$run/sent" &
flooder=$!
for _ in 1 2 3 4 5; do
	nft flush ruleset
	for _ in $(seq 100); do
		[ "$(counters)" = 1 ] && tell open && [ "$answer" = "ok 1" ] && break
		read -r -t 0.05 <> <(:)
	done
done
wait "$flooder"
ok $(($(cat "$run/sent") < 1000)) "flood to a denied address: $(cat "$run/sent") packets sent"
is "$(seen denied)" 0 "five times 'nft flush ruleset' on the host: 0 of them arrive"
is "$(seen unmasked)" 0 "and nothing left unmasked"
tell open
is "$answer" "ok 1" "the network is open again"
yes "and works" pings "$a" 198.51.100.10
nft delete chain inet sandboxd-nettest postrouting
for _ in $(seq 100); do nft list chain inet sandboxd-nettest postrouting >/dev/null 2>&1 && break; read -r -t 0.05 <> <(:); done
tell open
yes "a chain of ours that somebody deletes comes back" pings "$a" 198.51.100.10
nft insert rule inet sandboxd-nettest input accept
for _ in $(seq 100); do nft list chain inet sandboxd-nettest input | grep -qx '[[:space:]]*accept' || break; read -r -t 0.05 <> <(:); done
no "a rule that somebody adds to our table goes" sh -c "nft list chain inet sandboxd-nettest input | grep -x '[[:space:]]*accept'"

# --- the last tenant's flows ---
nsenter -t "$world" -n -- python3 -c '
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("198.51.100.10", 7)); print("up", flush=True)
d, a = s.recvfrom(100)
while True:
    s.sendto(b"SECRET", a); time.sleep(0.05)' >"$run/served" 2>&1 &
children+=($!)
until [ -s "$run/served" ]; do read -r -t 0.02 <> <(:); done
listen='
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], 4444)); s.settimeout(2)
if sys.argv[2] == "ask": s.sendto(b"x", ("198.51.100.10", 7))
try: print(s.recv(100).decode())
except OSError: print("nothing")'
is "$(in_ns "$a" python3 -c "$listen" 10.231.0.1 ask)" SECRET "the first tenant of slot 0 talks to a peer that goes on sending"
kill "$a"
tell gone "$a_if"
is "$answer" "ok gone" "its link's end is reported"
tell present "$a_if"
is "$answer" "ok 0" "and it is not there"
tell drop 0
ok $((${answer#ok } < 1)) "its connections are deleted (${answer#ok })"
sandbox c 0
is "$(in_ns "$c" python3 -c "$listen" 10.231.0.1 wait)" nothing "the next tenant of slot 0 hears nothing"
tell drop 1
is "$answer" "ok 0" "a neighbour without connections has none"

# --- a dead broker: packets go on, a new one adopts ---
kill -9 "$driver_pid"
wait "$driver_pid" 2>/dev/null
yes "with the broker dead the internet is there" pings "$c" 198.51.100.10
no "and the denied stays denied" pings "$c" 10.9.0.5
driver_start
is "${answer%% *}" ok "the next broker adopts router and uplink"
tell present "$c_if"
is "$answer" "ok 1" "it knows the link"
yes "and c still works" pings "$c" 198.51.100.10
sandbox d 2
yes "a new sandbox works" pings "$d" 198.51.100.10
no "and does not reach the old one" pings "$d" 10.231.0.1

# --- somebody switches forwarding off, and on for the whole host ---
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv4/ip_forward
for _ in $(seq 100); do
	[ "$(cat /proc/sys/net/ipv4/conf/out/forwarding "/proc/sys/net/ipv4/conf/$uplink/forwarding" | tr -d '\n')" = 11 ] && break
	read -r -t 0.05 <> <(:)
done
yes "ip_forward was written: our two interfaces forward again" pings "$d" 198.51.100.10
is "$(sort "$run/sysctl" | uniq -d | wc -l)" 0 "and nothing is recorded twice"

# --- overlap with a route of the host ---
mkdir "$run/other"
ip route add 10.77.0.0/17 dev out
no "a subnet that holds a route of the host is refused" timeout 10 "$driver" "$run/other" nettest2 10.77.0.0/16
yes "and the text names the route" sh -c "timeout 10 $driver $run/other nettest2 10.77.0.0/16 | grep 'overlaps the host.s route to 10.77.0.0/17'"
yes "a second instance beside it" sh -c "echo purge | timeout 20 $driver $run/other nettest2 10.78.0.0/16 | grep 'ok purged'"
yes "does not touch the first" pings "$d" 198.51.100.10

echo 1 >/proc/sys/net/ipv4/ip_forward
tell purge
is "$answer" "ok purged" "purge"
is "$(cat /proc/sys/net/ipv4/conf/out/forwarding)" 1 "what another program wants forwarded goes on"
wait "$driver_pid" 2>/dev/null
is "$(nft list ruleset | grep -c sandboxd-nettest)" 0 "no rule of ours is left in any chain"
done_testing
