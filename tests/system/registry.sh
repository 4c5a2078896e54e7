#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Images from registries: a fake one that misbehaves in every way that has a name (registry.py), then Debian's docker-registry
# without login, with htpasswd, and with TLS of a private CA, filled by skopeo.  All in a network namespace of its own.
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
[ -x /bin/busybox ] || [ -x /usr/bin/busybox ] || { echo "1..0 # SKIP no busybox (apt-get install busybox-static)"; exit 0; }
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
here=$(cd "$top_srcdir" && pwd)/tests
# an address that is not this machine's own loopback: less is allowed for what stands there
ip addr add 10.9.9.9/32 dev lo
mkdir -p "$work/certs.d"
write_config <<-TOML
	[server]
	port = 0
	endpoint_port = 0
	[images]
	stall_seconds = 2
	retries = 3
	ca_dir = "$work/certs.d"
	auth_file = "$work/auth.json"
	insecure_registries = ["10.9.9.9:5003", "proxied.test:5005"]
	mirrors = ["mirrored.test=127.0.0.1:5009", "mirrored.test=127.0.0.1:5001"]
TOML
start_daemon || { echo "1..1"; echo "not ok 1 - the daemon starts"; exit 1; }
export SANDBOXD_SOCKET=$run/api.sock WORK=$work FAULT=$fault LOG=$log RUN=$run STATE=$state BUILD=$top_builddir
export PYTHONDONTWRITEBYTECODE=1
python3 "$here/system/registry.py" "$@" || failed=1
stop_daemon
export http_proxy=http://127.0.0.1:5001
start_daemon
unset http_proxy
FIRST=$(cat "$work/count") BEHIND_PROXY=1 python3 "$here/system/registry.py" || failed=1
echo "1..$(cat "$work/count")"
exit $failed
