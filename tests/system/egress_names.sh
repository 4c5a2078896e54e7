#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Names end to end: a real daemon, real sandboxes with policies, a name server and web servers of the test's own world.  What a
# name opens, what a change closes, and what kill -9 of sandbox-dnsd, sandboxd and the broker leaves open.
: "${top_srcdir:=.}"
. "$top_srcdir/tests/system/daemon_lib.sh"

# The world: the far end of a veth, with a name server that knows a few names and web servers that say their address.
ip link add out type veth peer name world
ip addr add 198.51.100.1/24 dev out
ip link set out up
world_pid=
unshare -n sleep 600 &
world_pid=$!
own_net() { [ "$(readlink /proc/$world_pid/ns/net)" != "$(readlink /proc/self/ns/net)" ]; }
until_true 5 own_net || { echo "1..1"; echo "not ok 1 - a network namespace for the world"; exit 1; }
ip link set world netns $world_pid
in_world() { nsenter --net=/proc/$world_pid/ns/net "$@"; }
in_world sh -c 'ip link set lo up; ip link set world up
for a in 10 11 20 53; do ip addr add 198.51.100.$a/24 dev world; done; ip addr add 10.9.0.5/32 dev world'
ip route add default via 198.51.100.53
cat >"$work/world.py" <<'END'
import socket, struct, sys, threading
zone = {"ok.test": ["198.51.100.10"], "oth.test": ["198.51.100.11"], "x.a.test": ["198.51.100.20"], "reb.test": ["10.9.0.5"], "meta.test": ["169.254.169.254"]}
def web(addr):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((addr, 80)); s.listen(64)
    while True:
        c, _ = s.accept(); threading.Thread(target=serve, args=(c, addr), daemon=True).start()
def serve(c, addr):
    try:
        while True:
            line = c.recv(1000)
            if not line: break
            c.sendall((addr + "\n").encode())
    except OSError: pass
    c.close()
for a in ("198.51.100.10", "198.51.100.11", "198.51.100.20", "10.9.0.5"): threading.Thread(target=web, args=(a,), daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("198.51.100.53", 53))
print("serving", flush=True)
while True:
    q, a = u.recvfrom(2000)
    at, labels = 12, []
    while q[at]: labels.append(q[at + 1:at + 1 + q[at]].decode("latin1").lower()); at += q[at] + 1
    name, end = ".".join(labels), at + 5
    with open(sys.argv[1], "a") as f: f.write(name + "\n")
    got = zone.get(name, []) if q[at + 2] == 1 else []
    r = q[:2] + struct.pack("!HHHHH", 0x8180 | (0 if name in zone or not name else 3), 1, len(got), 0, 0) + q[12:end]
    u.sendto(r + b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(x) for x in got), a)
END
nsenter --net=/proc/$world_pid/ns/net python3 "$work/world.py" "$work/asked" >"$work/served" 2>&1 &
server_pid=$!
until_true 10 grep -q serving "$work/served"
finish() { kill $server_pid $world_pid 2>/dev/null; cleanup; }
trap finish EXIT

write_config <<END
[server]
port = 0
endpoint_port = 0
[dns]
upstreams = ["198.51.100.53"]
static_hosts = ["fixed.test=198.51.100.11"]
[pool]
target = 2
END
start_daemon
ok $? "the daemon is ready"

inside() { local id=$1; shift; ctl exec "$id" -- "$@"; }
# What the web server at NAME says, within 3 s
get() { inside "$1" timeout 5 bash -c "exec 3<>/dev/tcp/$2/${3:-80} && echo x >&3 && head -n 1 <&3" 2>/dev/null | tr -d '\r'; }
resolves() { inside "$1" timeout 6 getent ahostsv4 "$2" 2>/dev/null | awk 'NR == 1 {print $1}'; }
resolved() { [ -n "$(resolves "$@")" ]; }
reached() { [ -n "$(get "$@")" ]; }
# The first address that the name server ADDRESS gives for NAME, or the response code; its socket takes answers of ADDRESS only
cat >"$work/ask.py" <<'END'
import socket, struct, sys
how, server, name = sys.argv[1:]
question = b"\x12\x34\1\0\0\1\0\0\0\0\0\0" + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\1\0\1"
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM)
s.settimeout(15)
s.connect((server, 53))
s.sendall((struct.pack("!H", len(question)) if how == "tcp" else b"") + question)
if how == "tcp":
    f = s.makefile("rb")
    answer = f.read(struct.unpack("!H", f.read(2))[0])
else:
    answer = s.recv(2000)
assert answer[:2] == b"\x12\x34"
print(socket.inet_ntoa(answer[-4:]) if struct.unpack("!H", answer[6:8])[0] else "rcode %d" % (answer[3] & 15))
END
asks() { inside "$1" python3 -c "$(cat "$work/ask.py")" "$2" "$3" "$4" 2>&1 | tail -n 1; }
allow() { printf '{"action":"allow","target":"%s"}' "$1"; }
policy() { printf '"networkPolicy":{"defaultAction":"deny","egress":[%s]}' "$1"; }

a=$(create '["sleep","600"]' "$(policy "$(allow ok.test),$(allow '*.a.test'),$(allow reb.test)")")
b=$(create '["sleep","600"]' "$(policy "$(allow oth.test),$(allow fixed.test)")")
c=$(create)
[ -n "$a" ] && [ -n "$b" ] && [ -n "$c" ]
ok $? "two sandboxes with policies and one without"

is "$(get "$a" ok.test)" 198.51.100.10 "an allowed name: resolved and reached"
is "$(get "$a" x.a.test)" 198.51.100.20 "one below an allowed wildcard"
is "$(get "$a" oth.test)" "" "row 69: what b may a may not"
is "$(get "$b" oth.test)" 198.51.100.11 "row 69: and b may"
is "$(get "$b" 198.51.100.10)" "" "row 69: an address that a's name has opened is closed for b"
is "$(get "$a" 198.51.100.11)" "" "row 71: no name, no way"
is "$(grep -c '^nope\.test' "$work/asked")" 0 "a name that is denied"
inside "$a" getent ahostsv4 nope.test >/dev/null 2>&1
is "$(grep -c '^nope\.test' "$work/asked")" 0 "row 32: never reaches a name server"
is "$(resolves "$a" reb.test)" "" "row 49: a name that leads to a private address has none"
is "$(resolves "$c" reb.test)" "" "row 49: also where everything is allowed"
is "$(resolves "$c" meta.test)" "" "row 51: nor does one that leads to the metadata service"
is "$(get "$c" oth.test)" 198.51.100.11 "without a policy every other name works"
is "$(get "$b" fixed.test)" 198.51.100.11 "a static host"
is "$(resolves "$a" localhost)" 127.0.0.1 "row 65: localhost"

for server in 203.0.113.99 8.8.8.8 169.254.169.254; do
	is "$(asks "$a" udp $server ok.test)" 198.51.100.10 "row 38: $server is asked and answers, by UDP"
	is "$(asks "$a" tcp $server ok.test)" 198.51.100.10 "row 38: and by TCP"
	is "$(asks "$a" udp $server nope.test)" "rcode 3" "row 38: by the policy of who asks"
done
is "$(asks "$b" udp 8.8.8.8 ok.test)" "rcode 3" "row 38: which is another one for b"
is "$(grep -c '^nope\.test' "$work/asked")" 0 "row 38: what is denied has still not left"
is "$(asks "$c" udp 198.51.100.53 nope.test)" "rcode 3" "without a policy a name server is asked directly"
is "$(grep -c '^nope\.test' "$work/asked")" 1 "and is the one that answers"
: >"$work/asked"

fails=0
for _ in $(seq 20); do [ "$(inside "$a" bash -c 'for i in 1 2 3 4 5; do exec 3<>/dev/tcp/ok.test/80 && echo x >&3 && head -n 1 <&3; done' 2>/dev/null | sort -u)" = 198.51.100.10 ] || fails=$((fails + 1)); done
is $fails 0 "row 72: connecting right after the answer never fails (100 times)"

kill -9 "$(child dnsd)"
is "$(get "$a" 198.51.100.10)" 198.51.100.10 "kill -9 of dnsd: what it had opened stays open"
is "$(get "$a" 198.51.100.11)" "" "and nothing else is"
until_true 10 resolved "$a" x.a.test
is "$(resolves "$a" x.a.test)" 198.51.100.20 "names resolve again"
is "$(get "$a" oth.test)" "" "by the same policy"

api PATCH "/v1/sandboxes/$a/proxy/18080/policy" "[$(allow oth.test)]" >/dev/null
token=$(api GET "/v1/sandboxes/$a/endpoints/18080" | sed -n 's/.*"OPENSANDBOX-EGRESS-AUTH":"\([^"]*\)".*/\1/p')
patch() { curl -s -m 10 --unix-socket "$run/api.sock" -H "OPENSANDBOX-EGRESS-AUTH: $token" -X "$1" -d "$2" "http://localhost/v1/sandboxes/$a/proxy/18080/policy" -o "$work/body" -w '%{http_code}'; }
is "$(patch PATCH "[$(allow oth.test)]")" 200 "row 88: another name is allowed"
is "$(get "$a" oth.test)" 198.51.100.11 "row 88: and works"
is "$(get "$a" 198.51.100.10)" 198.51.100.10 "row 88: what was opened before is not lost"

kill -9 "$(child sandboxd)"
is "$(get "$a" 198.51.100.10)" 198.51.100.10 "kill -9 of sandboxd: names and flows go on" 2>/dev/null || :
until_true 20 serving
until_true 10 resolved "$a" ok.test
is "$(resolves "$a" ok.test)" 198.51.100.10 "after kill -9 of sandboxd an allowed name is resolved"
is "$(resolves "$a" nope.test)" "" "and a denied one is not"
is "$(get "$b" 198.51.100.10)" "" "nothing is open that was not"

kill -9 "$(child broker)"
until_true 20 grep -q 'served again' "$log"
until_true 10 reached "$a" x.a.test
is "$(get "$a" x.a.test)" 198.51.100.20 "after kill -9 of the broker addresses are opened again"
is "$(get "$a" 198.51.100.20)" 198.51.100.20 "and what was open is"

kill -9 "$(child dnsd)" "$(child broker)" "$(child sandboxd)"
until_true 30 serving
until_true 15 resolved "$a" ok.test
is "$(get "$a" ok.test)" 198.51.100.10 "after kill -9 of all three at once"

is "$(patch DELETE '["ok.test"]')" 200 "row 89: the name is taken away"
is "$(get "$a" 198.51.100.10)" "" "row 89: its address is closed"
is "$(get "$a" 198.51.100.11)" 198.51.100.11 "row 89: the others are not"
inside "$a" sh -c 'cat "$SANDBOX_DENIED_LOG"' >"$work/denied" 2>/dev/null
grep -q nope.test "$work/denied"
ok $? "the sandbox reads why"
# Row 87: the lease of an address with a live connection is renewed, one without is not.  The timer is 0.3 s instead of 30.
if grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	d=$(create '["sleep","600"]' "$(policy "$(allow ok.test),$(allow oth.test)")")
	addr=$(inside "$d" python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("169.254.1.1", 9)); print(s.getsockname()[0])')
	# Seconds that are left of the lease of ADDRESS; 0: none
	left() { nsenter --net="$run/router" nft list set inet sandboxd lease | tr ',' '\n' |
		sed -n "s/.*$addr . $1 .*expires \([0-9dhms]*\).*/\1/p" | sed 's/[0-9]*ms$//' | awk '{
		while (match($0, /[0-9]+[dhms]/)) {
			unit = substr($0, RSTART + RLENGTH - 1, 1)
			n += substr($0, RSTART, RLENGTH - 1) * (unit == "d" ? 86400 : unit == "h" ? 3600 : unit == "m" ? 60 : 1)
			$0 = substr($0, RSTART + RLENGTH)
		}} END {print n + 0}'; }
	longer_than() { [ "$(left "$1")" -gt "$2" ]; }
	resolves "$d" oth.test >/dev/null
	inside "$d" bash -c 'exec 3<>/dev/tcp/ok.test/80; echo x >&3; head -n 1 <&3; sleep 600' >"$work/held" &
	held=$!
	until_true 20 grep -q 198.51.100.10 "$work/held"
	longer_than 198.51.100.10 0 && ! longer_than 198.51.100.10 130 && longer_than 198.51.100.11 0
	ok $? "row 87: two leases of two minutes at most, one with a connection"
	echo dnsd-renew:fail >"$fault"
	kill -9 "$(child dnsd)"
	until_true 30 longer_than 198.51.100.10 200
	ok $? "row 87: the one with a connection is extended"
	! longer_than 198.51.100.11 130
	ok $? "row 87: the one without is not"
	if [ -n "${EGRESS_SLOW:-}" ]; then
		# Gone, not below one second: in that it still opens.
		no_lease() { ! nsenter --net="$run/router" nft list set inet sandboxd lease | grep -q "$addr \. 198.51.100.11 "; }
		until_true 140 no_lease
		is "$(get "$d" 198.51.100.11)" "" "row 87: and ends"
		is "$(get "$d" 198.51.100.10)" 198.51.100.10 "row 87: when the other one is still open"
	fi
	rm -f "$fault"
	kill $held 2>/dev/null
else
	ok 0 "row 87: renewal at its timer # SKIP built without fault points"
fi
is "$(grep -c 'refused packets cannot be read' "$log")" 0 "each dnsd and each broker gave and got the log of refused packets"
done_testing
