#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Code contexts of the execd API, over the wire, with the interpreters of this host: code.py does the talking.
[ "$(id -u)" = 0 ] || { echo "1..0 # SKIP needs root"; exit 0; }
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
trap cleanup EXIT
write_config <<-EOF2
	[server]
	port = 18842
EOF2
start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
PYTHONDONTWRITEBYTECODE=1 python3 "$top_srcdir/tests/system/code.py" "$run/api.sock" "$log"
failed=$?
exit $failed
