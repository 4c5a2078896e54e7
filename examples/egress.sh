#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# A first look at egress policies, with a daemon that runs on this host: what is allowed works, what is not is refused at once,
# and both you and the code inside can read why.  Needs root (or the owner of the socket) and sandboxctl; PYPI=name tries another.
set -eu
ctl=${SANDBOXCTL:-$(command -v sandboxctl || echo "$(dirname "$0")/../sandboxctl")}
name=${PYPI:-pypi.org}

echo "== a sandbox that may reach $name and nothing else"
id=$($ctl create -q --egress deny --allow "$name" --timeout 10m)
trap '$ctl rm "$id" >/dev/null 2>&1 || :' EXIT
$ctl egress get "$id"

echo
echo "== what code inside sees"
$ctl exec "$id" -- sh -c "
	getent ahostsv4 $name >/tmp/answer && head -n 1 /tmp/answer || echo 'no answer for $name (is this host online?)'
	getent ahostsv4 example.com || echo 'example.com: no such name'
	echo \"its own log, \$SANDBOX_DENIED_LOG:\"
	tail -n 2 \"\$SANDBOX_DENIED_LOG\""

echo
echo "== why, and what to do"
$ctl egress explain "$id" example.com:443 || :
$ctl egress explain "$id" "$name:22" || :

echo
echo "== opened while it runs, port 443 alone"
$ctl egress allow "$id" example.com --port 443
$ctl egress explain "$id" example.com:443 || :
