#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Images from local files, end to end: Debian, busybox, musl, one static program; plain, gzip, zstd and a directory; and images that
# want to do harm: /proc, /dev, /etc/passwd as links and FIFOs, no shell at all.
# before the test has a network namespace without a way out: Debian's packages from wherever this machine gets its own
: "${top_builddir:=$PWD}"
if [ -z "${DAEMON_TEST_INSIDE:-}" ] && [ "$(id -u)" = 0 ] && [ ! -e "$top_builddir/debian.tar" ] && command -v debootstrap >/dev/null; then
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1)
	tree=$(mktemp -d /var/tmp/sandboxd-debian.XXXXXX)
	debootstrap --variant=minbase bookworm "$tree/root" ${mirror:+"$mirror"} >"$tree/log" 2>&1 </dev/null &&
		tar -C "$tree/root" --numeric-owner -cf "$top_builddir/debian.tar" .
	rm -rf "$tree"
fi
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
EOF
start_daemon
ok $? "the daemon starts"
skip() { # NAME REASON
	tests=$((tests + 1))
	echo "ok $tests - $1 # SKIP $2"
}
run_in() { # IMAGE COMMAND...: its output; the exit code is that of the command
	local image=$1
	shift
	ctl run --image "$image" -- "$@" 2>"$work/err"
}

# ---- busybox, in every form ----
busybox=$(command -v busybox)
tree=$work/busybox
mkdir -p "$tree/etc" "$tree/tmp"
busybox_tree "$tree" sh true cat ls sleep
for applet in echo id mkfifo stat; do ln "$tree/bin/busybox" "$tree/bin/$applet"; done # hard links, too
printf 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n' >"$tree/etc/passwd"
printf 'root:x:0:\nann:x:1000:\n' >"$tree/etc/group"
chmod 755 "$tree"
tar -C "$tree" -cf "$work/bb.tar" .
gzip -k "$work/bb.tar"
zstd -q "$work/bb.tar" -o "$work/bb.tar.zst"
for form in bb.tar bb.tar.gz bb.tar.zst busybox; do
	name=bb-$(echo $form | tr -d .)
	ctl image import "$work/$form" "$name" >"$work/out" 2>&1
	ok $? "import $form"
	[ $failed = 0 ] || sed 's/^/# /' "$work/out"
	is "$(run_in "$name" sh -c 'echo $((6*7)) $(id -u)')" "42 0" "$form runs a shell"
done
one=$(ctl create --image bb-bbtar -o json -- sleep 600 | sed -n 's/^ *"id": "\([^"]*\)".*/\1/p' | head -1)
two=$(ctl create --image bb-bbtar -o json -- sleep 600 | sed -n 's/^ *"id": "\([^"]*\)".*/\1/p' | head -1)
is "$(ctl exec "$one" -- sh -c 'echo changed > /etc/passwd; cat /etc/passwd')" changed "a sandbox writes into its own copy"
is "$(ctl exec "$two" -- sh -c 'cat /etc/passwd | head -c 4')" root "another of the same image does not see it"
is "$(ctl exec "$two" -- stat -c %u /bin/busybox)" 0 "files of the layer belong to root inside"
owners() { find "$state/layers" -maxdepth 2 -printf '%U\n' | sort -u | awk -v base=$((0x78000000 - instance * 0x8000000 - 0x20000)) '$1 != 0 && ($1 < base || $1 > base + 65535) {print}'; }
is "$(owners)" "" "layers on disk belong to the layer range, whoever owned them in the archive"
is "$(find "$state" -uid 0 -perm /6000 2>/dev/null)" "" "no setuid file of the host's root exists in the state"
ctl rm "$one" "$two" >/dev/null

# ---- a musl system with dynamic programs ----
if command -v musl-gcc >/dev/null && [ -e /lib/ld-musl-x86_64.so.1 ]; then
	tree=$work/musl
	mkdir -p "$tree/bin" "$tree/lib" "$tree/etc"
	printf '#include <stdio.h>\n#include <pwd.h>\nint main(void) { struct passwd *p = getpwuid(0); printf("musl %%s\\n", p ? p->pw_name : "?"); return 7; }\n' >"$work/m.c"
	musl-gcc -o "$tree/bin/hello" "$work/m.c"
	cp "$busybox" "$tree/bin/sh"
	cp -L /lib/ld-musl-x86_64.so.1 "$tree/lib/"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
	ctl image import "$tree" musl >/dev/null 2>&1
	ok $? "import of a musl tree"
	out=$(run_in musl hello)
	is "$?/$out" "7/musl root" "a dynamic musl program runs, its exit code is passed on"
else
	skip "a musl tree" "musl-tools and musl are not installed"
fi

# ---- one static program and nothing else ----
tree=$work/static
mkdir -p "$tree"
printf 'int main(void) { return 9; }\n' >"$work/s.c"
gcc -static -o "$tree/only" "$work/s.c"
ctl image import "$tree" only >/dev/null 2>&1
id=$(api POST /v1/sandboxes '{"image":{"uri":"only"},"entrypoint":["/only"],"resourceLimits":{}}' | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')
ended() { [ "$(state_of "$id")" = Failed ]; }
until_true 5 ended
is "$(state_of "$id")/$(field_of "$id" reason)" "Failed/CONTAINER_EXITED_ERROR" "a static program alone is a sandbox, and ends with its code"
api DELETE "/v1/sandboxes/$id" >/dev/null
api POST /v1/sandboxes '{"image":{"uri":"only"},"entrypoint":["/bin/sh","-c","true"],"resourceLimits":{}}' >"$work/answer"
is "$(status)" 400 "an entrypoint that the image does not have is an error at once"
grep -q '"code":"SANDBOX::INVALID_PARAMETER","message":"entrypoint ' "$work/answer"
ok $? "that names it"
id=$(api POST /v1/sandboxes '{"image":{"uri":"only"},"entrypoint":["@idle"],"resourceLimits":{}}' | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')
is "$(state_of "$id")" Running "with the entrypoint @idle it lives without any process of its own"
ctl exec "$id" -- /only
is $? 9 "and runs its program"
execd "$id" /command '{"command":"true"}' | grep -q CommandExecError
ok $? "a shell command is an error event where there is no shell"
api DELETE "/v1/sandboxes/$id" >/dev/null
is "$(count)" 0 "and leaves no sandbox that runs"

# ---- images that want to do harm ----
hostile() { # NAME: a busybox tree in $tree to change
	tree=$work/hostile-$1
	cp -a "$work/busybox" "$tree"
}
host_before=$(stat -c '%i %Y %s' /etc/passwd /etc/hostname 2>/dev/null)
hostile proc-link && ln -s / "$tree/proc"
hostile proc-out && ln -s ../../../../../../proc "$tree/proc"
hostile dev-link && ln -s /etc "$tree/dev"
hostile sys-link && ln -s /tmp "$tree/sys"
hostile etc-link && rm -r "$tree/etc" && ln -s ../../../../etc "$tree/etc"
hostile passwd-link && ln -sf /proc/1/environ "$tree/etc/passwd"
hostile passwd-fifo && rm "$tree/etc/passwd" && mkfifo "$tree/etc/passwd"
hostile hosts-link && ln -s ../../../../../../etc/hostname "$tree/etc/hosts"
hostile resolv-fifo && mkfifo "$tree/etc/resolv.conf"
hostile opt-link && ln -s /etc "$tree/opt"
for tree in "$work"/hostile-*; do
	name=${tree##*/}
	ctl image import "$tree" "$name" >"$work/out" 2>&1 || { ok 0 "$name: refused at import"; continue; }
	out=$(timeout 60 "$top_builddir/sandboxctl" --socket "$run/api.sock" run --image "$name" -- sh -c 'cat /proc/self/status | head -1; echo pid $$; echo x > /dev/null && echo null' 2>"$work/err")
	code=$?
	case $out in
	*"pid "*null*) ok 0 "$name: runs with a /proc and /dev of its own" ;;
	*) [ $code != 124 ] && [ -s "$work/err" ]
		ok $? "$name: refused with words"; sed 's/^/#   /' "$work/err" ;;
	esac
	[ $code != 124 ]
	ok $? "$name: nothing hangs"
done
is "$(stat -c '%i %Y %s' /etc/passwd /etc/hostname 2>/dev/null)" "$host_before" "the host's files are untouched"
serving
ok $? "the daemon serves after all of it"

# ---- bad archives ----
head -c 100000 /dev/urandom >"$work/noise.tar"
ctl image import "$work/noise.tar" noise >"$work/out" 2>&1
[ $? != 0 ] && [ -s "$work/out" ]
ok $? "noise is refused with words"
head -c 300000 "$work/bb.tar.gz" >"$work/cut.tar.gz"
ctl image import "$work/cut.tar.gz" cut >"$work/out" 2>&1
[ $? != 0 ] && [ -s "$work/out" ]
ok $? "a cut archive is refused with words"
is "$(ctl image ls | grep -cE '^(noise|cut) ')" 0 "neither is listed"

# ---- Debian ----
if [ -s "$top_builddir/debian.tar" ]; then
	ctl image import "$top_builddir/debian.tar" debian:12 >"$work/out" 2>&1
	ok $? "import of Debian 12"
	is "$(run_in debian:12 sh -c '. /etc/os-release; echo $VERSION_ID')" 12 "it runs"
	is "$(run_in debian:12 bash -c 'perl -e "print 6*7"; id -un')" "42root" "with its own programs and users"
	is "$(run_in debian:12 sh -c 'apt-get --version | head -c 3; dpkg -l | grep -c "^ii" | head -c 1 | grep -c .')" "apt1" "apt and dpkg work in it"
else
	skip "Debian 12" "debootstrap did not get its packages"
fi

for name in $(ctl image ls -o json | sed -n 's/^ *"name": "\([^"]*\)".*/\1/p'); do
	[ "$name" = host ] || ctl image rm "$name" >/dev/null 2>&1
done
is "$(ctl image ls | tail -n +2 | grep -cv '^host')" 0 "images are removed"
delete_all
until_true 10 clean
ok $? "nothing is left"
leftovers | sed 's/^/# /'
done_testing
