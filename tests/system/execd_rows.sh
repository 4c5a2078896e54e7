#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Rows of the execd contract (doc/execd-rows.md), over the wire and to the byte: execd_rows.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
host=127.0.0.1
grep -q ' lo$' /proc/net/if_inet6 2>/dev/null && host=::
printf '[server]\nport = 18861\nhost = "%s"\n' $host | write_config
start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
python_suite execd_rows.py "$run/api.sock" 18861
