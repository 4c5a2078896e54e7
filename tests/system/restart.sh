#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# kill -9 of each of our processes stops no sandbox, and kill -9 at each step of create and delete leaves nothing behind.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
	[lifecycle]
	failure_ttl_seconds = 600
EOF
base=$((0x78000000 - instance * 0x8000000))
agents() { ps -eo uid=,pid=,lstart= | awk -v from=$((base - 0x10000)) -v to=$base '$1 >= from && $1 < to' | sort -n -k 2; }
start_daemon
ok $? "the daemon starts"

# ---- twenty sandboxes that count, while everything of ours is killed ----
ids=() pids=()
for _ in $(seq 20); do
	id=$(create)
	ids+=("$id")
	execd "$id" /command '{"command":"i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done","background":true}' >"$work/started.$id"
done
is "$(count)" 20 "twenty sandboxes"
# an agent's launcher waits for more commands, for some seconds; in a paused sandbox it would wait as long as that
all_agents() { [ "$(agents | wc -l)" = 20 ]; }
until_true 10 all_agents
api POST "/v1/sandboxes/${ids[0]}/pause" >/dev/null
is "$(status)" 202 "one is paused"
first_agents=$(agents)
is "$(echo "$first_agents" | wc -l)" 20 "each has an agent"
for name in sandboxd gateway broker dnsd; do
	old=$(child $name)
	kill -9 "$old"
	new_child() { [ "$(child $name)" != "$old" ]; }
	until_true 10 new_child
	until_true 20 serving
	ok $? "kill -9 of $name: requests are served again"
	is "$(count)" 20 "kill -9 of $name: all sandboxes are known"
	is "$(state_of "${ids[0]}")/$(state_of "${ids[19]}")" Paused/Running "kill -9 of $name: states are as before"
done
kill -9 "$monitor"
wait "$monitor" 2>/dev/null
start_daemon
ok $? "kill -9 of the monitor: another one takes over"
is "$(count)" 20 "all sandboxes are known"
same_agents() { [ "$(agents)" = "$first_agents" ]; }
until_true 10 same_agents
is "$(agents)" "$first_agents" "no agent was started or ended"
whole=0
for id in "${ids[@]:1}"; do
	command=$(sed -n 's/.*"type":"init","text":"\([^"]*\)".*/\1/p' "$work/started.$id")
	execd "$id" "/command/$command/logs" | awk '$1 != NR {bad = 1} END {exit bad || NR < 20}' && whole=$((whole + 1))
done
is $whole 19 "the output of every background command is whole, from 1 on without a gap"
api POST "/v1/sandboxes/${ids[0]}/resume" >/dev/null
is "$(status)" 202 "the paused one resumes"
out=$(execd "${ids[0]}" /command '{"command":"echo alive"}')
case $out in *'"text":"alive"'*) ok 0 "and runs commands" ;; *) ok 1 "and runs commands"; printf '# %s\n' "$out" ;; esac
again=$("$top_builddir/sandboxd" --standalone --config "$work/config" 2>&1)
is "$?" 78 "a second daemon on the same state directory refuses"
case $again in *"in use by another sandboxd"*) ok 0 "and says why" ;; *) ok 1 "and says why"; printf '# %s\n' "$again" ;; esac
delete_all
until_true 10 clean
ok $? "after deletion nothing is left"
leftovers | sed 's/^/# /'

# ---- kill -9 at each step ----
for point in create-row create-asked create-armed create-started create-running; do
	old=$(child sandboxd)
	echo "$point:kill" >"$fault"
	create >/dev/null
	: >"$fault"
	new_child() { [ "$(child sandboxd)" != "$old" ]; }
	until_true 10 new_child
	ok $? "sandboxd was killed at $point"
	until_true 10 serving
	[ "$point" = create-running ] && want=1 || want=0 # its row says Running: it is a sandbox like any other
	is "$(count)" $want "$point: $want row"
	delete_all
	until_true 10 clean
	ok $? "$point: nothing is left"
	leftovers | sed 's/^/# /'
done
for point in delete-marked delete-killed; do
	id=$(create)
	old=$(child sandboxd)
	echo "$point:kill" >"$fault"
	api DELETE "/v1/sandboxes/$id" >/dev/null
	: >"$fault"
	new_child() { [ "$(child sandboxd)" != "$old" ]; }
	until_true 10 new_child
	ok $? "sandboxd was killed at $point"
	until_true 10 serving
	is "$(count)" 0 "$point: the delete was finished"
	until_true 10 clean
	ok $? "$point: nothing is left"
	leftovers | sed 's/^/# /'
done

# ---- the broker ----
for point in cgroup-make launch-files launch-cgroup launch-clone launch-link links-attach cgroup-limit arm-mounts overlay-mount; do
	old=$(child broker)
	echo "$point:kill:1" >"$fault"
	(create >/dev/null) &
	creating=$!
	new_child() { [ "$(child broker)" != "$old" ]; }
	until_true 10 new_child
	killed=$?
	: >"$fault"
	wait $creating
	ok $killed "the broker was killed at $point"
	until_true 10 serving
	delete_all
	until_true 15 clean
	ok $? "$point: nothing is left"
	leftovers | sed 's/^/# /'
done
for point in kill-trash kill-cgroup drain-conntrack; do
	id=$(create)
	old=$(child broker)
	echo "$point:kill:1" >"$fault"
	(api DELETE "/v1/sandboxes/$id" >/dev/null) &
	deleting=$!
	new_child() { [ "$(child broker)" != "$old" ]; }
	until_true 10 new_child
	killed=$?
	: >"$fault"
	wait $deleting
	ok $killed "the broker was killed at $point"
	until_true 10 serving
	until_true 15 clean
	ok $? "$point: nothing is left"
	leftovers | sed 's/^/# /'
done
out=$(create)
is "${#out}" 36 "a create still works"
delete_all
until_true 10 clean
ok $? "and at the end nothing is left"
! grep -E 'AddressSanitizer|runtime error|Assertion' "$log"
ok $? "no process of ours has found a fault in itself"
done_testing
