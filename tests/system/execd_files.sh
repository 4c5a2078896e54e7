#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Files and metrics of the execd API, over the wire, row by row of the contract: execd_files.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18445
python_suite execd_files.py "$run/api.sock"
