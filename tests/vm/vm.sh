#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs one command as root inside a stock Debian kernel, emulated by qemu: pure cgroup version 2, every capability, file systems
# with project quotas.  For what the kernel of the build machine cannot show; functions only, times mean nothing here.
#
#   tests/vm/vm.sh [-t SECONDS] [-m MIB] [-d DISK] [-c] [-v] COMMAND [ARGUMENT]...
#
# The guest sees this machine's files under the same paths: its root is an overlay of the host's root (9p, read-only) below a
# tmpfs, so what it writes is gone afterwards.  /tmp, /run and /dev/shm are fresh ($SBX_VM_SHARE, default the current
# directory, is there even below /tmp); /mnt/disk is an empty ext4 with project quotas, or what an earlier guest left in the
# file DISK.  -c cuts the power behind the command: what nobody wrote to the disk by then is lost.
# The command starts in the current directory; its output and exit code are ours.  124: out of time, 125: the guest failed,
# 77: something that is needed is not installed (the last line on stderr names it).
#
# The kernel's package is fetched once with apt-get and kept in $SBX_VM_CACHE (default: ~/.cache/sandboxd-vm).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
seconds=600 memory=2048 loud= disk= cut=
while getopts t:m:d:cv option; do
	case $option in
	t) seconds=$OPTARG ;;
	m) memory=$OPTARG ;;
	d) disk=$OPTARG ;;
	c) cut=1 ;;
	v) loud=1 ;;
	*) exit 125 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo "vm: no command" >&2; exit 125; }

lacks() {
	echo "vm: no $1 (apt-get install qemu-system-x86 busybox-static kmod cpio xz-utils e2fsprogs)" >&2
	exit 77
}
for tool in qemu-system-x86_64 busybox modprobe cpio xz mkfs.ext4; do
	command -v "$tool" >/dev/null || lacks "$tool"
done
[ "$(id -u)" = 0 ] || { echo "vm: needs root" >&2; exit 77; }

package=${SBX_VM_KERNEL:-linux-image-amd64}
cache=${SBX_VM_CACHE:-$HOME/.cache/sandboxd-vm}/$package
modules_needed="virtio_pci virtio_console virtio_blk 9pnet_virtio 9p overlay ext4"

# A little-endian number of the boot header of a bzImage: offset, bytes.
boot_number() {
	od -An -tu"$3" -j"$2" -N"$3" "$1" | tr -d ' '
}

# The emulator would spend seconds on decompressing: take the ELF image out of the bzImage here.
unpack_kernel() {
	local image=$1 out=$2 start length packed
	start=$((($(boot_number "$image" 497 1) + 1) * 512 + $(boot_number "$image" 584 4)))
	length=$(boot_number "$image" 588 4)
	packed=$(dirname "$out")/packed
	tail -c +$((start + 1)) "$image" | head -c "$length" >"$packed" || true
	# xz and zstd complain about the length that the kernel appends; what counts is whether an ELF image came out.
	xz -dc --single-stream "$packed" >"$out" 2>/dev/null || zstd -dc "$packed" >"$out" 2>/dev/null ||
		lz4 -dc "$packed" >"$out" 2>/dev/null || true
	rm "$packed"
	[ "$(head -c 4 "$out" | tr -d '\177')" = ELF ]
}

make_initrd() {
	local work=$1 version=$2 tree=$1/initrd.tree name file
	mkdir -p "$tree"/{bin,modules,new,proc,dev}
	cp "$(command -v busybox)" "$tree/bin/busybox"
	for name in $modules_needed; do
		modprobe -d "$work/files" -S "$version" --show-depends "$name"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
		cp "$file" "$tree/modules/"
		echo "/bin/busybox insmod /modules/${file##*/}"
	done >"$tree/load"
	cat >"$tree/init" <<-'END'
		#!/bin/busybox sh
		b=/bin/busybox
		fail() { $b echo "vm: $1"; $b poweroff -f; }
		$b mount -t proc none /proc
		. /load
		$b mkdir /host /top
		nine=trans=virtio,version=9p2000.L,msize=512000
		$b mount -t 9p -o ro,cache=loose,$nine host /host || fail "no host files"
		$b mount -t tmpfs -o size=70% none /top
		$b mkdir /top/upper /top/work
		$b mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work none /new || fail "no root"
		$b mount -t tmpfs none /new/run
		$b mkdir /new/run/vm
		$b mount -t 9p -o cache=none,$nine exchange /new/run/vm || fail "no exchange directory"
		$b umount /proc
		exec $b switch_root /new /bin/bash /run/vm/boot
	END
	sed -i '1s|.*|#!/bin/busybox sh|' "$tree/init"
	chmod +x "$tree/init"
	(cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
	rm -rf "$tree"
}

build_cache() {
	local work=$cache.new real version
	rm -rf "$work"
	mkdir -p "$work/files"
	real=$(apt-cache depends "$package" 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
	(cd "$work" && apt-get -qq download -o APT::Sandbox::User=root "${real:-$package}") ||
		{ echo "vm: cannot fetch $package (apt-get update?)" >&2; exit 77; }
	dpkg-deb -x "$work"/*.deb "$work/files"
	rm "$work"/*.deb
	[ -e "$work/files/lib" ] || ln -s usr/lib "$work/files/lib"
	version=$(basename "$work"/files/boot/vmlinuz-*)
	version=${version#vmlinuz-}
	rm -rf "$work/files/lib/modules/$version/kernel"/{sound,drivers/{gpu,media,infiniband,iio,staging,scsi,usb,hwmon,input,mfd}}
	depmod -b "$work/files" "$version"
	unpack_kernel "$work/files/boot/vmlinuz-$version" "$work/kernel" || { echo "vm: cannot unpack the kernel" >&2; exit 125; }
	make_initrd "$work" "$version"
	mv "$work/files/lib/modules" "$work/modules"
	rm -rf "$work/files"
	echo "$version" >"$work/version"
	rm -rf "$cache"
	mv "$work" "$cache"
}

mkdir -p "$(dirname "$cache")"
exec 9>"$cache.lock"
flock 9
[ -s "$cache/version" ] || build_cache
exec 9>&-
version=$(cat "$cache/version")

dir=$(mktemp -d)
qemu=
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM HUP

{
	export -p
	printf 'cd %q || exit 125\nexec' "$PWD"
	printf ' %q' "$@"
	echo
} >"$dir/command"
{
	printf 'version=%q modules=%q share=%q\n' "$version" "/run/whole$(readlink -f "$cache")/modules" "${SBX_VM_SHARE:-$PWD}"
	printf 'cut=%q\n' "$cut"
	cat <<-'END'
		export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
		exec </dev/null
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t devtmpfs dev /dev
		mkdir -p /dev/pts /dev/shm /run/lock /mnt/disk /lib/modules
		mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
		mount -t tmpfs shm /dev/shm
		mkdir /run/whole
		mount --bind / /run/whole
		mount -t tmpfs -o mode=1777 tmp /tmp
		case $share in /tmp/*)
			mkdir -p "$share"
			mount --bind "/run/whole$share" "$share" ;;
		esac
		for link in fd: stdin:/0 stdout:/1 stderr:/2; do ln -sfn "/proc/self/fd${link#*:}" "/dev/${link%:*}"; done
		mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
		rm -rf "/lib/modules/$version"
		ln -s "$modules/$version" "/lib/modules/$version"
		modprobe tun # what udev would make of its alias: /dev/net/tun
		mount -o prjquota /dev/vda /mnt/disk
		ip link set lo up
		until [ -e /dev/vport1p2 ] || compgen -G '/dev/vport*p2' >/dev/null; do udevadm settle 2>/dev/null || read -rt 0.02 <> <(:) || :; done
		setsid -w bash /run/vm/command >$(compgen -G '/dev/vport*p1') 2>$(compgen -G '/dev/vport*p2')
		echo $? >/run/vm/code
		[ -n "$cut" ] || sync
		if [ -n "$cut" ]; then echo b; else echo o; fi >/proc/sysrq-trigger
		read -r <> <(:)
	END
} >"$dir/boot"

disk=${disk:-$dir/disk}
if [ ! -s "$disk" ]; then
	truncate -s 4G "$disk"
	mkfs.ext4 -qF -O quota,project -E lazy_itable_init=1,lazy_journal_init=1 "$disk"
fi
mkfifo "$dir/out" "$dir/err"
cat "$dir/out" &
cat "$dir/err" >&2 &
exec 7<>"$dir/out" 8<>"$dir/err"
nine() {
	echo "-fsdev local,id=$1,path=$2,security_model=none,multidevs=remap$3 -device virtio-9p-pci,fsdev=$1,mount_tag=$1"
}
# shellcheck disable=SC2046 # the words of nine() are options
timeout --foreground -k 5 "$seconds" qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -machine q35 \
	-accel tcg,thread=multi,tb-size=512 -cpu max -m "$memory" -smp 2 -kernel "$cache/kernel" -initrd "$cache/initrd" \
	-serial "file:$dir/console" $(nine host / ,readonly=on) $(nine exchange "$dir" "") \
	-drive "if=virtio,format=raw,cache=unsafe,file=$disk" -device virtio-serial-pci \
	-chardev "file,id=out,path=$dir/out" -device virtserialport,nr=1,chardev=out \
	-chardev "file,id=err,path=$dir/err" -device virtserialport,nr=2,chardev=err \
	-append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check cgroup_no_v1=all psi=1" \
	</dev/null 7>&- 8>&- &
qemu=$!
status=0
wait "$qemu" || status=$?
qemu=
exec 7>&- 8>&-
wait
[ -z "$loud" ] || cat "$dir/console" >&2
[ ! -s "$dir/code" ] || exit "$(cat "$dir/code")"
if [ "$status" = 124 ] || [ "$status" = 137 ]; then
	echo "vm: no end after $seconds s" >&2
	exit 124
fi
echo "vm: the guest ended without a result (qemu: $status)" >&2
tail -20 "$dir/console" >&2
exit 125
