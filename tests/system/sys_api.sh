#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The lifecycle API over the wire against a daemon of its own (a free instance number, own network namespace and state directory):
# what unit tests with a fake manager cannot show.  Needs root and curl.
set -u
build=${top_builddir:-$PWD}
if [ -z "${SYS_API_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
	command -v curl >/dev/null || { echo "1..0 # SKIP no curl (apt-get install curl)"; exit 0; }
	# the test's traffic cannot leave: a network namespace with nothing but loopback
	SYS_API_INSIDE=1 exec unshare -n -- "$0" "$@"
fi
ip link set lo up || { echo "1..0 # SKIP no loopback"; exit 0; }
. "$(dirname "$0")/instance_lib.sh"
take_instance || exit 99

work=$(mktemp -d /var/tmp/sandboxd-api.XXXXXX)
chmod 755 "$work"
mkdir -m 0755 "$work/shared"
cat >"$work/sandboxd.toml" <<TOML
instance = $instance
state_dir = "$work/state"
[server]
port = 18780
api_key = "the-key"
[isolation]
slots = 40
[pool]
target = 2
[storage]
allowed_host_paths = ["$work/shared"]
[renew_intent]
enabled = true
min_interval_seconds = 1
TOML
base=http://127.0.0.1:18780
monitor=
count=0 failed=0

ok() { # ok CONDITION-STATUS NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count - $2"
	else
		echo "not ok $count - $2"
		echo "# status $status: $(head -c 600 "$work/body")"
		failed=$((failed + 1))
	fi
}
has() { grep -qE -- "$1" "$work/body"; }
is() { [ "$status" = "$1" ] && { [ $# -lt 2 ] || has "$2"; }; ok $? "${3:-$1 $2}"; }
# call METHOD PATH [BODY]: body and head into files, status into $status
call() {
	status=$(curl -sS -m 60 -o "$work/body" -D "$work/head" -w '%{http_code}' -X "$1" -H 'OPEN-SANDBOX-API-KEY: the-key' \
		-H 'Content-Type: application/json' -H 'X-Request-ID: rid-7' ${3:+--data-binary "$3"} "$base$2")
	[ -e "$work/body" ] || : >"$work/body"
}
json() { sed -nE "s/.*\"$1\":\"([^\"]*)\".*/\1/p" "$work/body" | head -n 1; }
create() { # create ENTRYPOINT-JSON [MORE MEMBERS]
	call POST /v1/sandboxes "{\"image\":{\"uri\":\"${image:-host}\"},\"entrypoint\":$1,\"resourceLimits\":{}${2:+,$2}}"
	id=$(sed -nE 's/^\{"id":"([^"]*)".*/\1/p' "$work/body")
}
exec_in() { call POST "/sandboxes/$1/proxy/44772/command" "{\"command\":\"$2\"}"; }
wait_state() { # wait_state ID STATE: at most 5 s
	local i
	for i in $(seq 50); do
		call GET "/v1/sandboxes/$1"
		[ "$status" != 200 ] && [ "$2" = gone ] && return 0
		has "\"state\":\"$2\"" && return 0
		read -rt 0.1 <> <(:) || :
	done
	return 1
}
soon() { date -u -d "@$(($(date +%s) + $1))" +%Y-%m-%dT%H:%M:%SZ; }

start() {
	"$build/sandboxd" --standalone --config "$work/sandboxd.toml" >"$work/out" 2>>"$work/log" &
	monitor=$!
	for _ in $(seq 300); do
		grep -q '^key:' "$work/out" 2>/dev/null && return 0
		kill -0 $monitor 2>/dev/null || break
		read -rt 0.1 <> <(:) || :
	done
	echo "Bail out! the daemon did not start: $(tail -n 5 "$work/log" "$work/out")"
	exit 1
}
stop() {
	[ -n "$monitor" ] && kill -TERM "$monitor" 2>/dev/null && wait "$monitor" 2>/dev/null
	monitor=
}
finish() {
	stop
	# somebody else's instance: nothing of it is ours to remove
	grep -q 'is in use by another sandboxd' "$work/log" 2>/dev/null || "$build/sandboxd" --purge --config "$work/sandboxd.toml" >>"$work/log" 2>&1
	[ "$failed" = 0 ] || sed 's/^/# log: /' "$work/log" | tail -n 40
	rm -rf "$work"
}
trap finish EXIT
daemon_pid() { pgrep -P "$monitor" -f 'sandboxd --daemon'; }
start

# ---- who may ----
status=$(curl -sS -o "$work/body" -w '%{http_code}' "$base/v1/sandboxes"); is 401 MISSING_API_KEY "no key"
status=$(curl -sS -o "$work/body" -w '%{http_code}' -H 'OPEN-SANDBOX-API-KEY: x' "$base/nothing"); is 401 INVALID_API_KEY "a wrong key"
status=$(curl -sS -o "$work/body" -w '%{http_code}' -H 'Host: evil.example' -H 'OPEN-SANDBOX-API-KEY: the-key' "$base/v1/sandboxes")
is 421 MISDIRECTED "a Host that is not ours"
status=$(curl -sS -o "$work/body" -w '%{http_code}' --unix-socket "/run/sandboxd/$instance/api.sock" http://localhost/v1/sandboxes)
is 200 '"items":\[\]' "the Unix socket needs no key"

# ---- one life ----
create '["sh -c '"'for i in 1 2 3; do echo line \$i; done; sleep 1000'"'"]' '"timeout":600,"metadata":{"a":"b"}'
is 202 '"state":"Running"' "create is Running at once"
one=$id
grep -qi "^location: /v1/sandboxes/$id" "$work/head"; ok $? "Location"
grep -qi '^x-request-id: rid-7' "$work/head"; ok $? "X-Request-ID comes back"
created=$(json createdAt)
call GET "/v1/sandboxes/$one"; is 200 "\"createdAt\":\"$created\"" "createdAt is the same in get"
call GET "/sandboxes/$one/"; is 200 '"entrypoint":\["sh","-c",' "without /v1, with a slash; the one string was split"
exec_in "$one" "echo hello"; is 200 '"text":"hello"' "a command runs"
call GET "/v1/sandboxes/$one/diagnostics/logs?tail=2"
[ "$(cat "$work/body")" = "line 2
line 3" ]; ok $? "the last two lines of the entrypoint"
call GET "/v1/sandboxes/$one/diagnostics/inspect"; is 200 '^Status: +Running' "inspect"
call POST "/v1/sandboxes/$one/pause"
[ "$status" = 202 ] && [ ! -s "$work/body" ] && grep -qi '^content-length: 0' "$work/head"; ok $? "pause has Content-Length: 0"
call GET "/v1/sandboxes/$one"; is 200 '"state":"Paused"' "the next get says Paused"
call POST "/v1/sandboxes/$one/pause"; is 409 SANDBOX_NOT_RUNNING "pause twice"
from=$(date +%s%N); call GET "/sandboxes/$one/proxy/44772/ping"; took=$((($(date +%s%N) - from) / 1000000))
is 503 NOT_READY "ping of a paused one"
[ $took -lt 5000 ]; ok $? "is answered without waiting for the sandbox ($took ms)"
call POST "/v1/sandboxes/$one/resume"; [ "$status" = 202 ]; ok $? "resume"
call POST "/v1/sandboxes/$one/resume"; is 409 SANDBOX_NOT_PAUSED "resume twice"
exec_in "$one" "echo again"; is 200 '"text":"again"' "it goes on"

# ---- sixty patches at once, all kept ----
pids=
for i in $(seq 60); do
	curl -sS -m 30 -o /dev/null -X PATCH -H 'OPEN-SANDBOX-API-KEY: the-key' -H 'Content-Type: application/json' \
		--data "{\"k$i\":\"v$i\"}" "$base/v1/sandboxes/$one/metadata" & pids="$pids $!"
done
wait $pids
call GET "/v1/sandboxes/$one"
[ "$(grep -o '"k[0-9]*":"v[0-9]*"' "$work/body" | sort -u | wc -l)" = 60 ]; ok $? "sixty patches at once all survive"
call PATCH "/v1/sandboxes/$one/metadata" '{"a":null}'; ! has '"a":"b"'; ok $? "a removed key"
call PATCH "/v1/sandboxes/$one/metadata" '{"c":"d"}'; ! has '"a":"b"'; ok $? "does not come back"

# ---- sandboxd is killed: state, expiry and metadata are those of before ----
call POST "/v1/sandboxes/$one/renew-expiration" "{\"expiresAt\":\"$(soon 5000)\"}"; [ "$status" = 200 ]; ok $? "renew"
expires=$(json expiresAt)
old=$(daemon_pid); kill -9 "$old"
for _ in $(seq 100); do
	call GET "/v1/sandboxes/$one"
	[ "$status" = 200 ] && break
	read -rt 0.1 <> <(:) || :
done
is 200 "\"expiresAt\":\"$expires\"" "a restarted sandboxd knows the renewed expiry"
has '"k60":"v60"'; ok $? "and the metadata"
[ "$(daemon_pid)" != "$old" ]; ok $? "it is another process"
exec_in "$one" "echo still"; is 200 '"text":"still"' "the sandbox was not disturbed"

# ---- how they end ----
create '["sh","-c","echo out; echo err >&2; exit 3"]'; two=$id
wait_state "$two" Failed; is 200 'CONTAINER_EXITED_ERROR' "exit code 3 is Failed"
call GET "/v1/sandboxes/$two/diagnostics/logs"; is 200 'err' "its output can still be read"
call GET "/sandboxes/$two/proxy/44772/ping"; is 503 NOT_READY "but no command runs in it"
call GET "/v1/sandboxes/$two/endpoints/44772"; [ "$status" = 200 ]; ok $? "it has endpoints"
call DELETE "/v1/sandboxes/$two"; [ "$status" = 204 ]; ok $? "and is removed"
call DELETE "/v1/sandboxes/$two"; is 404 SANDBOX_NOT_FOUND "once"
create '["true"]'; wait_state "$id" Terminated; is 200 'CONTAINER_EXITED"' "exit code 0 is Terminated"
create '["/no/such/program"]'; is 400 'No such file' "a program that is not there"
create '["sleep","1000"]' '"timeout":600'; three=$id
call POST "/v1/sandboxes/$three/renew-expiration" "{\"expiresAt\":\"$(soon 2)\"}"; [ "$status" = 200 ]; ok $? "renew, much shorter"
call POST "/v1/sandboxes/$three/pause"
wait_state "$three" gone; [ "$status" = 404 ]; ok $? "it expires, also while paused"
create '["sleep","1000"]' '"timeout":60,"extensions":{"access.renew.extend.seconds":"900"}'
before=$(json expiresAt); exec_in "$id" true; call GET "/v1/sandboxes/$id"
[ "$(json expiresAt)" \> "$before" ]; ok $? "an access renews one that asked for it"

# ---- bad input that only the wire shows ----
head -c 2097152 /dev/zero | tr '\0' x >"$work/x"
printf '{"image":{"uri":"host"},"resourceLimits":{},"entrypoint":["x","%s"]}' "$(cat "$work/x")" >"$work/big"
call POST /v1/sandboxes "@$work/big"; is 413 PAYLOAD_TOO_LARGE "an entrypoint of 2 MiB"
head -c 100000 "$work/x" >"$work/y"
create "[\"sh\",\"-c\",\"sleep 1000\",\"$(cat "$work/y")\"]"; [ "$status" = 202 ]; ok $? "an argument of 100,000 bytes"
call GET /v1/sandboxes; [ "$status" = 200 ] && [ "$(wc -c <"$work/body")" -gt 100000 ]; ok $? "and a list that shows it"
exec_in "$id" 'tr -d x < /proc/1/cmdline | wc -c; ps -o args= -C sh | grep -o x | wc -l'; has '"100000"'; ok $? "that arrived whole"
create '["sleep","1000"]' '"env":{"A=B":"1"}'; is 400 'A=B' "an env name with ="
image=nope:1 create '["true"]' '"extensions":{"image.pull":"never"}'; is 400 'IMAGE::NOT_FOUND' "an image that is not here"
image=/etc/passwd create '["true"]'; [ "$status" = 400 ]; ok $? "a path is no image"

# ---- volumes ----
create '["sleep","1000"]' '"volumes":[{"name":"h","host":{"path":"'"$work"'/shared/new"},"mountPath":"/work"},
	{"name":"n","pvc":{"claimName":"sys-api"},"mountPath":"/n"},{"name":"r","pvc":{"claimName":"sys-api"},"mountPath":"/r","readOnly":true}]'
is 202 Running "host path, named volume, and the same read-only"
four=$id
exec_in "$four" "echo data > /work/f && echo x > /n/x && cat /r/x && ! touch /r/y"; is 200 execution_complete "they are written to as asked"
[ "$(cat "$work/shared/new/f" 2>/dev/null)" = data ]; ok $? "the host sees the file"
call DELETE /v1/volumes/sys-api; is 409 VOLUME::IN_USE "a volume in use stays"
call DELETE "/v1/sandboxes/$four"; call DELETE /v1/volumes/sys-api; [ "$status" = 204 ]; ok $? "then it can be removed"
create '["true"]' '"volumes":[{"name":"n","pvc":{"claimName":"sys-api","createIfNotExists":false},"mountPath":"/n"}]'
is 400 'VOLUME::PVC_NOT_FOUND' "and is gone"
ln -s /etc "$work/shared/link"
create '["true"]' '"volumes":[{"name":"h","host":{"path":"'"$work"'/shared/link"},"mountPath":"/work"}]'
[ "$status" = 400 ] && has 'VOLUME::'; ok $? "a link out of the allowed path is not followed"

# ---- images ----
import() { # import NAME FILE [QUERY]
	status=$(curl -sS -m 60 -o "$work/body" -w '%{http_code}' -X POST -H 'OPEN-SANDBOX-API-KEY: the-key' \
		-H 'Content-Type: application/octet-stream' --data-binary "@$2" "$base/v1/images/import?name=$1${3:-}")
}
if busybox=$(command -v busybox) && ! ldd "$busybox" >/dev/null 2>&1; then
	mkdir -p "$work/root/bin"
	cp "$busybox" "$work/root/bin/busybox"
	for name in sh cat echo sleep; do ln -s busybox "$work/root/bin/$name"; done
	tar -C "$work/root" -cf "$work/root.tar" .
	gzip -k "$work/root.tar"
	import tiny:1 "$work/root.tar.gz" '&env=FOO%3Dbar&workdir=/bin'; is 201 '"name":"tiny:1"' "import a tar.gz"
	layer=$(grep -o 'sha256:[0-9a-f]*' "$work/body" | head -n 1 | cut -d: -f2)
	[ -d "$work/state/layers/$layer" ]; ok $? "its layer lies under its key"
	image=tiny:1 create '["sleep","1000"]'; is 202 Running "a sandbox of it"
	exec_in "$id" 'echo $FOO in $PWD'; is 200 '"bar in /bin"' "with the image's environment and directory"
	call DELETE /v1/images/tiny:1; is 409 IMAGE::IN_USE "an image in use stays"
	import tiny:2 "$work/root.tar"; [ "$status" = 201 ]; ok $? "import a plain tar"
	call DELETE "/v1/sandboxes/$id"; call DELETE /v1/images/tiny:1; [ "$status" = 204 ]; ok $? "remove the image"
	for _ in $(seq 50); do
		[ -d "$work/state/layers/$layer" ] || break
		read -rt 0.1 <> <(:) || :
	done
	[ ! -e "$work/state/layers/$layer" ]; ok $? "its layer goes too"
fi
head -c 100000 /dev/urandom >"$work/noise"
import noise "$work/noise"; [ "$status" = 400 ] && has 'IMAGE::INVALID'; ok $? "noise is no image"
: >"$work/empty"; import empty "$work/empty"; [ "$status" = 400 ]; ok $? "nothing is no image"
call GET /v1/images; ! has noise && ! has empty; ok $? "neither is listed"
[ -z "$(ls -A "$work/state/state/import" 2>/dev/null)" ]; ok $? "no file of an import is left"
call GET /v1/host; is 200 '"ok":(true|false),"rows":\[\{"name":"kernel.version"' "the host's table"

# ---- nothing stays ----
call GET '/v1/sandboxes?pageSize=200'
for id in $(grep -oE '\{"id":"[^"]*"' "$work/body" | cut -d'"' -f4); do call DELETE "/v1/sandboxes/$id"; done
call GET /v1/sandboxes; is 200 '"items":\[\]' "all are removed"
status=; : >"$work/body"
[ -z "$(ls -A "$work/state/sandboxes" 2>/dev/null | grep -v '^s*[0-9]*\.[0-9]*$')" ]; ok $? "no directory with another name"
echo "1..$count"
[ "$failed" = 0 ]
