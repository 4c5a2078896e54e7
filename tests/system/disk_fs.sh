#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disk limits with the state directory on other file systems: each in an image of its own, mounted by the host.
. "${top_srcdir:-.}/tests/system/tap_lib.sh" || exit 1
work=$(mktemp -d /var/tmp/sbxfs.XXXXXX) # short: BTC_DIR is 30 characters at most
finish() {
	umount "$work/m" 2>/dev/null
	rm -rf "$work"
}
trap finish EXIT
chmod 755 "$work" # clients of the broker have ids of their own
mkdir "$work/m"
on() { # on TYPE MKFS-OPTION...: the lines of disk_limits, renumbered
	local type=$1 line bad=0 n=0
	shift
	if ! command -v "mkfs.$type" >/dev/null; then
		tests=$((tests + 1))
		echo "ok $tests - disk limits on $type # SKIP no mkfs.$type"
		return
	fi
	rm -f "$work/image"
	truncate -s 500M "$work/image"
	if ! "mkfs.$type" -q "$@" "$work/image" >"$work/out" 2>&1 || ! mount -o loop "$work/image" "$work/m" 2>>"$work/out"; then
		tests=$((tests + 1))
		echo "ok $tests - disk limits on $type # SKIP it cannot be mounted here: $(tail -n 1 "$work/out")"
		return
	fi
	BTC_DIR=$work/m DISK_QUICK=1 timeout 240 "$top_builddir/tests/system/disk_limits" >"$work/out" 2>&1 || bad=1
	while read -r line; do
		case $line in
		"ok "*) n=$((n + 1)) ;;
		"not ok "*) bad=1 ;;
		esac
	done <"$work/out"
	[ $bad = 0 ] && [ $n -gt 0 ]
	ok $? "disk limits on $type: $n checks"
	[ $bad = 0 ] || grep -A3 '^not ok\|^# log' "$work/out" | sed 's/^/# /'
	umount "$work/m"
	ok $? "nothing holds that file system"
}
on xfs
on btrfs
done_testing
