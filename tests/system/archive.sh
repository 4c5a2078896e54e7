#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Images that come and go as archives: OCI layouts and docker save in all their forms, hostile ones, exports, and round trips
# through skopeo, umoci and buildah (archive.py).
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || { echo "1..0 # SKIP no busybox (apt-get install busybox-static)"; exit 0; }
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
config() { # config EXPORT-STALL-SECONDS
	write_config <<-TOML
		[server]
		port = 0
		[pool]
		target = 2
		[images]
		max_unpacked_bytes = 134217728
		gc_high_percent = 0
		export_stall_seconds = $1
	TOML
}
suite() { PYTHONDONTWRITEBYTECODE=1 FIRST=$(cat "$work/count") python3 "$top_srcdir/tests/system/archive.py" "$@" || failed=1; }
config "$([ "${1:-}" = stalled ] && echo 1 || echo 300)"
start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
export SANDBOXD_SOCKET=$run/api.sock WORK=$work FAULT=$fault LOG=$log RUN=$run STATE=$state BUILD=$top_builddir
echo 0 >"$work/count"
suite "$@"
if [ $# = 0 ]; then
	# so short only here: a machine that stands still would break off the others
	stop_daemon
	config 1
	start_daemon
	suite stalled
fi
echo "1..$(cat "$work/count")"
exit "$failed"
