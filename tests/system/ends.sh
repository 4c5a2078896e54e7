#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How sandboxes begin and end: entrypoint rules, exit codes, lack of memory, deadlines, and what is kept of a failed create.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
	[lifecycle]
	failure_ttl_seconds = 2
	create_wait_seconds = 1
EOF
start_daemon
ok $? "the daemon starts"
wait_ms() { read -r -t "$1" <>"$work/never" || :; } # a deadline of the daemon has to pass: nothing tells when

ended() { [ "$(state_of "$1")" != Running ]; }
ends() { # ends NAME STATE REASON MESSAGE-PART ENTRYPOINT-JSON [MEMBERS]
	local name=$1 state=$2 reason=$3 part=$4 id
	shift 4
	id=$(create "$@")
	until_true 10 ended "$id"
	is "$(state_of "$id") $(field_of "$id" reason)" "$state $reason" "$name"
	case $(field_of "$id" message) in *"$part"*) ok 0 "$name: the message" ;; *) ok 1 "$name: the message"; field_of "$id" message | sed 's/^/# /' ;; esac
	api DELETE "/v1/sandboxes/$id" >/dev/null
	is "$(status)" 204 "$name: it can be deleted"
}
clean_end="Terminated CONTAINER_EXITED"
bad_end="Failed CONTAINER_EXITED_ERROR"
ends "exit code 0" $clean_end "exit code 0" '["true"]'
ends "exit code 3" $bad_end "exit code 3" '["sh","-c","exit 3"]'
ends "killed by a signal" $bad_end "signal 15, exit code 143" '["sh","-c","kill -TERM $$"]'
ends "one string is split" $bad_end "exit code 4" '["sh -c \"exit 4\""]'
ends "-c joins the rest for a shell" $bad_end "exit code 5" '["-c","exit","5"]'
ends "BOOTSTRAP_CMD wins" $bad_end "exit code 6" '["true"]' '"env":{"BOOTSTRAP_CMD":"exit 6"}'
ends "BOOTSTRAP_SHELL is the shell" $bad_end "exit code 7" '["-c","exit 9"]' '"env":{"BOOTSTRAP_SHELL":"/usr/bin/python3","BOOTSTRAP_CMD":"exit(7)"}'
ends "an unreadable pre-script is a warning" $bad_end "exit code 8" '["sh","-c","exit 8"]' '"env":{"EXECD_BOOTSTRAP_PRE_SCRIPT":"/nonexistent"}'
ends "a pre-script is sourced" $bad_end "exit code 9" '["sh","-c","exit ${TZDIR:-9}"]' '"env":{"EXECD_BOOTSTRAP_PRE_SCRIPT":"/etc/profile"}'
ends "the environment" $clean_end "exit code 0" \
	'["bash","-c","[[ $PATH = /usr/local/sbin:* && ${#OPENSANDBOX_ID} = 36 && $HOSTNAME = $(hostname) && $EXECD_ENVS = /opt/opensandbox/.env && $A = \"x=y z\" ]]"]' \
	'"env":{"A":"x=y z"}'
ends "too much memory is the reason" $bad_end "out of memory (limit 134217728 bytes)" '["python3","-c","x = bytearray(10**9)"]'
ends "also behind a shell" $bad_end "out of memory" '["sh","-c","python3 -c \"x = bytearray(10**9)\"; exit $?"]'

refused() { # refused NAME STATUS ENTRYPOINT-JSON [MEMBERS]: and no record stays
	local name=$1 want=$2
	shift 2
	create "$@" >/dev/null
	is "$(status)" "$want" "$name is refused"
	is "$(count)" 0 "$name: no record stays"
}
refused "an entrypoint that is not there" 400 '["/nonexistent"]'
refused "an entrypoint that is not executable" 400 '["/etc/passwd"]'
refused "an env name with =" 400 '["true"]' '"env":{"A=B":"x"}'
refused "a token that fits no header" 400 '["true"]' "\"env\":{\"EXECD_ACCESS_TOKEN\":\"$(printf 'x%.0s' $(seq 300))\"}"
refused "an argument of 200,000 bytes" 400 "[\"sh\",\"-c\",\"$(printf '#%.0s' $(seq 100000))$(printf '#%.0s' $(seq 100000))\"]"

# ---- deadlines ----
expire_in() { api POST "/v1/sandboxes/$1/renew-expiration" "{\"expiresAt\": $(($(date +%s) + $2))}" >/dev/null; }
gone() { api GET "/v1/sandboxes/$1" >/dev/null && [ "$(status)" = 404 ]; }
a=$(create) b=$(create) c=$(create)
api POST "/v1/sandboxes/$b/pause" >/dev/null
expire_in "$a" 2
expire_in "$b" 2
until_true 5 gone "$a"
ok $? "a sandbox ends at its deadline"
until_true 2 gone "$b"
ok $? "a paused one too"
expire_in "$c" 2
stop_daemon
wait_ms 2.1
start_daemon
until_true 2 gone "$c"
ok $? "and one whose deadline passed while the daemon was down"
until_true 10 clean
ok $? "nothing is left of them"

# ---- the host's failures ----
echo "overlay-mount:fail" >"$fault"
create >/dev/null
is "$(status)" 500 "what the host cannot do is 500"
: >"$fault"
id=$(api GET /v1/sandboxes | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
is "$(state_of "$id") $(field_of "$id" reason)" "Failed PROVISIONING_ERROR" "it stays listed"
until_true 5 gone "$id"
ok $? "until its time is over"
echo "overlay-mount:fail" >"$fault"
create >/dev/null
: >"$fault"
id=$(api GET /v1/sandboxes | sed -n 's/.*"id":"\([^"]*\)".*/\1/p')
api DELETE "/v1/sandboxes/$id" >/dev/null
is "$(status)" 204 "or it is deleted"
echo "state-write:fail" >"$fault"
create >/dev/null
is "$(status)" 500 "a row that cannot be written is no sandbox"
: >"$fault"
until_true 10 clean
ok $? "and leaves nothing"

# ---- a create that takes longer than the client waits ----
kill -STOP "$(child broker)"
id=$(create)
is "$(status) $(state_of "$id")" "202 Pending" "a slow create is answered Pending"
api POST "/v1/sandboxes/$id/pause" >/dev/null
is "$(status)" 409 "it cannot be paused"
kill -CONT "$(child broker)"
running() { [ "$(state_of "$1")" = Running ]; }
until_true 10 running "$id"
ok $? "and becomes Running"
kill -STOP "$(child broker)"
late=$(create)
(api DELETE "/v1/sandboxes/$late" >/dev/null) &
deleting=$!
absent() { api GET "/v1/sandboxes/$1" >/dev/null; [ "$(status)" = 404 ]; }
until_true 5 absent "$late"
ok $? "one that is deleted before it is made has no name any more"
kill -CONT "$(child broker)"
wait $deleting
api DELETE "/v1/sandboxes/$id" >/dev/null
until_true 10 clean
ok $? "and both leave nothing"

# ---- the processes are gone, but the rows are there ----
id=$(create)
other=$(create)
stop_daemon
"$top_builddir/sandbox-broker" --purge --config "$work/config" >>"$log" 2>&1
ok $? "the sandboxes are ended behind the daemon's back"
python3 - "$state/state/sandboxd.db" "$other" <<-'EOF'
	import sqlite3, sys
	db = sqlite3.connect(sys.argv[1])
	db.execute("UPDATE sandbox SET boot_id = '0123' WHERE id = ?", (sys.argv[2],))
	db.commit()
EOF
start_daemon
is "$(state_of "$id") $(field_of "$id" reason)" "Failed CONTAINER_EXITED_ERROR" "then it says Failed"
is "$(state_of "$other") $(field_of "$other" reason)" "Failed HOST_REBOOTED" "after a reboot of the host it says so"
delete_all
until_true 10 clean
ok $? "and both can be deleted"
! grep -E 'AddressSanitizer|runtime error|Assertion' "$log"
ok $? "no process of ours has found a fault in itself"
done_testing
