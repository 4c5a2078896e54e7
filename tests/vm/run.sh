#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The tests that need another kernel than this machine's: cgroup version 2, and the packet filter of the oldest kernel that
# is supported.  One boot for all; each program's own TAP lines come through, renumbered.
top_builddir=${top_builddir:-$PWD}
top_srcdir=$(readlink -f "${top_srcdir:-$(dirname "$0")/../..}")
export top_builddir top_srcdir
export SBX_VM_SHARE=$top_srcdir
build=$(readlink -f "$top_builddir")
case $build in
"$top_srcdir"/*) ;;
# run-tests builds beside a copy of the sources: the guest needs both, also below /tmp, which it hides
"$(dirname "$top_srcdir")"/*) SBX_VM_SHARE=$(dirname "$top_srcdir") ;;
*) SBX_VM_SHARE=$build ;;
esac

# As under a service manager that delegated a part of the tree: the test's own processes sit where children need controllers.
delegated() {
	mkdir /sys/fs/cgroup/service
	python3 -c 'import os; os.setxattr("/sys/fs/cgroup/service", "trusted.delegate", b"1")'
	echo $BASHPID >/sys/fs/cgroup/service/cgroup.procs
	"$top_builddir/tests/system/cgroup_limits" v2 | sed 's/ - / - delegated: /'
	if grep -qx 0::/service/own /proc/self/cgroup; then
		echo "ok 1 - delegated: our own processes were moved to a leaf"
	else
		echo "not ok 1 - delegated: our own processes were moved to a leaf: $(cat /proc/self/cgroup)"
	fi
	echo $BASHPID >/sys/fs/cgroup/cgroup.procs
}
# Project quotas of ext4 and XFS, which the build machine's kernel has not.
disk_limits() {
	BTC_DIR=/mnt/disk DISK_QUICK=1 DISK_BACKEND=quota "$top_builddir/tests/system/disk_limits" | sed 's/ - / - ext4 quota: /'
	if ! command -v mkfs.xfs >/dev/null; then
		echo "ok 1 - xfs quota # SKIP no xfsprogs"
		return
	fi
	modprobe -a loop xfs
	truncate -s 400M /mnt/disk/xfs.img
	mkdir -p /mnt/xfs
	if mkfs.xfs -q /mnt/disk/xfs.img && mount -o loop,pquota /mnt/disk/xfs.img /mnt/xfs; then
		BTC_DIR=/mnt/xfs DISK_QUICK=1 DISK_BACKEND=quota "$top_builddir/tests/system/disk_limits" | sed 's/ - / - xfs quota: /'
		umount /mnt/xfs
	else
		echo "not ok 1 - xfs quota: the guest has an XFS with project quotas"
	fi
	rm -f /mnt/disk/xfs.img
}
inside() {
	"$top_builddir/tests/system/cgroup_limits" v2
	delegated
	"$top_builddir/tests/system/host_rows" /mnt/disk
	"$top_srcdir/tests/system/net_isolation.sh"
	"$top_srcdir/tests/system/net_guard.sh"
	# The whole takes a quarter of an hour in the emulator: what no kernel may get wrong is run always.
	BTC_DIR=/mnt/disk EGRESS_ESSENTIAL=1 "$top_builddir/tests/system/net_egress"
	if [ -n "${VM_EGRESS:-}" ]; then
		BTC_DIR=/mnt/disk EGRESS_QUICK=1 "$top_builddir/tests/system/net_egress"
		BTC_DIR=/mnt/disk "$top_builddir/tests/system/net_egress_life"
	else
		echo "ok 1 - all egress policies on this kernel # SKIP takes a quarter of an hour in the emulator: VM_EGRESS=1 runs it"
	fi
	disk_limits
	"$top_srcdir/tests/vm/daemon.sh" /mnt/disk
	"$top_srcdir/tests/vm/ipv6.sh" /mnt/disk
}
if [ "${1:-}" = inside ]; then
	inside
	exit 0
fi

out=$(mktemp)
trap 'rm -f "$out"' EXIT
cd "$SBX_VM_SHARE" || exit 1
"$top_srcdir/tests/vm/vm.sh" -t 1500 "$top_srcdir/tests/vm/run.sh" inside >"$out" 2>"$out.err"
code=$?
if [ $code = 77 ]; then
	why=$(tail -n 1 "$out.err")
	rm -f "$out.err"
	[ -z "${REQUIRE_ALL:-}" ] || { echo "not ok 1 - vm/cgroup-v2: $why"; echo 1..1; exit 1; }
	echo "1..0 # SKIP vm/cgroup-v2: $why"
	exit 0
fi
sed 's/^/# /' "$out.err" | tail -n 30
rm -f "$out.err"
programs=9
! command -v mkfs.xfs >/dev/null || programs=$((programs + 1)) # the guest has the programs of this machine
[ -z "${VM_EGRESS:-}" ] || programs=$((programs + 2))
awk -v code=$code -v programs=$programs '
	/^(not )?ok / { n++; sub(/ok [0-9]+/, "ok " n); print; next }
	/^1\.\.[0-9]+/ { plans++; next }
	{ print "# " $0 }
	END {
		n++; print (code == 0 ? "ok " : "not ok ") n " - the guest ran all of them (exit code " code ")"
		n++; print (plans == programs ? "ok " : "not ok ") n " - all of " programs " programs came to their end (" plans + 0 ")"
		print "1.." n
	}' "$out"
