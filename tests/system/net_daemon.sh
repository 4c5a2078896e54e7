#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The network as real sandboxes of a real daemon see it: names through sandbox-dnsd, the outside, and nothing else; again after
# kill -9 of broker and dnsd and after `nft flush ruleset`.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"

chmod 755 "$run" # the run directory is below it, and our processes have ids of their own
world_up
for addr in 198.51.100.10 10.9.0.5 169.254.169.254; do serve_tcp "$world" $addr 80; done
ip route add 10.9.0.5 dev out
ip addr add 10.50.0.1/32 dev out
serve_tcp $$ 10.50.0.1 80
serve_tcp $$ 198.51.100.1 80
# a name server of the host: every A question gets 198.51.100.10
python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("127.0.1.1", 53)); print("up", flush=True)
while True:
    q, a = s.recvfrom(2000)
    end = q.index(b"\0", 12) + 5
    yes = q[end - 4:end - 2] == b"\0\1"
    r = q[:2] + b"\x81\x80\0\1\0" + (b"\1" if yes else b"\0") + b"\0\0\0\0" + q[12:end]
    s.sendto(r + (b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc6\x33\x64\x0a" if yes else b""), a)' >"$run/served" 2>&1 &
children+=($!)
until [ -s "$run/served" ]; do read -r -t 0.02 <> <(:); done

. "$(dirname "$0")/instance_lib.sh"
take_instance || exit 99
cat >"$run/config" <<END
instance = $instance
state_dir = "$run/state"
run_dir = "$run/run"
[server]
port = 18977
endpoint_port = 18978
[network]
allow_private = ["10.50.0.1"]
[dns]
upstreams = ["127.0.1.1"]
[pool]
target = 1
END
ctl() { timeout 30 "$top_builddir/sandboxctl" --socket "$run/run/api.sock" "$@"; }
"$top_builddir/sandboxd" --standalone --config "$run/config" >"$run/log" 2>&1 &
daemon=$!
children+=("$daemon")
for _ in $(seq 300); do grep -q '^sandboxd ready' "$run/log" && break; read -r -t 0.2 <> <(:); done
grep -q '^sandboxd ready' "$run/log"
ok $? "the daemon is ready"
new() { ctl create -o json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1; }
a=$(new)
b=$(new)
[ -n "$a" ] && [ -n "$b" ]
ok $? "two sandboxes"
inside() { local id=$1; shift; ctl exec "$id" -- "$@"; }
get() { inside "$1" bash -c 'timeout 3 bash -c "exec 3<>/dev/tcp/$0/$1 && cat <&3"' "$2" "$3"; }
# The command inside ran and said that there was no way: another failure is not a refusal.
refused() { inside "$1" bash -c 'timeout 3 bash -c "exec 3<>/dev/tcp/$0/$1 && cat <&3" 2>/dev/null; echo code $?' "$2" "$3" | grep -qx 'code [1-9][0-9]*'; }
addr_of() { inside "$1" hostname -I | tr -d ' \n'; }
addr_a=$(addr_of "$a") addr_b=$(addr_of "$b")
inside "$b" bash -c 'nohup python3 -c "
import socket
s = socket.socket(); s.bind((\"0.0.0.0\", 80)); s.listen(9)
while True:
    c, a = s.accept(); c.sendall(b\"hello\"); c.close()" >/dev/null 2>&1 & echo started' >/dev/null
for _ in $(seq 50); do get "$b" "$addr_b" 80 </dev/null >/dev/null 2>&1 && break; done
yes "b's server answers b" get "$b" "$addr_b" 80

look() {
	yes "$1: a name is answered" sh -c "timeout 20 $top_builddir/sandboxctl --socket $run/run/api.sock exec $a -- getent ahostsv4 some.test | grep 198.51.100.10"
	yes "$1: the outside by name" get "$a" some.test 80
	yes "$1: the address of the host that is named" get "$a" 10.50.0.1 80
	yes "$1: not the other sandbox" refused "$a" "$addr_b" 80
	yes "$1: not the host" refused "$a" 198.51.100.1 80
	yes "$1: not metadata" refused "$a" 169.254.169.254 80
	yes "$1: not a private address" refused "$a" 10.9.0.5 80
	yes "$1: not the daemon's own port" refused "$a" 198.51.100.1 18977
}
[ "$addr_a" != "$addr_b" ] && [ -n "$addr_b" ]
ok $? "their addresses differ ($addr_a, $addr_b)"
look fresh
yes "ping works without a privilege" inside "$a" ping -n -c 1 -W 2 198.51.100.10
children_of() { pgrep -P "$daemon" -x "$1"; }
pids="$(children_of sandbox-dnsd) $(children_of sandbox-broker)"
yes "broker and dnsd are killed" kill -9 $pids
for _ in $(seq 100); do
	[ "$(grep -c 'serving 1 name' "$run/log")" -ge 2 ] && break
	read -r -t 0.1 <> <(:)
done
look "after kill -9 of broker and dnsd"
nft flush ruleset
for _ in $(seq 100); do get "$a" 198.51.100.10 80 >/dev/null 2>&1 && break; done
look "after nft flush ruleset"
kill "$daemon"
wait "$daemon" 2>/dev/null
yes "purge" "$top_builddir/sandboxd" --purge --config "$run/config"
is "$(nft list ruleset | grep -c sandboxd)" 0 "no rule is left"
is "$(cat /proc/sys/net/ipv4/conf/out/forwarding)" 0 "forwarding is as before"
[ $failed = 0 ] || sed 's/^/# /' "$run/log"
done_testing
