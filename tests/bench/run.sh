#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the daemon that stands in the current directory, in a network namespace of its own, and measures it three times:
# as configured, with an empty pool, and with an image that has no bash.  Needs root.  BENCH_ROUNDS, BENCH_IDLE and BENCH_SECONDS change the size.
set -eu
build=$(pwd)
if [ "${BENCH_INSIDE:-}" != 1 ]; then
	[ "$(id -u)" = 0 ] || { echo "bench: needs root" >&2; exit 1; }
	BENCH_INSIDE=1 exec unshare --net -- "$0" "$@"
fi
ip link set lo up
rounds=${BENCH_ROUNDS:-300} idle=${BENCH_IDLE:-200} seconds=${BENCH_SECONDS:-20}
state=$(mktemp -d /var/tmp/sandboxd-bench.XXXXXX)
instance=11 pid=
run=/run/sandboxd/$instance

stop() {
	[ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; }
	pid=
	"$build/sandboxd" purge --config "$state/config.toml" --state-dir "$state" > /dev/null 2>&1 || true
}
trap 'stop; rm -rf "$state"' EXIT

start() { # $1: shells in the pool
	cat > "$state/config.toml" <<-CONFIG
		instance = $instance
		[server]
		port = 18931
		endpoint_port = 18932
		api_key = "bench"
		[pool]
		target = $1
	CONFIG
	"$build/sandboxd" --standalone --config "$state/config.toml" --state-dir "$state" 2> "$state.log" &
	pid=$!
	n=0
	until "$build/sandboxctl" --url http://127.0.0.1:18931 --key bench version > /dev/null 2>&1; do
		n=$((n + 1))
		[ $n -lt 100 ] || { echo "bench: the daemon did not start; see $state.log" >&2; exit 1; }
		sleep 0.1
	done
}
bench() {
	pids=$(for p in sandboxd sandbox-broker sandbox-gateway sandbox-dnsd; do pgrep -x "$p" --nslist net --ns $$ || true; done | paste -sd,)
	"$build/tests/bench/bench" --host 127.0.0.1 --port 18931 --key bench --rounds "$rounds" --idle "$idle" --seconds "$seconds" --pids "$pids" "$@"
}

echo "$(uname -sr), $(nproc) processors, $(date -u +%Y-%m-%d)"
start 16
bench
stop
start 0
bench --cold
stop
