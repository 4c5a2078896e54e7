#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every archive of the corpus goes through sandbox-unpack as root of a user namespace.  A hostile one must be refused with
# the typed error in its name, a good one must give exactly the tree that it promises, and nothing beside the target
# directory may change either way.
set -u
builddir=${top_builddir:-$PWD}
srcdir=${top_srcdir:-$PWD}
run="$builddir/tests/system/unpack_run"
unpack="$builddir/sandbox-unpack"
base=1879048192 # TEST_ID of unpack_run.c

if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root"
	exit 0
fi
if ! command -v python3 >/dev/null; then
	echo "1..0 # SKIP no python3 (apt-get install python3)"
	exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/corpus" "$work/area"
python3 "$srcdir/tests/images/make_hostile.py" "$work/corpus" || exit 1

n=0 failed=0
check() { # NAME CONDITION-STATUS
	n=$((n + 1))
	if [ "$2" = 0 ]; then
		echo "ok $n - $1"
	else
		echo "not ok $n - $1"
		failed=1
	fi
}

# The canary is writable for everybody: only the unpacker's own care protects it.
printf 'untouched\n' >"$work/area/canary"
chmod 666 "$work/area/canary"
chmod 777 "$work/area"
outside() {
	(cd "$work/area" && find . -path ./target -prune -o -printf '%y %m %U %n %s %P\n' | sort && cat canary)
}

for blob in "$work"/corpus/*.tar "$work"/corpus/*.gzip "$work"/corpus/*.zstd; do
	file=${blob##*/}
	form=${file##*.}
	rest=${file%.*}
	want=${rest##*.}
	name=${rest%.*}
	rm -rf "$work/area/target"
	mkdir "$work/area/target"
	before=$(outside)
	got=$("$run" "$unpack" "$work/area/target" --form "$form" --max-bytes 8388608 --max-entries 2000 <"$blob" 2>&1)
	code=$?
	after=$(outside)
	status=$(printf '%s' "$got" | sed -n 's/.*status \([A-Z_]*\) .*/\1/p')
	want_code=1
	[ "$want" = NONE ] && want_code=0
	[ "$status/$code" = "$want/$want_code" ]
	check "$name: $want" $?
	[ "$status" = "$want" ] || echo "# $got"
	[ "$before" = "$after" ]
	check "$name: nothing outside changed" $?
	if [ "$want" = NONE ]; then
		tree=$(cd "$work/area/target" && find . -mindepth 1 -printf '%y %m %U %n %P\n' |
			awk -v b=$base '{ $3 -= b; print }' | LC_ALL=C sort)
		wanted=$(LC_ALL=C sort "$work/corpus/$name.expect")
		[ "$tree" = "$wanted" ]
		check "$name: exactly the promised tree" $?
		[ "$tree" = "$wanted" ] || diff <(printf '%s\n' "$wanted") <(printf '%s\n' "$tree") | sed 's/^/# /'
	fi
done

# attributes: what steers overlayfs or a security module must not come in
rm -rf "$work/area/target"
mkdir "$work/area/target"
"$run" "$unpack" "$work/area/target" --form tar --max-bytes 8388608 --max-entries 2000 \
	<"$work/corpus/xattrs-dropped.NONE.tar" >/dev/null
names=$(python3 -c 'import os,sys; print(sorted(os.listxattr(sys.argv[1])))' "$work/area/target/f")
[ "$names" = "['user.kept']" ]
check "only user.kept of five attributes is set (got $names)" $?

# the host skeleton holds nothing that only root may read
rm -rf "$work/area/target"
mkdir "$work/area/target"
"$run" "$unpack" "$work/area/target" --host-skeleton </dev/null >/dev/null
check "host skeleton is built" $?
for absent in etc/shadow etc/gshadow etc/machine-id etc/ssh etc/ssl/private etc/sudoers etc/hostname.bak; do
	[ ! -e "$work/area/target/$absent" ]
	check "host skeleton has no $absent" $?
done
for present in etc/passwd etc/group etc/nsswitch.conf bin/sh tmp root home/sandbox usr; do
	[ -L "$work/area/target/${present%%/*}" ] || [ -e "$work/area/target/$present" ]
	check "host skeleton has $present" $?
done
secret=$(cd / && find etc -type f ! -perm -004 2>/dev/null | while read -r f; do
	[ -e "$work/area/target/$f" ] && case $f in etc/passwd|etc/group|etc/hosts|etc/hostname|etc/resolv.conf) ;; *) echo "$f" ;; esac
done)
[ -z "$secret" ]
check "no file of the host that others may not read is in it" $?
! grep -q "$(hostname)" "$work/area/target/etc/hostname" || [ "$(hostname)" = sandbox ]
check "the host's name is not in it" $?

# the unpacker is confined: a blob's parser could open no socket and start no program
out=$(python3 - "$run" "$unpack" "$work/area/target" <<'PY'
import subprocess, sys, time, os
p = subprocess.Popen([sys.argv[1], sys.argv[2], sys.argv[3], "--form", "tar", "--max-bytes", "1000", "--max-entries", "10"],
                     stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
child = None
for _ in range(200):
    kids = open(f"/proc/{p.pid}/task/{p.pid}/children").read().split()
    if kids:
        child = kids[0]
        status = open(f"/proc/{child}/status").read()
        if "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status:
            print("confined")
            break
    time.sleep(0.01)
p.stdin.close()
p.wait()
PY
)
[ "$out" = confined ]
check "runs with its filter and no_new_privs while it waits for the blob" $?

echo "1..$n"
exit $failed
