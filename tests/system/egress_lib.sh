# SPDX-License-Identifier: Apache-2.0
# Sourced by the egress suites: namespaces, an instance number, and then the suite in Python, whose name is $suite.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
chmod 755 "$run" # the run directory is below it, and our processes have ids of their own
world_up
in_ns "$world" ip addr add 198.51.100.11/24 dev w0
in_ns "$world" ip addr add 8.8.8.8/32 dev w0
ip route add 10.9.0.5 dev out
# shellcheck source=tests/system/instance_lib.sh
. "$(dirname "$0")/instance_lib.sh"
take_instance || exit 99
EGRESS_INSTANCE=$instance EGRESS_WORLD=$world EGRESS_RUN=$run python3 "$top_srcdir/tests/system/$suite"
code=$?
cleanup
trap - EXIT
exit $code
