# SPDX-License-Identifier: Apache-2.0
# For the system tests of the whole daemon: one sandboxd in a network namespace of its own, with an instance number, ids,
# subnet and directories that no installed daemon uses.  Sourced by bash.
# shellcheck source=tests/system/tap_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap_lib.sh"
if [ -z "${DAEMON_TEST_INSIDE:-}" ]; then
	DAEMON_TEST_INSIDE=1 exec unshare -n -- "$0" "$@"
fi
ip link set lo up
# shellcheck source=tests/system/busybox_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/busybox_lib.sh"
# shellcheck source=tests/system/instance_lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/instance_lib.sh"
[ -n "${instance:-}" ] || take_instance || exit 99
work=$(mktemp -d /var/tmp/sandboxd-test.XXXXXX)
run=$work/run state=$work/state log=$work/log fault=$work/fault
mkdir "$run" "$state"
chmod 755 "$work"
: >"$fault"
monitor=

# Repeats a command until it is true; what it waits for is announced by no descriptor that a shell can watch.
until_true() { # until_true SECONDS COMMAND...
	local end=$((SECONDS + 30 + $1)) # half a minute more than it should need: a machine that is shared may stand still
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		read -r -t 0.02 <>"$work/never" || :
	done
}
mkfifo "$work/never"

write_config() { # further lines on stdin
	{
		cat <<-EOF
		instance = $instance
		state_dir = "$state"
		run_dir = "$run"
		EOF
		cat
		printf '[isolation]\nslots = 64\n'
	} >"$work/config"
}
start_daemon() {
	local before
	before=$(grep -c '^sandboxd ready' "$log" 2>/dev/null)
	SBX_FAULT_FILE=$fault "$top_builddir/sandboxd" --standalone --config "$work/config" >>"$log" 2>&1 &
	monitor=$!
	until_true 60 ready_after "${before:-0}"
}
ready_after() { [ "$(grep -c '^sandboxd ready' "$log")" -gt "$1" ]; }
stop_daemon() {
	[ -z "$monitor" ] || kill "$monitor" 2>/dev/null
	[ -z "$monitor" ] || wait "$monitor"
	monitor=
}
child() { # child NAME: the pid of broker, sandboxd, gateway or dnsd
	sed -n "s/.*monitor: $1 started, pid \([0-9]*\)/\1/p" "$log" | tail -1
}
api() { # api METHOD PATH [BODY]: the body of the answer; its status goes to $work/status
	# A builtin writes the body: it may be longer than what one argument of a program may hold.
	[ -z "${3:-}" ] || printf '%s' "$3" >"$work/request"
	curl -s -m 30 --unix-socket "$run/api.sock" -o "$work/body" -w '%{http_code}' -X "$1" \
		-H 'content-type: application/json' ${3:+--data-binary "@$work/request"} "http://localhost$2" >"$work/status"
	cat "$work/body" 2>/dev/null
}
status() { cat "$work/status"; }
create() { # create [ENTRYPOINT-JSON] [MORE-MEMBERS]: the id
	api POST /v1/sandboxes "{\"image\":{\"uri\":\"host\"},\"timeout\":600,\"resourceLimits\":{\"memory\":\"128Mi\",\"cpu\":\"1\"},\
\"entrypoint\":${1:-[\"sleep\",\"600\"]}${2:+,$2}}" | id_of
}
make_with() { # make_with LIMITS-JSON [MORE-MEMBERS]: the answer
	api POST /v1/sandboxes "{\"image\":{\"uri\":\"host\"},\"timeout\":600,\"entrypoint\":[\"sleep\",\"600\"],\"resourceLimits\":$1${2:+,$2}}"
}
id_of() { sed -n 's/^{"id":"\([^"]*\)".*/\1/p'; }
ctl() { timeout 300 "$top_builddir/sandboxctl" --socket "$run/api.sock" "$@"; }
state_of() { api GET "/v1/sandboxes/$1" | sed -n 's/.*"state":"\([^"]*\)".*/\1/p'; }
field_of() { api GET "/v1/sandboxes/$1" | sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p"; }
count() { api GET '/v1/sandboxes?pageSize=1' | sed -n 's/.*"totalItems":\([0-9]*\).*/\1/p'; }
serving() { api GET /v1/sandboxes >/dev/null && [ "$(status)" = 200 ]; }
delete_all() {
	local id
	for id in $(api GET '/v1/sandboxes?pageSize=200' | grep -o '"id":"[^"]*"' | cut -d'"' -f4); do
		api DELETE "/v1/sandboxes/$id" >/dev/null
	done
}
key() { sed -n 's/.*/&/p' "$run/key"; }
execd() { # execd ID PATH [BODY]
	curl -s -m 30 --unix-socket "$run/api.sock" ${3:+-X POST -H 'content-type: application/json' -d "$3"} \
		"http://localhost/v1/sandboxes/$1/proxy/44772$2"
}
# Everything of this instance that a sandbox leaves behind when something forgets it; nothing when all is clean.
leftovers() {
	local base=$((0x78000000 - instance * 0x8000000)) d
	for d in /sys/fs/cgroup/*/sandboxd-$instance/s* /sys/fs/cgroup/sandboxd-$instance/s*; do
		[ -d "$d" ] && echo "group $d"
	done
	for d in "$state"/sandboxes/* "$state"/trash/*.*.*; do
		[ -e "$d" ] && echo "files $d"
	done
	# a root that was mounted ahead and that nobody took: its slot and a number
	for d in "$state"/trash/*.*; do
		[[ ${d##*/} =~ ^[0-9]{1,5}\.[0-9]+$ ]] && echo "root $d"
	done
	nsenter --net="$run/router" ip -o link 2>/dev/null | grep -o '[^ ]*@if[0-9]*' | grep -v "^sbx${instance}u\|^up" | sed 's/^/link /'
	ps -eo uid=,pid=,comm= | awk -v from="$((base - 0x10000))" -v to="$((base + 64 * 65536))" \
		'$1 >= from && $1 < to && $3 != "sandbox-broker" {print "process", $0}'
	[ "$(count)" = 0 ] || echo "rows $(count)"
}
clean() { [ -z "$(leftovers)" ]; }
cleanup() {
	[ -n "$monitor" ] && [ -d "/proc/$monitor" ] && : >"$fault" && delete_all
	stop_daemon
	"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1 || sed 's/^/# /' "$log" | tail -5
	[ $failed = 0 ] || sed 's/^/# /' "$log" | tail -40
	rm -rf "$work"
}
trap cleanup EXIT

# For suites that are written in Python: python_daemon PORT [HOST] starts a daemon or ends the test, python_suite FILE ARG... is its rest.
python_daemon() {
	command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
	write_config <<-END
	[server]
	port = $1
	host = "${2:-127.0.0.1}"
	END
	start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
}
python_suite() {
	local suite=$1
	shift
	PYTHONDONTWRITEBYTECODE=1 python3 "$top_srcdir/tests/system/$suite" "$@"
	failed=$?
	exit $failed
}
