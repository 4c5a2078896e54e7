#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Starts a daemon of its own (free instance number, own state directory, own network namespace), drives the released JavaScript
# SDK against it, stops it, and looks for what stayed behind.  Needs root, node >= 20 and, the first time, npm.
set -u
here=$(cd "$(dirname "$0")" && pwd -P)
build=${top_builddir:-$PWD}
skip_all() { echo "1..0 # SKIP $1"; exit 0; }

if [ -z "${SANDBOXD_E2E_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	command -v node >/dev/null || skip_all "no node (apt-get install nodejs)"
	[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip_all "node is older than 20"
	modules=${SANDBOXD_E2E_MODULES:-$build/tests/e2e}
	if [ ! -d "$modules/node_modules/@alibaba-group/opensandbox" ]; then
		command -v npm >/dev/null || skip_all "no npm to install the SDK with (apt-get install npm)"
		mkdir -p "$modules"
		cp "$here/package.json" "$modules/"
		npm install --prefix "$modules" --no-audit --no-fund --ignore-scripts >"$modules/npm.log" 2>&1 ||
			skip_all "npm cannot install the SDK; see $modules/npm.log"
	fi
	[ -x "$build/sandboxd" ] || skip_all "no sandboxd in $build"
	# the test's traffic cannot leave: a network namespace with nothing but loopback (/sys stays as it is)
	SANDBOXD_E2E_INSIDE=1 SANDBOXD_E2E_MODULES=$modules exec unshare -n -- "$0" "$@"
fi
ip link set lo up || { echo "1..0 # SKIP no loopback"; exit 0; }
. "$here/../system/instance_lib.sh"
take_instance || exit 99

work=$(mktemp -d /var/tmp/sandboxd-e2e.XXXXXX)
chmod 755 "$work"
printf 'instance = %s\nstate_dir = "%s/state"\n[server]\nport = 8080\nendpoint_port = 8081\n[isolation]\nslots = 32\n[pool]\ntarget = 2\n' \
	$instance "$work" >"$work/sandboxd.toml"
run_dir=/run/sandboxd/$instance
tap=$work/tap
monitor=

# Whatever carries the instance: cgroups, mounts, links, processes.
leftovers() {
	find /sys/fs/cgroup -maxdepth 4 -type d -name "sandboxd-$instance" 2>/dev/null | while read -r dir; do
		find "$dir" -mindepth 1 -type d
	done | sed 's/^/cgroup /'
	grep -F " $work/" /proc/self/mountinfo | sed 's/^/mount /'
	ip -o link | grep -oE "sbx${instance}[a-z0-9]*" | sed 's/^/link /'
	for pid in /proc/[0-9]*; do
		case $(readlink "$pid/exe" 2>/dev/null) in
		"$build"/sandbox*) echo "process ${pid#/proc/} $(tr '\0' ' ' <"$pid/cmdline" 2>/dev/null)" ;;
		esac
	done
	find "$work/state/sandboxes" -mindepth 1 -maxdepth 1 2>/dev/null | sed 's/^/directory /'
}

stop() {
	[ -n "$monitor" ] && kill -TERM "$monitor" 2>/dev/null && wait "$monitor" 2>/dev/null
	monitor=
}
# shellcheck disable=SC2329
finish() {
	stop
	# somebody else's instance: nothing of it is ours to remove
	if grep -q 'is in use by another sandboxd' "$work/log" 2>/dev/null; then
		rm -rf "$work"
		return
	fi
	"$build/sandboxd" --purge --config "$work/sandboxd.toml" >>"$work/log" 2>&1
	rm -rf "$work" "$run_dir"
}
trap finish EXIT

"$build/sandboxd" --standalone --config "$work/sandboxd.toml" </dev/null >"$work/log" 2>&1 &
monitor=$!
up=0
for _ in $(seq 300); do
	kill -0 "$monitor" 2>/dev/null || break
	if grep -q '^sandboxd ready' "$work/log"; then
		up=1
		break
	fi
	sleep 0.1
done
if [ $up = 0 ]; then
	sed 's/^/# /' "$work/log"
	printf 'not ok 1 - the daemon starts\n1..1\n'
	exit 1
fi

cp "$here/sdk.test.mjs" "$here/reporter.mjs" "$work/"
ln -s "$SANDBOXD_E2E_MODULES/node_modules" "$work/node_modules"
# node 20 keeps a suite's timer after its last test, and with it the process, for the whole timeout
force_exit=$(node --help | grep -o -m1 -e '--test-force-exit')
(cd "$work" && SANDBOXD_URL=http://127.0.0.1:8080 SANDBOXD_KEY=$(cat "$run_dir/key") timeout 600 \
	node --test ${force_exit:+"$force_exit"} --test-reporter=./reporter.mjs --test-timeout=240000 sdk.test.mjs) >"$tap" 2>"$work/node.err"
code=$?
grep -v '^1\.\.' "$tap"
[ $code = 0 ] || sed 's/^/# /' "$work/node.err"
n=$(grep -cE '^(not )?ok ' "$tap")
[ $code = 0 ] || [ "$n" -gt 0 ] || tail -n 30 "$work/log" | sed 's/^/# /'
bad=$(grep -c '^not ok ' "$tap")
[ "$bad" = 0 ] || tail -n 40 "$work/log" | sed 's/^/# log: /'

# The backlog of removals is bounded and is worked off by children: give it a moment, then compare.
# What is left then are the two prepared shells of the pool.
for _ in $(seq 100); do
	after=$(leftovers)
	[ "$(printf '%s\n' "$after" | grep -c '^directory')" -le 2 ] && break
	sleep 0.1
done
stop
"$build/sandboxd" --purge --config "$work/sandboxd.toml" >>"$work/log" 2>&1
purged=$(leftovers | grep -v '^directory') # the state directory is the user's; a next start empties it
n=$((n + 1))
if [ "$(printf '%s\n' "$after" | grep -c '^directory')" -le 2 ]; then
	echo "ok $n - nothing of a deleted sandbox stays beside the pool's shells"
else
	echo "not ok $n - nothing of a deleted sandbox stays beside the pool's shells"
	printf '%s\n' "$after" | sed 's/^/# /'
	bad=1
fi
n=$((n + 1))
if [ -z "$purged" ]; then
	echo "ok $n - after a purge no cgroup, mount, link or process of the instance stays"
else
	echo "not ok $n - after a purge no cgroup, mount, link or process of the instance stays"
	printf '%s\n' "$purged" | sed 's/^/# /'
	tail -n 20 "$work/log" | sed 's/^/# log: /'
	bad=1
fi
echo "1..$n"
[ "$bad" = 0 ] && [ $code = 0 ]
