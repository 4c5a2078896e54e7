#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What may not be tried on the machine that the tests run on: a pipe as core_pattern, a clock before 2020, state on NFS, a
# reboot.  Two boots of a stock kernel on one disk.
# shellcheck source=tests/vm/outer_lib.sh
. "$(dirname "$0")/outer_lib.sh"
tests=$top_srcdir/tests/vm
case ${1:-} in
first)
	"$tests/core.sh"
	"$tests/state.sh"
	"$tests/reboot.sh" before
	exit
	;;
second)
	"$tests/reboot.sh" after
	"$tests/old_clock.sh"
	exit
	;;
esac
guest -t 740 -d "$outer_dir/disk" "$tests/hard.sh" first
guest -t 740 -d "$outer_dir/disk" "$tests/hard.sh" second
guest_done 5
