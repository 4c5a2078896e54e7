#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The file system of the state directory is full: whose sandbox filled it is told so, the others and the daemon go on, what cannot
# be done is refused by name, and when there is room again all of it works again.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
inside() { local id=$1; shift; ctl exec "$id" -- bash -c "$*" 2>&1; }
truncate -s 140M "$work/image"
if ! mkfs.ext4 -q -F -m 0 "$work/image" >"$work/out" 2>&1 || ! mount -o loop "$work/image" "$state" 2>>"$work/out"; then
	echo "1..0 # SKIP no file system to fill: $(tail -n 1 "$work/out")"
	exit 0
fi
off() {
	until_true 30 umount "$state"
	cleanup
}
finish() {
	delete_all
	stop_daemon
	"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1
}
trap 'finish; off' EXIT
left() { df --output=avail -k "$state" | tail -n 1; }
full() { [ "$(left)" -lt 64 ]; }
starts() { grep -c ' started, pid ' "$log"; }
write_config <<-END
	[server]
	port = 0
	[pool]
	target = 1
	disks = 1
END
refused() { # refused WHAT BODY
	[[ $(status) == 507 && $2 == *STATE_FULL* ]]
	ok $? "$1 is refused by name: $2"
}

start_daemon
ok $? "a daemon on a file system of its own starts"
[ $failed = 0 ] || done_testing
greedy=$(make_with '{}' | id_of) calm=$(make_with '{}' | id_of)
body=$(make_with '{"disk":"16Mi"}')
limited=$(id_of <<<"$body")
[ -n "$greedy" ] && [ -n "$calm" ]
ok $? "two sandboxes without a limit"
started=$(starts)
says=$(inside "$greedy" 'dd if=/dev/zero of=/root/fill bs=1M; dd if=/dev/zero of=/root/rest bs=4k; sync')
[[ $says == *"No space left on device"* ]] && full
ok $? "one of them fills the disk, and is told so ($(left) KiB are left)"
api GET /health >/dev/null
is "$(status)" 200 "the daemon answers"
is "$(inside "$calm" 'echo alive; ls /usr >/dev/null && echo still')" "$(printf 'alive\nstill')" "the other one goes on"
is "$(inside "$greedy" 'echo alive')" alive "and the one itself"
refused "a create" "$(make_with '{}')"
refused "a change" "$(api PATCH "/v1/sandboxes/$calm/metadata" '{"a":"b"}')"
if [ -n "$limited" ]; then
	refused "a disk" "$(make_with '{"disk":"16Mi"}')"
	# what is not on the disk by now would be an error or zeros
	is "$(inside "$limited" 'dd if=/dev/urandom of=/dev/shm/r bs=1M count=8 2>/dev/null; cp /dev/shm/r /root/kept && sync && dd if=/root/kept bs=1M iflag=direct 2>/dev/null | cmp - /dev/shm/r && echo kept' | tail -n 1)" \
		kept "a sandbox with a disk has what it was promised"
	is "$(inside "$limited" 'dd if=/dev/zero of=/root/more bs=1M count=40 2>/dev/null && echo unbounded; rm /root/more; echo a >/root/b && echo writes' | tail -n 1)" writes "no more, and it goes on"
else
	echo "ok $((tests + 1)) - sandboxes with disks # SKIP $body"
	tests=$((tests + 1))
fi
api DELETE "/v1/sandboxes/$calm" >/dev/null
is "$(status)" 204 "a sandbox can be deleted"
inside "$greedy" 'rm /root/fill /root/rest' >/dev/null
made() { id=$(make_with '{}' | id_of) && [ -n "$id" ]; }
until_true 30 made
ok $? "when there is room again, a create works"
is "$(inside "$id" 'echo x >/root/x && cat /root/x')" x "and what it makes"
api PATCH "/v1/sandboxes/$greedy/metadata" '{"a":"b"}' >/dev/null
is "$(status)" 200 "a change too"
[ -z "$limited" ] || is "$(inside "$limited" 'cmp /root/kept /dev/shm/r && cat /root/b')" a "the disk has all of it"
is "$(starts)" "$started" "no process was started anew"
done_testing
