#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A reboot that nobody announced: `reboot.sh before` leaves a daemon with sandboxes running when the machine goes off, `reboot.sh
# after` looks at what the next boot makes of it.
# shellcheck source=tests/vm/guest_lib.sh
. "$(dirname "$0")/guest_lib.sh"
dir=/mnt/disk/reboot
mkdir -p "$dir"
default_route
state_of() { ctl inspect "$1" -o json | sed -n 's/.*"state": *"\([^"]*\)".*/\1/p' | head -n 1; }
evidence() { find "$dir/state/sandboxes" -name "evidence-$1" 2>/dev/null | wc -l; }
if [ "$1" = before ]; then
	write_config </dev/null
	yes "before: the daemon is ready" start_daemon
	for name in long short paused; do
		timeout=3600
		[ $name != short ] || timeout=60
		id=$(create --timeout $timeout)
		ctl exec "$id" -- sh -c "echo mine >/root/evidence-$name; sync" >"$dir/out" 2>&1
		ok $? "before: a sandbox with a file"
		echo "$name=$id" >>"$dir/ids"
		[ $name != paused ] || ctl pause "$id"
	done
	. "$dir/ids"
	is "$(state_of "$long") $(state_of "$paused")" "Running Paused" "before: they live"
	cp /proc/sys/kernel/random/boot_id "$dir/boot_id"
	echo "1..$n"
	sync
	exit 0 # with everything running
fi
. "$dir/ids"
no "after: it is another boot" cmp -s /proc/sys/kernel/random/boot_id "$dir/boot_id"
yes "after: the daemon is ready" start_daemon
is "$(state_of "$long") $(state_of "$paused")" "Failed Failed" "what ran and what was paused says Failed"
says "and why" HOST_REBOOTED ctl inspect "$long" -o json
is "$(evidence long) $(evidence paused)" "1 1" "their files are there"
is "$(grep -c "$dir/state/sandboxes" /proc/mounts)" 0 "no mount of theirs"
no "a command in it is refused" ctl exec "$long" -- true
yes "the one whose time is over goes by itself" until_true 120 sh -c "! '$top_builddir/sandboxctl' --socket /run/vmdaemon/api.sock inspect $short"
yes "and its files with it" until_true 30 test "$(evidence short)" = 0
id=$(create --timeout 600)
is "$(state_of "$id")" Running "a new sandbox"
no "does not see the old one's file" ctl exec "$id" -- ls /root/evidence-long
is "$(evidence long)" 1 "which is still there"
yes "delete" ctl rm "$long"
no_files() { [ "$(evidence long)" = 0 ]; }
yes "takes the files" until_true 30 no_files
ctl rm "$id" "$paused" >"$dir/out" 2>&1
ok $? "delete the others"
clean() { [ -z "$(find "$dir/state" -name 'evidence-*')" ]; }
stop_daemon
"$top_builddir/sandboxd" --purge --config "$dir/config" >"$dir/out" 2>&1
ok $? "purge"
yes "nothing is left" clean
echo "1..$n"
