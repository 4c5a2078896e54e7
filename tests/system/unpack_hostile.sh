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

mkdir "$work/area/target"
before=$(outside)
for blob in "$work"/corpus/*.tar "$work"/corpus/*.gzip "$work"/corpus/*.zstd; do
	file=${blob##*/}
	form=${file##*.}
	rest=${file%.*}
	want=${rest##*.}
	name=${rest%.*}
	rm -rf "$work/area/target"
	mkdir "$work/area/target"
	got=$("$run" "$unpack" "$work/area/target" --form "$form" --max-bytes 8388608 --max-entries 2000 <"$blob" 2>&1)
	code=$?
	after=$(outside)
	status=
	[[ $got =~ status\ ([A-Z_]*)\  ]] && status=${BASH_REMATCH[1]}
	want_code=1
	[ "$want" = NONE ] && want_code=0
	[ "$status/$code" = "$want/$want_code" ]
	check "$name: $want" $?
	[ "$status" = "$want" ] || echo "# $got"
	[ "$before" = "$after" ]
	check "$name: nothing outside changed" $?
	before=$after
	if [ "$want" = NONE ]; then
		tree=$(cd "$work/area/target" && find . -mindepth 1 -printf '%y %m %U %n %P\n' |
			awk -v b=$base '{ $3 -= b; print }' | LC_ALL=C sort)
		wanted=$(LC_ALL=C sort "$work/corpus/$name.expect")
		[ "$tree" = "$wanted" ]
		check "$name: exactly the promised tree" $?
		[ "$tree" = "$wanted" ] || diff <(printf '%s\n' "$wanted") <(printf '%s\n' "$tree") | sed 's/^/# /'
	fi
done

# a default ACL is set when all is there, so nothing inherits it; none is left of a directory that went
acls() { # acls NAME: the tree's paths with ACLs
	rm -rf "$work/area/target"
	mkdir "$work/area/target"
	"$run" "$unpack" "$work/area/target" --form tar --max-bytes 8388608 --max-entries 2000 <"$work/corpus/$1.NONE.tar" >/dev/null
	python3 - "$work/area/target" "$base" <<-'PY'
	import os, struct, sys
	root, base = sys.argv[1], int(sys.argv[2])
	for folder, dirs, files in os.walk(root):
	    for name in sorted(dirs + files):
	        path = os.path.join(folder, name)
	        for key in sorted(os.listxattr(path)):
	            if key.startswith("system.posix_acl_"):
	                value = os.getxattr(path, key)
	                ids = [struct.unpack_from("<HHI", value, at) for at in range(4, len(value), 8)]
	                print(os.path.relpath(path, root), key[17:], *(i - base for tag, perm, i in ids if tag in (2, 8)))
	PY
}
has_acls() { python3 -c "import os,struct; os.setxattr('$work/area', 'system.posix_acl_access', struct.pack('<IHHIHHIHHI', 2, 1, 7, 2**32-1, 4, 7, 2**32-1, 32, 7, 2**32-1))" 2>/dev/null; }
if has_acls; then
	got=$(acls acl | tr '\n' ' ')
	[ "$got" = "d default 65535 f access 7 " ]
	check "ACLs are set with the ids of the layer, and inherited by nothing (got $got)" $?
	got=$(acls acl-default-of-what-went)
	[ -z "$got" ]
	check "a directory that replaced another has not its default ACL (got $got)" $?
else
	n=$((n + 2))
	echo "ok $((n - 1)) - ACLs are set with the ids of the layer # SKIP no ACLs here"
	echo "ok $n - a directory that replaced another has not its default ACL # SKIP no ACLs here"
fi

# layers below: what they are made of is as hostile, and an opaque directory walks through it
below() { # below WHY STATUS EXPECTED-LINES: the archive on stdin upon $work/area/below
	local got tree before after
	rm -rf "$work/area/target"
	mkdir "$work/area/target"
	before=$(outside)
	got=$(UNPACK_BELOW=$work/area/below "$run" "$unpack" "$work/area/target" --form tar --max-bytes 8388608 --max-entries 2000 --lower 1 2>&1)
	after=$(outside)
	[ "$(printf '%s' "$got" | sed -n 's/.*status \([A-Z_]*\) .*/\1/p')" = "$2" ] && [ "$before" = "$after" ]
	check "upon a layer: $1: $2" $?
	tree=$(cd "$work/area/target" && find . -mindepth 1 -printf '%y %P\n' | LC_ALL=C sort)
	[ "$tree" = "$3" ] || { echo "# $got"; printf '%s\n' "$tree" | sed 's/^/# got /'; }
	[ "$tree" = "$3" ]
	check "upon a layer: $1: the tree" $?
}
mkdir -p "$work/area/below/d/in" "$work/area/below/real"
touch "$work/area/below/real/f" "$work/area/below/d/f" "$work/area/below/d/in/g" "$work/area/below/only-below"
ln -s /etc "$work/area/below/out"
ln -s real "$work/area/below/link"
ln -s .. "$work/area/below/d/up"
mkfifo "$work/area/below/d/fifo"
mknod "$work/area/below/d/gone" c 0 0
chown -R $base:$base "$work/area/below"
below "a hard link to what only it has" IMAGE_INVALID "" <"$work/corpus/hardlink.IMAGE_INVALID.lower"
below "a hard link to the target of its symbolic link" IMAGE_INVALID "" <"$work/corpus/hardlink-symlink.IMAGE_INVALID.lower"
below "a file through its symbolic link" NONE $'d link\nf link/f' <"$work/corpus/through-link.NONE.lower"
below "an opaque directory" NONE $'c d/f\nc d/fifo\nc d/in/g\nc d/up\nd d\nd d/in\nf d/in/own' <"$work/corpus/opaque.NONE.lower"
below "an opaque directory upon a symbolic link" NONE $'d out' <"$work/corpus/opaque-link.NONE.lower"
below "an opaque root" NONE $'c d\nc link\nc only-below\nc out\nc real' <"$work/corpus/opaque-root.NONE.lower"
below "a directory without an entry takes the looks of the one below" NONE $'d d\nf d/new' <"$work/corpus/implied.NONE.lower"

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
