#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# TypeScript contexts with a Node that takes types off by itself (22.13 or later).  Debian's is older, so one comes from npm, whose
# package is the published binary (52 MB); SANDBOXD_NODE names one that is there already.  typescript.py does the talking.
export top_srcdir=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd -P)} top_builddir=${top_builddir:-$PWD}
package=node-linux-$(uname -m | sed 's/x86_64/x64/; s/aarch64/arm64/')@22.23.3
skip_all() { echo "1..0 # SKIP $1"; exit 0; }
takes_types() { "$1" -e 'process.exit(require("module").stripTypeScriptTypes ? 0 : 1)' 2>/dev/null; }

if [ -z "${DAEMON_TEST_INSIDE:-}" ]; then
	[ "$(id -u)" = 0 ] || skip_all "needs root"
	at=$top_builddir/tests/e2e/node
	for SANDBOXD_NODE in "${SANDBOXD_NODE:-}" "$(command -v node)" "$at/package/bin/node"; do
		[ -x "$SANDBOXD_NODE" ] && takes_types "$SANDBOXD_NODE" && break
	done
	if ! takes_types "$SANDBOXD_NODE"; then
		command -v npm >/dev/null || skip_all "no Node of 22.13 or later, and no npm to get one (apt-get install npm)"
		mkdir -p "$at"
		(cd "$at" && timeout 240 npm pack --silent "$package" >npm.log 2>&1 && tar -xzf node-linux-*.tgz package/bin/node) ||
			skip_all "no Node of 22.13 or later, and npm cannot get one; see $at/npm.log"
		rm -f "$at"/node-linux-*.tgz
		SANDBOXD_NODE=$at/package/bin/node
		takes_types "$SANDBOXD_NODE" || skip_all "the Node of npm does not run here"
	fi
	export SANDBOXD_NODE
fi
. "$top_srcdir/tests/system/daemon_lib.sh"
python_daemon 18844
PYTHONPATH=$top_srcdir/tests/system python_suite ../e2e/typescript.py "$run/api.sock" "$SANDBOXD_NODE"
