#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Streams, files and terminals of the execd API, over the wire: streams.py does the talking.
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
trap cleanup EXIT
write_config <<-EOF2
	[server]
	port = 18851
EOF2
start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
PYTHONDONTWRITEBYTECODE=1 python3 "$top_srcdir/tests/system/streams.py" "$run/api.sock" "$monitor"
failed=$?
exit $failed
