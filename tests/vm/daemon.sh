#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The whole daemon on this kernel: a sandbox of the host image, limits, pause, network, purge.  Meant for the guest of
# tests/vm/run.sh; works wherever root may start a daemon.  Argument: an empty directory for the state.
top_builddir=${top_builddir:-$PWD}
dir=${1:-/mnt/disk}
n=0
ok() {
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; sed 's/^/#   /' "$dir/out"; fi
}
yes() { local name=$1; shift; "$@" >"$dir/out" 2>&1; ok $? "$name"; }
says() { local name=$1 want=$2; shift 2; "$@" >"$dir/out" 2>&1; grep -q -- "$want" "$dir/out"; ok $? "$name"; }

cat >"$dir/config" <<END
instance = 11
state_dir = "$dir/state"
run_dir = "/run/vmdaemon"
[server]
port = 18991
endpoint_port = 18992
[pool]
target = 1
END
ctl() { timeout 60 "$top_builddir/sandboxctl" --socket /run/vmdaemon/api.sock "$@"; }
if [ "$(ip route show default | wc -l)" = 0 ]; then
	ip link add out type dummy
	ip addr add 198.51.100.1/24 dev out
	ip link set out up
	ip route add default via 198.51.100.2
fi
"$top_builddir/sandboxd" --standalone --config "$dir/config" >"$dir/log" 2>&1 &
daemon=$!
for _ in $(seq 600); do
	grep -q '^sandboxd ready' "$dir/log" && break
	read -r -t 0.2 <> <(:)
done
says "the daemon is ready" "^sandboxd ready" cat "$dir/log"
says "a command in a sandbox of the host image" "hello from 0" ctl run -- sh -c 'echo hello from $(id -u)'
says "cgroup seen from inside is the root" "^0::/$" ctl run -- cat /proc/self/cgroup
says "the gateway answers pings" "1 received" ctl run -- ping -n -c 1 -W 2 169.254.1.1
ctl run -m 32m -- python3 -c 'x = bytearray(200 << 20)' >"$dir/out" 2>&1
code=$?
ok $((code != 137)) "a memory limit bites (exit code $code)"
says "doctor names version 2" "cgroup version 2" ctl doctor
id=$(ctl create -o json 2>"$dir/out" | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | head -n 1)
yes "create" test -n "$id"
yes "pause" ctl pause "$id"
says "it says Paused" Paused ctl inspect "$id"
yes "resume" ctl resume "$id"
says "and runs commands again" back ctl exec "$id" -- echo back
yes "rm" ctl rm "$id"
# an image's ACL, through this kernel's mapped mounts and overlay: its ids are those of the container
mkdir -p "$dir/acl/bin"
cp "$(command -v busybox)" "$dir/acl/bin/cat"
python3 - "$dir/acl/f" >"$dir/out" 2>&1 <<'END'
import os, struct, sys
open(sys.argv[1], "w").write("for 1234\n")
none = 0xffffffff
os.setxattr(sys.argv[1], "system.posix_acl_access", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in (
    (1, 6, none), (2, 4, 1234), (4, 0, none), (16, 4, none), (32, 0, none))))
END
yes "an image with an ACL" ctl image import "$dir/acl" acl:1
says "whom it names reads the file" "for 1234" ctl run --image acl:1 -u 1234:1234 -- /bin/cat /f
says "nobody else does" "ermission denied" ctl run --image acl:1 -u 1235:1235 -- /bin/cat /f
kill "$daemon"
wait "$daemon"
yes "purge" "$top_builddir/sandboxd" --purge --config "$dir/config"
says "no rule is left" '^0$' sh -c 'nft list ruleset | grep -c sandboxd; true'
[ -z "${VERBOSE:-}" ] || sed 's/^/# /' "$dir/log"
echo "1..$n"
