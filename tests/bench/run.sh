#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts the daemon that stands in the current directory, in a network namespace of its own, and measures it three times:
# as configured, with an empty pool, and with an image that has no bash.  Needs root.  BENCH_ROUNDS, BENCH_IDLE and BENCH_SECONDS change the size, BENCH_ONLY picks rows
# of the first (bench.c names them).
set -eu
build=$(pwd)
if [ "${BENCH_INSIDE:-}" != 1 ]; then
	[ "$(id -u)" = 0 ] || { echo "bench: needs root" >&2; exit 1; }
	BENCH_INSIDE=1 exec unshare --net -- "$0" "$@"
fi
ip link set lo up
rounds=${BENCH_ROUNDS:-300} idle=${BENCH_IDLE:-200} seconds=${BENCH_SECONDS:-20}
state=$(mktemp -d /var/tmp/sandboxd-bench.XXXXXX)
mkdir "$state/state" "$state/run"
chmod 755 "$state"
instance=${BENCH_INSTANCE:-11} pid=
run=$state/run

stop() {
	[ -z "$pid" ] || { kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; }
	pid=
	"$build/sandboxd" --purge --config "$state/config.toml" >> "$state.log" 2>&1 || true
}
trap 'stop; rm -rf "$state" "$state.log"' EXIT

start() { # $1: shells in the pool
	cat > "$state/config.toml" <<-CONFIG
		instance = $instance
		state_dir = "$state/state"
		run_dir = "$run"
		[server]
		port = 18931
		endpoint_port = 18932
		api_key = "bench"
		[pool]
		target = $1
	CONFIG
	: > "$state.log"
	"$build/sandboxd" --standalone --config "$state/config.toml" 2>> "$state.log" >> "$state.log" &
	pid=$!
	n=0
	until grep -q '^sandboxd ready' "$state.log"; do
		n=$((n + 1))
		[ $n -lt 300 ] || { tail "$state.log" >&2; exit 1; }
		sleep 0.1
	done
	n=0
	until pool_waits "$1"; do
		n=$((n + 1))
		[ $n -lt 300 ] || { echo "bench: the pool does not fill" >&2; tail "$state.log" >&2; exit 1; }
		sleep 0.1
	done
}
pool_waits() { # $1: so many shells are in the pool, as the broker's records say
	have=0
	for record in "$run"/slots/*/record; do
		[ -f "$record" ] || continue
		[ "$(od -An -tu4 -j32 -N4 "$record" | tr -d ' ')" != 2 ] || have=$((have + 1)) # BROKER_SLOT_SHELL
	done
	[ $have -ge "$1" ]
}
bench() {
	pids=$pid,$(pgrep -P "$pid" | paste -sd, -)
	"$build/tests/bench/bench" --host 127.0.0.1 --port 18931 --key bench --rounds "$rounds" --idle "$idle" --seconds "$seconds" --pids "$pids" "$@"
}

echo "$(uname -sr), $(nproc) processors, $(date -u +%Y-%m-%d)"
start 16
if [ -n "${BENCH_ONLY:-}" ]; then
	bench --only "$BENCH_ONLY"
	exit 0
fi
bench
"$build/tests/bench/bench_streams" --port 18931 --key bench --dir "$state" --rounds "${BENCH_STREAM_ROUNDS:-30}" --floor "$build/tests/bench/floor"
stop
start 0
bench --cold
stop
if busybox=$(command -v busybox); then # an image whose shell is not bash
	start 16
	mkdir -p "$state/tree/bin" && cp "$busybox" "$state/tree/bin/sh" && chmod 755 "$state/tree"
	for applet in tail true echo sleep; do ln -s sh "$state/tree/bin/$applet"; done
	"$build/sandboxctl" --socket "$run/api.sock" image import "$state/tree" sh > /dev/null
	bench --sh --image sh
	"$build/tests/bench/bench_streams" --port 18931 --key bench --dir "$state" --image sh --shell sh --only r --floor "$build/tests/bench/floor"
	stop
else
	echo "exec true (sh): not measured: no busybox-static"
fi
