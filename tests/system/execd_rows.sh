#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Rows of the execd contract (doc/execd-rows.md), over the wire and to the byte: execd_rows.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
host=127.0.0.1
grep -q ' lo$' /proc/net/if_inet6 2>/dev/null && host=::
python_daemon 18861 $host
python_suite execd_rows.py "$run/api.sock" 18861
