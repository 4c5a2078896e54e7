#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Attacks on a running daemon, named after what is tried: by tenants inside, by HTTP clients without a key, by
# volumes, by a hostile service behind the proxy, and by one sandbox that takes what another one needs.
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
[ -x /usr/bin/python3 ] || { echo "1..0 # SKIP no python3 for the attackers inside"; exit 0; }
command -v curl >/dev/null || { echo "1..0 # SKIP no curl"; exit 0; }
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
here=$top_srcdir/tests/system

# an outside that answers nothing: packets go there and stay
exec {outside_up}< <(exec unshare -n -- sh -c 'echo; exec sleep 300' </dev/null)
read -r -u "$outside_up" _
outside=$!
ip link add out type veth peer name in netns "$outside"
ip addr add 198.51.100.1/24 dev out
ip link set out up
nsenter -t "$outside" -n sh -c 'ip link set lo up; ip addr add 198.51.100.10/24 dev in; ip addr add 169.254.169.254/32 dev in; ip link set in up'
ip route add default via 198.51.100.10
nsenter -t "$outside" -n /usr/bin/python3 -c '
import socket, time
kept = [socket.create_server((a, 80)) for a in ("198.51.100.10", "169.254.169.254")]
time.sleep(300)' &
metadata=$!
/usr/bin/python3 -c '
import socket, time
s = socket.socket(socket.AF_UNIX); s.bind("\0attack-abstract"); s.listen(9)
time.sleep(300)' &
abstract=$!
end_attack() {
	kill "$outside" "$metadata" "$abstract" 2>/dev/null
	cleanup
}
trap end_attack EXIT

mkdir -p "$work/vol/allowed/sub"
echo secret >"$work/vol/secret"
ln -s ../secret "$work/vol/allowed/link"
ln -s ../../vol "$work/vol/allowed/sub/up"
write_config <<-EOF2
	[server]
	host = "0.0.0.0"
	port = 18801
	endpoint_port = 18802
	api_key = "attack-key"
	limit_concurrency = 300
	[pool]
	target = 0
	[storage]
	allowed_host_paths = ["$work/vol/allowed"]
EOF2
start_daemon
ok $? "the daemon starts"

put() { # put ID NAME: a file of this directory to /tmp
	curl -s -m 10 --unix-socket "$run/api.sock" -F "metadata={\"path\":\"/tmp/$2\"};type=application/json" -F "file=@$here/$2" \
		"http://localhost/v1/sandboxes/$1/proxy/44772/files/upload"
}
inside() { # inside ID COMMAND [UID]: what it prints
	execd "$1" /command "{\"command\":\"($2) >/tmp/out.${3:-0} 2>&1\"${3:+,\"uid\":$3}}" >/dev/null
	execd "$1" "/files/download?path=/tmp/out.${3:-0}"
}
background() { execd "$1" /command "{\"command\":\"$2\",\"background\":true}" >/dev/null; }
report() { # report PREFIX: lines "good NAME" and "bad NAME WHAT"
	local verdict name n=0
	while read -r verdict name; do
		[ "$verdict" = good ]
		ok $? "$1: $name"
		n=$((n + 1))
	done
	[ $n -gt "$2" ]
	ok $? "$1: all were tried"
}

a=$(create) b=$(create)
[ -n "$a" ] && [ -n "$b" ]
ok $? "two sandboxes"
put "$a" attack_inside.py
put "$b" attack_inside.py
for id in "$a" "$b"; do
	put "$id" attack_service.py
	background "$id" "python3 /tmp/attack_service.py"
done
addr_b=$(inside "$b" "hostname -I" | tr -d ' \n')
targets="host:198.51.100.1:18801 gateway:169.254.1.1:18801 loopback:127.0.0.1:18801 metadata:169.254.169.254:80 abstract:attack-abstract:0 'another sandbox:$addr_b:9013'"
inside "$b" "timeout 20 bash -c 'until (exec 3<>/dev/tcp/$addr_b/9013) 2>/dev/null; do sleep 0.1; done'; echo \$?" | grep -qx 0
ok $? "(the other sandbox serves its own address)"
inside "$a" "timeout 20 bash -c 'exec 3<>/dev/tcp/198.51.100.10/80'; echo \$?" | grep -qx 0
ok $? "(and the outside can be reached)"

report root 100 < <(inside "$a" "python3 /tmp/attack_inside.py attack $targets")
report user 100 < <(inside "$a" "python3 /tmp/attack_inside.py attack $targets" 1000)

token=$(api GET "/v1/sandboxes/$b/endpoints/44772" | sed -n 's/.*"X-EXECD-ACCESS-TOKEN":"\([^"]*\)".*/\1/p')
for what in keyless service; do
	report $what 20 < <(timeout 40 /usr/bin/python3 "$here/attack_http.py" $what 18801 18802 "$a" "$b" attack-key "$token" 2>&1)
done

# ---- volumes ----
volume() { # volume PATH MOUNT-PATH SUB-PATH: the status of a create
	local id
	id=$(create '["sleep","60"]' "\"volumes\":[{\"name\":\"v\",\"host\":{\"path\":\"$1\"},\"mountPath\":\"$2\"${3:+,\"subPath\":\"$3\"}}]")
	[ -z "$id" ] || inside "$id" "cat $2/secret $2; head -1 /proc/1/comm; echo 1 > /proc/sys/kernel/hostname"
	[ -z "$id" ] || api DELETE "/v1/sandboxes/$id" >/dev/null
}
allowed=$work/vol/allowed
while read -r path mount sub; do
	said=$(volume "$path" "$mount" "$sub")
	[ -z "$said" ]
	ok $? "volume ${path#"$work/"} at $mount $sub is refused"
	[ -z "$said" ] || printf '# %s\n' "$said"
done <<-EOF2
	$allowed/link /mnt/v
	$allowed/sub/up /mnt/v
	$allowed/../secret /mnt/v
	$allowed/sub/../../secret /mnt/v
	$work/vol /mnt/v
	${allowed}x /mnt/v
	/ /mnt/v
	/etc /mnt/v
	/proc/1/root /mnt/v
	$allowed /mnt/v ..
	$allowed /mnt/v link
	$allowed /mnt/v sub/up
	$allowed /mnt/v sub/../..
	$allowed /mnt/v /etc
	$allowed /proc
	$allowed /proc/self
	$allowed /sys/fs/cgroup
	$allowed /dev/null
	$allowed /opt/opensandbox
	$allowed /tmp/../proc
	$allowed /
EOF2

# ---- one takes, the other one still gets ----
took() { # took KIND SECONDS: what A says it got; it keeps it for so long
	background "$a" "python3 /tmp/attack_inside.py hold $1 $2 >/tmp/took.$1 2>&1"
	inside "$a" "timeout 12 bash -c 'until [ -s /tmp/took.$1 ]; do sleep 0.1; done'; cat /tmp/took.$1" | head -1
}
within() { # within NUMBER FROM TO NAME
	[ "${1:-none}" -ge "$2" ] 2>/dev/null && [ "$1" -le "$3" ]
	ok $? "$4"
	[ "${1:-none}" -ge "$2" ] 2>/dev/null && [ "$1" -le "$3" ] || echo "#   got: $1, not from $2 to $3"
}
within "$(took terminals 3)" 64 256 "terminals: one sandbox gets some, not the host's"
out=$(inside "$b" "python3 -c 'import pty; print(len(pty.openpty()))'")
is "$out" 2 "terminals: another sandbox gets one meanwhile"
within "$(took sockets 0)" 1 110 "buffers of sockets (MiB) are bounded below the memory limit"
took flows 0 >"$work/flows"
within "$(nsenter --net="$run/router" cat /proc/sys/net/netfilter/nf_conntrack_count)" 1000 4200 "tracked connections: one sandbox gets a share of the table"
out=$(inside "$b" "timeout 3 bash -c 'exec 3<>/dev/tcp/198.51.100.10/80'; echo \$?")
is "$out" 0 "tracked connections: another sandbox connects meanwhile"
for kind in processes memory; do
	background "$a" "timeout -s KILL 3 python3 /tmp/attack_inside.py hold $kind 3"
	good=0
	for _ in 1 2 3 4 5; do
		[ "$(inside "$b" "echo here")" = here ] && good=$((good + 1))
	done
	is $good 5 "$kind: another sandbox runs commands meanwhile"
done

# ---- strangers who hold every connection of the gateway ----
exec {held_up}< <(exec /usr/bin/python3 -c '
import socket, time
kept = []
for _ in range(400):
    c = socket.create_connection(("127.0.0.1", 18801))
    c.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
    kept.append(c)
print(flush=True)
time.sleep(3)')
read -r -u "$held_up" _
is "$(curl -s -m 5 -o /dev/null -w '%{http_code}' http://127.0.0.1:18801/health)" 000 "connections: strangers take all there are for strangers"
api GET /v1/sandboxes >/dev/null
is "$(status)" 200 "connections: who has the Unix socket is answered meanwhile"
exec {held_up}<&-

# ---- what was accepted once ----
ping() { curl -s -m 10 -o /dev/null -w '%{http_code}' -H "X-EXECD-ACCESS-TOKEN: $token" "http://127.0.0.1:18801/sandboxes/$b/proxy/44772/ping"; }
free_again() { [ "$(ping)" = 200 ]; }
until_true 15 free_again
ok $? "a token is accepted"
api POST "/v1/sandboxes/$b/pause" >/dev/null
is "$(ping)" 503 "and remembered, but not while the sandbox is paused"
api POST "/v1/sandboxes/$b/resume" >/dev/null
is "$(ping)" 200 "again after that"
api DELETE "/v1/sandboxes/$b" >/dev/null
is "$(ping)" 404 "and not once it is deleted"
delete_all
until_true 15 clean
ok $? "and nothing of all this is left"
leftovers | sed 's/^/# /'
! grep -E 'Sanitizer|runtime error|Assertion|ended by signal' "$log"
ok $? "no process of ours fell"
done_testing
