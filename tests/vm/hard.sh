#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What may not be tried on the machine that the tests run on: a pipe as core_pattern, a clock before 2020, state on NFS, a
# power cut.  Two boots of a stock kernel on one disk.  VM_DISKS=1 adds disk limits and sized volumes, which the cut meets at work.
# shellcheck source=tests/vm/outer_lib.sh
. "$(dirname "$0")/outer_lib.sh"
tests=$top_srcdir/tests/vm
disks() { # disks before|after
	local backend
	[ -n "${VM_DISKS:-}" ] || return 0
	modprobe loop
	for backend in quota loop; do
		"$tests/disks.sh" $backend "$1"
	done
}
case ${1:-} in
first)
	"$tests/core.sh"
	"$tests/state.sh"
	"$tests/reboot.sh" before
	disks before
	exit
	;;
second)
	"$tests/reboot.sh" after
	disks after
	"$tests/old_clock.sh"
	exit
	;;
esac
seconds=740 plans=5
if [ -n "${VM_DISKS:-}" ]; then
	seconds=1800 plans=9
else
	echo "ok 1 - a power cut with disks # SKIP takes two to ten minutes in the emulator: VM_DISKS=1 runs it" >>"$outer_dir/out"
fi
guest -t $seconds -c -d "$outer_dir/disk" "$tests/hard.sh" first
guest -t $seconds -d "$outer_dir/disk" "$tests/hard.sh" second
guest_done $plans
