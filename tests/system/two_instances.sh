#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Two daemons on one host and in one network namespace do not touch each other; one number is for one daemon.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
config() { printf '[server]\nport = 0\n[pool]\ntarget = 1\n'; }
config | write_config
start_daemon
ok $? "an instance starts"
first=$(create)
one_monitor=$monitor one_run=$run one_state=$state one_log=$log one_config=$work/config

# The second one below the same work directory, with everything else its own.
one=$instance
take_instance
run=$work/run2 state=$work/state2 log=$work/log2
mkdir "$run" "$state"
mv "$one_config" "$work/config1"
config | write_config
start_daemon
ok $? "another starts beside it"
second=$(create)
is "$(state_of "$second") $(count)" "Running 1" "it has a sandbox, and only its own"
out=$(execd "$second" /command '{"command":"echo two"}')
case $out in *'"text":"two"'*) ok 0 "which runs commands" ;; *) ok 1 "which runs commands"; printf '# %s\n' "$out" ;; esac
address() { nsenter -t "$(pgrep -u $((0x78000000 - $1 * 0x8000000 - 0x10000)),$((0x78000000 - $1 * 0x8000000 - 0xffff)) | head -1)" -n \
	ip -o -4 addr show eth0 | awk '{print $4}'; }
ok "$([ -n "$(address $instance)" ] && [ "$(address $one)" != "$(address $instance)" ]; echo $?)" "addresses differ: $(address $one), $(address $instance)"

sed 's/^instance = .*/instance = '$one'/; s|^run_dir = .*|run_dir = "'"$work"'/run3"|; s|^state_dir = .*|state_dir = "'"$work"'/state3"|' \
	"$work/config" >"$work/config3"
again=$("$top_builddir/sandboxd" --standalone --config "$work/config3" 2>&1)
is $? 78 "a third daemon with the number of the first is refused, whatever its directories"
case $again in *"instance $one is in use"*) ok 0 "and says so" ;; *) ok 1 "and says so"; printf '# %s\n' "$again" ;; esac

kill "$one_monitor"
wait "$one_monitor"
"$top_builddir/sandboxd" --purge --config "$work/config1" >>"$one_log" 2>&1
is "$?" 0 "the first is purged"
ok "$([ ! -e "$one_run" ] && [ -z "$(ls -d /sys/fs/cgroup/*/sandboxd-$one /sys/fs/cgroup/sandboxd-$one 2>/dev/null)" ]; echo $?)" "nothing of it is left"
is "$(state_of "$second")" Running "the sandbox of the second runs on"
out=$(execd "$second" /command '{"command":"echo still"}')
case $out in *'"text":"still"'*) ok 0 "and runs commands" ;; *) ok 1 "and runs commands"; printf '# %s\n' "$out" ;; esac
third=$(create)
is "${#third}" 36 "and the second makes another"
delete_all
[ -n "$first" ] && [ -d "$one_state" ]
ok $? "the first one's state directory stays"
done_testing
