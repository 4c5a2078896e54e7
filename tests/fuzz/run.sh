#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh WORK-DIRECTORY SECONDS: builds every fuzz target with libFuzzer below WORK/fuzz from the sources in WORK/src and
# lets them run, one a processor at a time, starting from the corpora of the tree: those that read what root or all sandboxes
# depend on for SECONDS each, the others for a sixth of that.  TAP on stdout; crashes stay in WORK/fuzz/crash.
set -u
work=$1 seconds=$2
thorough=" broker_msg agent_frames agent_request "
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
short=$((seconds / 6))
[ $short -ge 2 ] || short=2
# shellcheck disable=SC2046
make -j"$(nproc)" libbase.a $(make -s print-BUILT_SOURCES) >&2

seconds_of() { # NAME
	case $thorough in *" $1 "*) echo "$seconds" ;; *) echo "$short" ;; esac
}

run_one() { # TARGET
	local name=${1##*/fuzz_}
	mkdir -p "new/$name"
	"./$1" -max_total_time="$(seconds_of "$name")" -timeout=10 -rss_limit_mb=1024 -artifact_prefix="crash/$name-" "new/$name" \
		"../src/tests/fuzz/corpus/$name" >"$name.log" 2>&1
	echo $? >"$name.rc"
}

# All at once, then one by one to see which of them are there; those that run longest begin.
linked=-fsanitize=fuzzer,address,undefined
make -k -j"$(nproc)" LDFLAGS=$linked "$@" >&2
built=()
for target in "$@"; do
	name=${target##*/fuzz_}
	rm -f "$name.rc" "$name.log"
	make LDFLAGS=$linked "$target" >&2 || continue
	case $thorough in *" $name "*) built=("$target" "${built[@]}") ;; *) built+=("$target") ;; esac
done
for target in "${built[@]}"; do
	while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
		wait -n
	done
	run_one "$target" &
done
wait

n=0 failed=0
for target in "$@"; do
	n=$((n + 1))
	name=${target##*/fuzz_}
	if [ ! -e "$name.rc" ]; then
		echo "not ok $n - $name is built"
		failed=1
	elif [ "$(cat "$name.rc")" = 0 ]; then
		echo "ok $n - $name: $(sed -n 's/^Done \([0-9]*\) runs.*/\1/p' "$name.log") runs in $(seconds_of "$name") s"
	else
		echo "not ok $n - $name: see $dir/$name.log, input in $dir/crash"
		failed=1
	fi
done
echo "1..$n"
exit $failed
