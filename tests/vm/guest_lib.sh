# SPDX-License-Identifier: Apache-2.0
# For what runs inside a guest of tests/vm/vm.sh: checks, and a daemon of its own below $dir.  Sourced.
: "${top_builddir:=$PWD}" "${dir:=/mnt/disk}"
PATH=$PATH:/usr/sbin:/sbin
n=0
ok() {
	n=$((n + 1))
	if [ "$1" = 0 ]; then echo "ok $n - $2"; else echo "not ok $n - $2"; tail -n 20 "$dir/out" | sed 's/^/#   /'; fi
}
yes() { local name=$1; shift; "$@" >"$dir/out" 2>&1; ok $? "$name"; }
no() { local name=$1; shift; "$@" >"$dir/out" 2>&1; ok $(($? == 0)) "$name"; }
says() { local name=$1 want=$2; shift 2; "$@" >"$dir/out" 2>&1; grep -q -- "$want" "$dir/out"; ok $? "$name"; }
is() { [ "$1" = "$2" ]; local c=$?; [ $c = 0 ] || printf 'got %s\nwant %s\n' "$1" "$2" >"$dir/out"; ok $c "$3"; }
up() { sed 's/\..*//' /proc/uptime; }
# A command that becomes true is announced by nothing that a shell can wait for.
until_true() { # until_true SECONDS COMMAND...
	local end=$(($(up) + $1)) # not SECONDS: some tests set the clock
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(up)" -lt $end ] || return 1
		read -r -t 0.2 <> <(:) || :
	done
}
write_config() { # further lines on stdin; STATE names another state directory
	{
		printf 'instance = 11\nstate_dir = "%s"\nrun_dir = "/run/vmdaemon"\n' "${STATE:-$dir/state}"
		printf '[server]\nport = 18991\nendpoint_port = 18992\n[pool]\ntarget = 1\n'
		cat
	} >"$dir/config"
}
ctl() { timeout 60 "$top_builddir/sandboxctl" --socket /run/vmdaemon/api.sock "$@"; }
default_route() {
	[ "$(ip route show default | wc -l)" = 0 ] || return 0
	ip link add out type dummy
	ip addr add 198.51.100.1/24 dev out
	ip link set out up
	ip route add default via 198.51.100.2
}
ready_times() { grep -c '^sandboxd ready' "$dir/log"; }
ready_after() { [ "$(ready_times)" -gt "$1" ]; }
start_daemon() { # start_daemon [NAME=VALUE...]: ready, or false
	local before
	touch "$dir/log"
	before=$(ready_times)
	env "$@" "$top_builddir/sandboxd" --standalone --config "$dir/config" >>"$dir/log" 2>&1 &
	daemon=$!
	until_true 300 ready_after "$before" # the emulator loads the modules of nftables for a minute, and shares its machine
}
stop_daemon() {
	kill "$daemon"
	wait "$daemon"
}
create() { # create ARGUMENT...: the id
	ctl create -q "$@" 2>"$dir/out"
}
fault_points() { grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; }
