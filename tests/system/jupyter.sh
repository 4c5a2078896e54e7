#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Code contexts that a Jupyter server inside a sandbox runs: jupyter.py does the talking, once with a fake server that
# misbehaves and once with Debian's; then with an operator who wants none.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18843
rows=0
# suite ARG: one run of jupyter.py, whose rows go on counting
suite() {
	PYTHONDONTWRITEBYTECODE=1 python3 "$top_srcdir/tests/system/jupyter.py" "$run/api.sock" "$1" "$log" |
		awk -v n="$rows" -v count="$work/rows" '
			/^1\.\./ { next }
			/^(not )?ok / { n++; sub(/ok [0-9]+/, "ok " n) }
			{ print; fflush() }
			END { print n >count }'
	[ "${PIPESTATUS[0]}" = 0 ] || failed=1
	rows=$(cat "$work/rows")
}
suite servers
stop_daemon
write_config <<-END
	[server]
	port = 18843
	[code]
	backend = "native"
END
start_daemon || { echo "not ok $((rows + 1)) - the daemon starts again"; rows=$((rows + 1)) failed=1; }
suite native
echo "1..$rows"
exit "${failed:-0}"
