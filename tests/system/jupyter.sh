#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Code contexts that a Jupyter server inside a sandbox runs: jupyter.py does the talking, once with a fake server that
# misbehaves and once with Debian's; then with an operator who wants none.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18843
export PYTHONDONTWRITEBYTECODE=1
python3 "$top_srcdir/tests/system/jupyter.py" "$run/api.sock" servers "$log" || failed=1
stop_daemon
write_config <<-END
[server]
port = 18843
[code]
backend = "native"
END
start_daemon || { echo "not ok - the daemon starts again"; exit 1; }
python3 "$top_srcdir/tests/system/jupyter.py" "$run/api.sock" native "$log" || failed=1
exit ${failed:-0}
