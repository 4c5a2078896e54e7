#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The public listeners in front of real sandboxes: both endpoint routes, services on every kind of address, WebSocket,
# paused and ended sandboxes, and a gateway that is killed.  A daemon of its own in a network of its own.
set -u
build=${top_builddir:-$PWD}
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
command -v curl >/dev/null || { echo "1..0 # SKIP no curl"; exit 0; }
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3 for the services inside"; exit 0; }
[ -x "$build/sandboxd" ] || { echo "1..0 # SKIP no sandboxd in $build"; exit 0; }
if [ -z "${GATEWAY_TEST_INSIDE:-}" ]; then
	GATEWAY_TEST_INSIDE=1 exec unshare -n -- "$0" "$@"
fi
ip link set lo up
. "$(dirname "$0")/instance_lib.sh"
take_instance || exit 99
work=$(mktemp -d /var/tmp/sandboxd-gateway.XXXXXX)
chmod 755 "$work"
run=$work/run
cat >"$work/config" <<END
instance = $instance
state_dir = "$work/state"
run_dir = "$run"
[server]
port = 18201
endpoint_port = 18202
api_key = "secret"
[isolation]
slots = 32
END
monitor=
stop() {
	[ -z "$monitor" ] || { kill -TERM "$monitor" && wait "$monitor"; } 2>/dev/null
	"$build/sandboxd" --purge --config "$work/config" >>"$work/log" 2>&1
	rm -rf "$work"
}
trap stop EXIT
"$build/sandboxd" --standalone --config "$work/config" >"$work/log" 2>&1 &
monitor=$!

tests=0 failed=0
ok() { # ok CODE NAME
	tests=$((tests + 1))
	if [ "$1" = 0 ]; then echo "ok $tests - $2"; else echo "not ok $tests - $2"; failed=$((failed + 1)); fi
}
is() { # is GOT WANT NAME
	[ "$1" = "$2" ]
	ok $? "$3"
	[ "$1" = "$2" ] || printf '#   got: %s\n#  want: %s\n' "$1" "$2"
}
has() { # has TEXT PART NAME
	case $1 in *"$2"*) ok 0 "$3" ;; *) ok 1 "$3"; printf '#   got: %s\n#  part: %s\n' "$1" "$2" ;; esac
}
api=http://127.0.0.1:18201
key=(-H "OPEN-SANDBOX-API-KEY: secret")
get() { curl -s --max-time 10 "$@"; }
code() { curl -s --max-time 10 -o /dev/null -w '%{http_code}' "$@"; }

for _ in $(seq 100); do
	grep -q '^sandboxd ready' "$work/log" && break
	sleep 0.1
done
is "$(get $api/health)" '{"status":"healthy"}' "health"
create='{"image":{"uri":"host"},"entrypoint":["tail","-f","/dev/null"],"resourceLimits":{"cpu":"1","memory":"512Mi"}}'
id=$(get "${key[@]}" -H 'Content-Type: application/json' -d "$create" $api/v1/sandboxes | sed -n 's/.*"id":"\([0-9a-f-]\{36\}\)".*/\1/p' | cut -c1-36)
[ -n "$id" ]
ok $? "a sandbox is made"
[ -n "$id" ] || sed 's/^/# /' "$work/log"
proxy=$api/sandboxes/$id/proxy direct=http://127.0.0.1:18202/$id

is "$(code $proxy/44772/ping)" 401 "execd asks for a token"
is "$(code "${key[@]}" $proxy/44772/ping)" 200 "the API key will do"
is "$(code "${key[@]}" $api/v1/sandboxes/"$id"/proxy/44772/ping)" 200 "also below /v1"
is "$(code "${key[@]}" "$direct"/44772/ping)" 200 "also on the second listener"
token=$(get "${key[@]}" $api/v1/sandboxes/"$id"/endpoints/44772 | sed -n 's/.*"X-EXECD-ACCESS-TOKEN":"\([^"]*\)".*/\1/p')
is "$(code -H "X-EXECD-ACCESS-TOKEN: $token" "$direct"/44772/ping)" 200 "and the token of the endpoint"
is "$(code -H "X-EXECD-ACCESS-TOKEN: ${token}x" "$direct"/44772/ping)" 401 "but no other"
is "$(code $proxy/18080/policy)" 401 "its network policy is nobody's without a key"
is "$(code "${key[@]}" $proxy/18080/policy)" 200 "and is answered outside with one"
is "$(code "$proxy/44772/../x" --path-as-is)" 401 "climbing out of the exempt path needs the key"
is "$(code "$proxy/44772/%2e%2e/x" --path-as-is)" 401 "encoded too"
is "$(code http://127.0.0.1:18202/v1/sandboxes "${key[@]}")" 404 "the second origin has no API"
is "$(code -H 'Host: evil.example' "${key[@]}" $api/v1/sandboxes)" 421 "a rebound name"
is "$(code -H 'Origin: http://evil.example' "$direct"/8000/)" 403 "a foreign page"

cat >"$work/service.py" <<'END'
import base64, hashlib, socket, sys
def serve(family, address, port):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(16)
    return s
listeners = [serve(socket.AF_INET, "127.0.0.1", 8000)]
try:
    listeners.append(serve(socket.AF_INET6, "::1", 8001))
except OSError:
    pass
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("192.0.2.1", 9))
listeners.append(serve(socket.AF_INET, own.getsockname()[0], 8002))
import select
while True:
    for s in select.select(listeners, [], [])[0]:
        c, _ = s.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            more = c.recv(65536)
            if not more:
                break
            head += more
        if b"\r\n\r\n" not in head:
            c.close()
            continue
        head, _, body = head.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {l.split(": ", 1)[0].lower(): l.split(": ", 1)[1] for l in lines[1:]}
        if "sec-websocket-key" in headers:
            accept = base64.b64encode(hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
            c.sendall(("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept).encode())
            while True:
                data = c.recv(65536)
                if not data:
                    break
                c.sendall(b"echo:" + data)
        else:
            text = head + b"\n"
            c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
        c.close()
END
get "${key[@]}" -F 'metadata={"path":"/tmp/service.py"};type=application/json' -F "file=@$work/service.py" $proxy/44772/files/upload
get "${key[@]}" -d '{"command":"python3 /tmp/service.py >/tmp/service.log 2>&1","background":true}' $proxy/44772/command >/dev/null
# the service has begun when its log or its port says so: ask inside, where waiting is the shell's business
get "${key[@]}" -d '{"command":"for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/8000) 2>/dev/null && break; sleep 0.05; done"}' $proxy/44772/command >/dev/null
get "${key[@]}" $api/v1/sandboxes/"$id" | sed 's/^/# /'; echo
answer=$(get -H 'Cookie: c' -H 'Authorization: a' "${key[@]}" "$proxy/8000/a%2Fb//c?q=%20" --path-as-is)
has "$answer" 'GET /a%2Fb//c?q=%20 HTTP/1.1' "127.0.0.1: path and query byte by byte"
case $answer in *Cookie* | *Authorization* | *secret*) ok 1 "no secret passes the API's origin" ;; *) ok 0 "no secret passes the API's origin" ;; esac
has "$(get -H 'Cookie: c=1' -H 'Authorization: Basic x' "$direct/8000/")" 'Authorization: Basic x' "the second origin passes logins"
forwarded() { get "$@" "$direct/8000/" | tr -d '\r' | sed -n 's/^X-Forwarded-//p' | sort | tr '\n' ' '; }
is "$(forwarded)" "For: 127.0.0.1, 127.0.0.1 Proto: http " "and says who asks"
is "$(forwarded -H 'X-Forwarded-For: 192.0.2.7, 192.0.2.8' -H 'X-Real-IP: 192.0.2.9' -H 'X-Forwarded-Host: x' -H 'X-Forwarded-Proto: https')" \
	"For: 192.0.2.7, 127.0.0.1 Proto: http " "behind the first address that was named"
is "$(forwarded -H 'X-Real-IP: 192.0.2.9')" "For: 192.0.2.9, 127.0.0.1 Proto: http " "which may be X-Real-IP"
has "$(get -H 'Host: localhost:18202' "$direct/8000/")" 'Host: localhost:18202' "and the host that was asked for"
if get "${key[@]}" -d '{"command":"cat /proc/net/if_inet6"}' $proxy/44772/command | grep -q 00000000000000000000000000000001; then
	has "$(get "$direct/8001/v6")" 'GET /v6 ' "a service on ::1"
else
	echo "ok $((tests += 1)) - a service on ::1 # SKIP no IPv6 inside"
fi
has "$(get "$direct/8002/own")" 'GET /own ' "a service on the sandbox's own address"
nav=(-H 'Sec-Fetch-Site: cross-site' -H 'Sec-Fetch-Mode: navigate')
is "$(code "${nav[@]}" "$direct/8000/") $(code "${nav[@]}" "$proxy/8000/") $(code "${nav[@]}" "$direct/44772/ping")" "200 403 403" \
	"a link to an application may be followed on the second origin, to nothing else"
has "$(get "${key[@]}" "$proxy/44772/proxy/8000/nested")" 'GET /nested ' "a port below 44772"
is "$(code "$direct/8003/")" 502 "nothing listens"
is "$(code "$direct/65536/")" 400 "no such port"
is "$(code http://127.0.0.1:18202/00000000-0000-4000-8000-000000000000/8000/)" 404 "no such sandbox"

ws() { # ws URL-PATH: handshake, one frame's bytes there and back
	python3 - "$1" <<'END'
import socket, sys
c = socket.create_connection(("127.0.0.1", 18202), 5)
c.sendall(("GET %s HTTP/1.1\r\nHost: 127.0.0.1:18202\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % sys.argv[1]).encode())
got = b""
while b"\r\n\r\n" not in got:
    got += c.recv(4096)
c.sendall(b"\x81\x83\0\0\0\0abc")
body = got.partition(b"\r\n\r\n")[2]
while len(body) < 14:
    body += c.recv(4096)
c.shutdown(socket.SHUT_WR)
while c.recv(4096):
    pass
print(got.split(b"\r\n")[0].decode(), body[:5].decode(), body[-3:].decode())
END
}
is "$(ws "/$id/8000/ws")" "HTTP/1.1 101 Switching Protocols echo: abc" "WebSocket is a tunnel"

get "${key[@]}" -d '{"command":"for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.25; done >/tmp/counted","background":true}' $proxy/44772/command >/dev/null
gateway=$(for pid in /proc/[0-9]*; do
	[ "$(cut -d' ' -f4 "$pid/stat" 2>/dev/null)" = "$monitor" ] && tr '\0' ' ' <"$pid/cmdline" | grep -q '^sandbox-gateway' && echo "${pid#/proc/}"
done)
kill -9 "$gateway"
is "$(code "${key[@]}" $proxy/44772/ping)" 200 "a killed gateway comes back, and no connection was refused"
grep -q 'Seccomp:.*2' "/proc/$(pgrep -P "$monitor" -f '^sandbox-gateway' | head -1)/status"
ok $? "it runs under a seccomp filter"
is "$(awk '/^CapEff|^CapPrm|^CapBnd/ {print $2}' "/proc/$(pgrep -P "$monitor" -f '^sandbox-gateway' | head -1)/status" | sort -u)" 0000000000000000 "and without any capability"
is "$(get "${key[@]}" -d '{"command":"while [ $(wc -l </tmp/counted) -lt 8 ]; do sleep 0.1; done; tail -1 /tmp/counted"}' $proxy/44772/command | grep -c '"text":"8"')" 1 "the command that ran meanwhile went on"

is "$(code -X POST "${key[@]}" $api/v1/sandboxes/"$id"/pause)" 202 "pause"
is "$(code "${key[@]}" $proxy/44772/ping) $(code "$direct/8000/")" "503 503" "a paused sandbox answers 503 at once, on both routes"
is "$(code -X POST "${key[@]}" $api/v1/sandboxes/"$id"/resume)" 202 "resume"
is "$(code "${key[@]}" $proxy/44772/ping) $(code "$direct/8000/")" "200 200" "and is back"
is "$(code -X DELETE "${key[@]}" $api/v1/sandboxes/"$id")" 204 "delete"
is "$(code "${key[@]}" $proxy/44772/ping) $(code "$direct/8000/")" "404 404" "and it is gone"
[ $failed = 0 ] || sed 's/^/# /' "$work/log"
echo "1..$tests"
[ $failed = 0 ]
