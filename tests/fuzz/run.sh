#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh WORK-DIRECTORY SECONDS: builds every fuzz target with libFuzzer below WORK/fuzz from the sources in WORK/src and
# lets them run for SECONDS in all, starting from the corpora of the tree.  TAP on stdout; crashes stay in WORK/fuzz/crash.
set -u
work=$1 seconds=$2
dir="$work/fuzz"
if ! command -v clang >/dev/null; then
	echo "1..0 # SKIP no clang (apt-get install clang)"
	exit 0
fi
mkdir -p "$dir/crash"
cd "$dir" || exit 1
flags="-g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined"
if [ ! -e Makefile ] || [ ../src/configure -nt Makefile ]; then
	../src/configure --silent CC=clang CFLAGS="$flags" CPPFLAGS=-DSBX_FUZZERS >&2 || exit 1
fi
# shellcheck disable=SC2046
set -- $(make -s print-FUZZ_TARGETS)
each=$((seconds / ($# > 0 ? $# : 1)))
[ $each -ge 2 ] || each=2
n=0 failed=0
# shellcheck disable=SC2046
make -j"$(nproc)" libbase.a $(make -s print-BUILT_SOURCES) >&2
for target in "$@"; do
	n=$((n + 1))
	name=${target##*/fuzz_}
	if ! make LDFLAGS="-fsanitize=fuzzer,address,undefined" "$target" >&2; then
		echo "not ok $n - $name is built"
		failed=1
		continue
	fi
	mkdir -p "new/$name"
	if "./$target" -max_total_time="$each" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="crash/$name-" "new/$name" \
		"../src/tests/fuzz/corpus/$name" >"$name.log" 2>&1; then
		echo "ok $n - $name: $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$name.log") runs in $each s"
	else
		echo "not ok $n - $name: see $dir/$name.log, input in $dir/crash"
		failed=1
	fi
done
echo "1..$n"
exit $failed
