#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A power cut while sandboxes with disk limits and volumes with sizes write: `disks.sh BACKEND before` leaves them running,
# `disks.sh BACKEND after` looks at what the next boot makes of it.  BACKEND is limits.disk_backend: quota or loop.
# shellcheck source=tests/vm/guest_lib.sh
. "$(dirname "$0")/guest_lib.sh"
backend=$1
dir=${DISKS_ROOT:-/mnt/disk}/disks-$backend
mkdir -p "$dir"
default_route
run=/run/vmdisks-$backend
instance=12
[ "$backend" = quota ] || instance=10
ctl() { timeout 120 "$top_builddir/sandboxctl" --socket "$run/api.sock" "$@"; }
state_of() { ctl inspect "$1" -o json | sed -n 's/.*"state": *"\([^"]*\)".*/\1/p' | head -n 1; }
config() {
	printf 'instance = %s\nstate_dir = "%s"\nrun_dir = "%s"\n[server]\nport = 18%s3\nendpoint_port = 18%s4\n' "$instance" "$dir/state" "$run" "$instance" "$instance"
	printf '[pool]\ntarget = 1\ndisks = 1\n[limits]\ndisk_backend = "%s"\n' "$backend"
} >"$dir/config"
# Bytes that go into a new file at $2 of sandbox $1, with its limit.
fills() { ctl exec "$1" -- sh -c "dd if=/dev/zero of=$2 bs=1M count=200 2>/dev/null; stat -c %s $2"; }
between() { [ -n "$3" ] && [ "$3" -ge "$1" ] && [ "$3" -le "$2" ]; }
devices() { cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c "^$dir/"; }
# Projects of ours that have a limit on /mnt/disk; a waiting shell has files and none.
projects() {
	python3 - "$((0x78000000 - instance * 0x8000000 - 0x40000))" <<-'END'
		import ctypes, os, struct, sys
		libc, fd, id, found = ctypes.CDLL(None, use_errno=True), os.open("/mnt/disk", os.O_RDONLY), 1, 0
		while True:
		    b = ctypes.create_string_buffer(72)
		    if libc.syscall(443, fd, 0x800009 << 8 | 2, id, b) < 0:
		        break
		    hard, soft, used, ihard, isoft, inodes, _, _, valid, id = struct.unpack("QQQQQQQQII", b.raw)
		    found += id >= int(sys.argv[1]) and any((hard, soft, ihard, isoft))
		    id += 1
		print(found)
	END
}
mib=$((1 << 20))
if [ "$2" = before ]; then
	config
	mkdir -p "$run"
	: >"$dir/fault"
	yes "$backend, before: the daemon is ready" start_daemon SBX_FAULT_FILE="$dir/fault"
	says "$backend, before: it keeps limits so" "disk limits: \(project quotas\|loop images\)" cat "$dir/log"
	yes "$backend, before: a volume with a size" ctl volume create --size 24m kept
	for name in one two; do
		id=$(create --timeout 3600 --disk 48m --volume kept:/v)
		echo "$name=$id" >>"$dir/ids"
	done
	. "$dir/ids"
	yes "$backend, before: it is written to, and to the disk" ctl exec "$one" -- sh -c 'seq 100000 >/v/numbers && echo mine >/root/evidence && sync'
	ctl volume create --size 64m kept >"$dir/out" 2>&1
	yes "$backend, before: in use, it grows" between $((40 * mib)) $((64 * mib)) "$(fills "$two" /v/fill)"
	ctl exec "$two" -- rm /v/fill
	yes "$backend, before: the disk is full where its limit says" between $((30 * mib)) $((48 * mib)) "$(fills "$two" /root/fill)"
	if [ "$backend" = loop ] && fault_points; then # a growth that is killed, and then nobody comes before the power goes
		ctl volume create --size 24m cut >"$dir/out" 2>&1
		echo "three=$(create --timeout 3600 --volume cut:/v)" >>"$dir/ids"
		. "$dir/ids"
		yes "$backend, before: another volume is written to" ctl exec "$three" -- sh -c 'seq 50000 >/v/numbers && sync'
		echo disk-longer:kill >"$dir/fault"
		no "$backend, before: who makes it larger is killed" ctl volume create --size 64m cut
		: >"$dir/fault"
		yes "$backend, before: it has the size that it had" between $((16 * mib)) $((24 * mib)) "$(fills "$three" /v/fill)"
		ctl exec "$three" -- rm /v/fill
	fi
	# nobody waits for these: the power goes while they run
	ctl exec "$one" -- sh -c 'while :; do dd if=/dev/urandom of=/v/torn bs=64k count=100 conv=fsync; rm /v/torn; done' >/dev/null 2>&1 &
	ctl exec "$two" -- sh -c 'rm /root/fill; while :; do seq 10000 >/root/torn; rm /root/torn; done' >/dev/null 2>&1 &
	sync
	[ "$backend" = quota ] || is "$(devices)" "$([ -n "${three:-}" ] && echo 5 || echo 4)" "$backend, before: an image each for the two, the pool and the volumes"
	echo "1..$n"
	exit 0 # with everything running
fi
. "$dir/ids"
mkdir -p "$run"
yes "$backend, after: the daemon is ready" start_daemon
is "$(state_of "$one") $(state_of "$two")" "Failed Failed" "$backend, after: what ran says Failed"
if [ "$backend" = loop ]; then
	is "$(devices)" 0 "its images are nobody's"
	is "$(find "$dir/state/disks" -name 'p*' | wc -l)" 0 "those of the pool are gone, and there are new ones when somebody asks"
fi
if [ -n "${three:-}" ]; then
	id=$(create --timeout 3600 --volume cut:/v)
	is "$(ctl exec "$id" -- sh -c 'seq 50000 | cmp - /v/numbers && echo whole')" whole "the volume whose growth was killed has what was written"
	yes "and is as large as it was to be" between $((40 * mib)) $((64 * mib)) "$(fills "$id" /v/fill)"
	ctl rm "$three" "$id" >"$dir/out" 2>&1
	yes "it is deleted" until_true 60 ctl volume rm cut
fi
id=$(create --timeout 3600 --disk 48m --volume kept:/v)
is "$(ctl exec "$id" -- sh -c 'seq 100000 | cmp - /v/numbers && echo whole')" whole "the volume has what was written"
yes "and the size that it had grown to" between $((40 * mib)) $((64 * mib)) "$(fills "$id" /v/fill)"
yes "a new sandbox has its limit" between $((30 * mib)) $((48 * mib)) "$(fills "$id" /root/fill)"
ctl rm "$one" "$two" "$id" >"$dir/out" 2>&1
ok $? "they are deleted"
# but for the waiting shell's
no_files() { [ "$(find "$dir/state/sandboxes" -mindepth 1 -maxdepth 1 | wc -l)" -le 1 ] && [ -z "$(find "$dir/state/trash" -mindepth 1)" ]; }
yes "and their files are gone" until_true 120 no_files
yes "the volume too" until_true 60 ctl volume rm kept
yes "and its files" until_true 120 no_files
yes "fsck has nothing to say" ctl image fsck
none() { [ "$(projects)" = 0 ]; }
stop_daemon
"$top_builddir/sandboxd" --purge --config "$dir/config" >"$dir/out" 2>&1
ok $? "purge"
[ "$backend" = loop ] || yes "no project has a limit: $(projects)" until_true 60 none
no_devices() { [ "$(devices)" = 0 ]; }
yes "no loop device is left" until_true 60 no_devices
echo "1..$n"
