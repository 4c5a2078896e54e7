# SPDX-License-Identifier: Apache-2.0
# For the network tests: a "host" and a "world" in namespaces of their own, the driver, and sandboxes that are plain
# `unshare -n` children.  Sourced.  Everything runs inside one private network and mount namespace, so the machine's own
# network and /run are not touched.
#
#   world: 198.51.100.10 (internet), 10.9.0.5 (private), 169.254.169.254 (metadata), all on one veth
#   host:  198.51.100.1, default route to the world
# shellcheck source=tests/system/tap_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap_lib.sh"
if [ -z "${NET_TEST_INSIDE:-}" ]; then
	NET_TEST_INSIDE=1 exec unshare -n -m -- "$0" "$@"
fi
driver=$top_builddir/tests/system/net_driver
run=$(mktemp -d)
children=()

yes() { local name=$1; shift; "$@" >"$run/last" 2>&1; local code=$?; ok $code "$name"; [ $code = 0 ] || sed 's/^/#   /' "$run/last"; }
no() { local name=$1; shift; "$@" >"$run/last" 2>&1; local code=$?; ok $((code == 0)) "$name"; [ $code != 0 ] || sed 's/^/#   /' "$run/last"; }
cleanup() {
	[ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null
	umount -l "$run/router" 2>/dev/null
	rm -rf "$run"
}
trap cleanup EXIT

# A process that holds a namespace; its first byte tells that the namespace is there.
hold() {
	local ready
	exec {ready}< <(exec unshare -n -- sh -c 'echo; exec sleep 600' </dev/null)
	read -r -u "$ready" _
	held=$!
	exec {ready}<&-
	children+=("$held")
}
in_ns() { local pid=$1; shift; nsenter -t "$pid" -n -- "$@"; }

world_up() {
	ip link set lo up
	hold
	world=$held
	ip link add out type veth peer name w0 netns "$world"
	ip addr add 198.51.100.1/24 dev out
	ip link set out up
	in_ns "$world" sh -c 'ip link set lo up; ip link set w0 up; ip addr add 198.51.100.10/24 dev w0; ip addr add 10.9.0.5/32 dev w0
		ip addr add 169.254.169.254/32 dev w0; ip addr add 192.168.7.7/32 dev w0; ip addr add 100.64.1.1/32 dev w0'
	ip route add default via 198.51.100.10
}

driver_start() { # driver_start ALLOW...
	coproc DRIVER { exec "$driver" "$run" nettest 10.231.0.0/16 "$@" 2>"$run/driver.err"; }
	driver_pid=$!
	driver_in=${DRIVER[1]} driver_out=${DRIVER[0]}
	read -r -t 20 -u "$driver_out" answer
	uplink=${answer#ok ready }
	case $answer in "ok ready "*) ;; *) echo "# driver: $answer $(cat "$run/driver.err")" ;; esac
}
tell() { # tell COMMAND: the answer is in $answer
	echo "$*" >&"$driver_in"
	read -r -t 20 -u "$driver_out" answer || answer="no answer"
}
driver_stop() { # by end of input: nothing is purged, as when the broker dies
	eval "exec $driver_in>&-"
	wait "$driver_pid" 2>/dev/null
}

# sandbox NAME SLOT: sets NAME to the pid and NAME_if to the index of its link
generation=100
sandbox() {
	hold
	generation=$((generation + 1))
	printf -v "$1" %s "$held"
	tell attach "$held" "$generation" "$2"
	case $answer in
	"ok "*) set -- "$1" $answer; printf -v "$1_if" %s "$3" ;;
	*) echo "# attach: $answer" ;;
	esac
}

# TCP and UDP checks with bash itself.
serve_tcp() { # serve_tcp PID ADDR PORT: echoes "hello" to each connection
	nsenter -t "$1" -n -- python3 -c '
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((sys.argv[1], int(sys.argv[2]))); s.listen(64); print("up", flush=True)
while True:
    c, a = s.accept(); c.sendall(b"hello " + a[0].encode() + b"\n"); c.close()' "$2" "$3" >"$run/served" 2>&1 &
	children+=($!)
	until [ -s "$run/served" ]; do read -r -t 0.02 <> <(:); done
	: >"$run/served"
}
reach() { # reach PID ADDR PORT: prints what the server says
	timeout 3 nsenter -t "$1" -n -- bash -c 'exec 3<>/dev/tcp/$0/$1 && cat <&3' "$2" "$3"
}
pings() { in_ns "$1" ping -n -c 1 -W 1 "$2"; }
