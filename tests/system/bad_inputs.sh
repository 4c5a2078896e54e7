#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Inputs at the edge of what a machine has: tiny limits, huge times, a state directory that fills up under running sandboxes.
if [ -z "${INPUTS_TEST_INSIDE:-}" ] && [ "$(id -u)" = 0 ]; then
	INPUTS_TEST_INSIDE=1 exec unshare -m -- "$0" "$@"
fi
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
mount -t tmpfs -o size=48m,mode=755 none "$state"
trap 'cleanup 2>/dev/null; umount -l "$state"; rm -rf "$work"' EXIT
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
EOF
start_daemon
ok $? "the daemon starts on a small file system"
ask() { # ask MEMBERS: create with these; the body is in $work/body
	api POST /v1/sandboxes "{\"image\":{\"uri\":\"host\"},\"entrypoint\":[\"sleep\",\"600\"],$1}" >/dev/null
}
code() { sed -n 's/.*"code":"\([^"]*\)".*/\1/p' "$work/body"; }
new_id() { sed -n 's/^{"id":"\([^"]*\)".*/\1/p' "$work/body"; }

# --- limits ---
ask '"timeout":600,"resourceLimits":{"memory":"1Mi"}'
case "$(status)" in
4??) ok 0 "memory 1Mi is refused: $(code)" ;;
20?)
	id=$(new_id)
	case $(state_of "$id") in Running | Failed) ok 0 "memory 1Mi is made" ;; *) ok 1 "memory 1Mi: $(state_of "$id")" ;; esac
	out=$(execd "$id" /command '{"command":"echo x; python3 -c \"x = bytearray(20 << 20)\"; echo code $?"}')
	case $out in
	*'code 0'*) ok 1 "memory 1Mi bites: $out" ;;
	*) ok 0 "memory 1Mi bites" ;;
	esac
	api DELETE "/v1/sandboxes/$id" >/dev/null
	is "$(status)" 204 "and it can be deleted"
	;;
*) ok 1 "memory 1Mi: $(status) $(cat "$work/body")" ;;
esac
ask '"timeout":600,"resourceLimits":{"cpu":"10m"}'
is "$(status)" 202 "cpu 10m is made"
id=$(new_id)
execd "$id" /command '{"command":"while :; do :; done","background":true}' >/dev/null
used() { awk '/usage_usec/ {print $2}' /sys/fs/cgroup/*/sandboxd-$instance/s*/cpu.stat /sys/fs/cgroup/sandboxd-$instance/s*/cpu.stat 2>/dev/null | head -n 1; }
before=$(used)
read -r -t 4 <>"$work/never"
share=$((($(used) - before) / 4000))
[ "$share" -le 40 ]
ok $? "and gets about 10 thousandths of a processor ($share)"
out=$(curl -s -m 20 --unix-socket "$run/api.sock" -o /dev/null -w '%{http_code}' "http://localhost/v1/sandboxes/$id/proxy/44772/ping")
is "$out" 200 "while its agent answers"
api DELETE "/v1/sandboxes/$id" >/dev/null
is "$(status)" 204 "and it can be deleted"
for timeout in 9223372036854775808 9223372036854775807 18446744073709551616 1e300 -9223372036854775808 0.5; do
	ask "\"timeout\":$timeout,\"resourceLimits\":{}"
	case "$(status)" in 4??) ok 0 "timeout $timeout is refused: $(code)" ;; *) ok 1 "timeout $timeout: $(status) $(cat "$work/body")" ;; esac
done
for memory in 18446744073709551616 99999999999999999999Ei -1; do
	ask "\"timeout\":600,\"resourceLimits\":{\"memory\":\"$memory\"}"
	case "$(status)" in
	4??) ok 0 "memory $memory is refused: $(code)" ;;
	202) ok 0 "memory $memory is taken for as much as there is" ; api DELETE "/v1/sandboxes/$(new_id)" >/dev/null ;;
	*) ok 1 "memory $memory: $(status) $(cat "$work/body")" ;;
	esac
done
is "$(count)" 0 "no record is left"

# --- the disk is full ---
one=$(create) two=$(create)
is "$(state_of "$one")/$(state_of "$two")" Running/Running "two sandboxes"
execd "$one" /command '{"command":"cat /dev/zero >/root/fill; sync"}' >/dev/null
is "$(df --output=avail "$state" | tail -n 1 | tr -d ' ')" 0 "a tenant fills the file system that holds the state"
is "$(state_of "$one")/$(state_of "$two")" Running/Running "they go on"
case $(execd "$two" /command '{"command":"echo alive"}') in *'"text":"alive"'*) ok 0 "commands of the other, too" ;; *) ok 1 "commands of the other" ;; esac
ask '"timeout":600,"resourceLimits":{}'
full=$(status)
is "$full $(code)" "507 GENERAL::STATE_FULL" "a create is refused"
api GET "/v1/sandboxes" >/dev/null
is "$(status)" 200 "the list answers"
api POST "/v1/sandboxes/$two/pause" >/dev/null
case $(status) in 202 | 50?) ok 0 "a pause is answered: $(status)" ;; *) ok 1 "a pause: $(status)" ;; esac
for name in sandboxd gateway broker; do
	[ -d "/proc/$(child $name)" ]
	ok $? "$name lives"
done
is "$(grep -c 'monitor: .* started' "$log")" 4 "none of ours was started again"
api DELETE "/v1/sandboxes/$one" >/dev/null
is "$(status)" 204 "the one that filled it can be deleted"
room() { [ "$(df --output=avail "$state" | tail -n 1 | tr -d ' ')" -gt 20000 ]; }
until_true 20 room
ok $? "and its files go"
id=$(create)
is "$(state_of "$id")" Running "then a create works again"
delete_all
until_true 20 clean
ok $? "nothing is left"
leftovers | sed 's/^/# /'
done_testing
