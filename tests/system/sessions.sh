#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Bash sessions of the execd API, over the wire: sessions.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18841
python_suite sessions.py "$run/api.sock"
