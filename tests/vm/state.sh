#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# State directories that a start refuses, and why it says so: NFS of this very machine, and what lies on it.
# shellcheck source=tests/vm/guest_lib.sh
. "$(dirname "$0")/guest_lib.sh"
default_route
STATE=/mnt/nfs/state write_config </dev/null
mkdir -p /mnt/nfs "$dir/export" /var/lib/nfs/rpc_pipefs /var/lib/nfs/v4recovery /proc/fs/nfsd
nfs_up() {
	modprobe -a nfsd nfs nfsv4 && mount -t nfsd nfsd /proc/fs/nfsd && : >/var/lib/nfs/etab && : >/var/lib/nfs/rmtab &&
		exportfs -o rw,no_root_squash,no_subtree_check,insecure,fsid=0 "127.0.0.1:$dir/export" && rpc.mountd -N 3 &&
		rpc.nfsd -N 3 -V 4 -H 127.0.0.1 1 && mount -t nfs4 -o vers=4.2,sec=sys 127.0.0.1:/ /mnt/nfs && mkdir -p /mnt/nfs/state
}
refused() { # refused NAME TEXT
	timeout 60 "$top_builddir/sandboxd" --standalone --config "$dir/config" >"$dir/out" 2>&1
	local code=$?
	[ $code != 0 ] && [ $code != 124 ] && grep -q "$2" "$dir/out"
	ok $? "$1 (exit code $code)"
}
if ! command -v exportfs >/dev/null || ! command -v mount.nfs >/dev/null; then
	ok 0 "state on NFS # SKIP no nfs-kernel-server (apt-get install nfs-kernel-server)"
elif nfs_up >"$dir/out" 2>&1; then
	is "$(stat -f -c %T /mnt/nfs)" nfs "the state directory is on NFS"
	refused "state on NFS is refused by name" "is on NFS\|lies on NFS"
	umount /mnt/nfs
	rpc.nfsd 0
else
	ok 1 "the guest serves NFS to itself"
fi
mkdir -p "$dir/lower" "$dir/upper" "$dir/w" "$dir/overlay"
mount -t overlay none -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/w" "$dir/overlay"
STATE=$dir/overlay/state write_config </dev/null
refused "state on overlay is refused by name" "is on overlay\|lies on overlay"
umount "$dir/overlay"
echo "1..$n"
