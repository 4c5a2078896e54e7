#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# network.allow_private: what is named opens, its neighbours stay closed, and some things never open.
# shellcheck source=tests/system/net_lib.sh
. "$(dirname "$0")/net_lib.sh"

world_up
for addr in 10.9.0.5 192.168.7.7 169.254.169.254; do serve_tcp "$world" $addr 80; ip route add $addr dev out; done
in_ns "$world" ip addr add 10.9.0.6/32 dev w0
ip route add 10.9.0.6 dev out
serve_tcp "$world" 10.9.0.6 80
ip addr add 10.50.0.1/32 dev out
ip addr add 10.50.0.2/32 dev out
serve_tcp $$ 10.50.0.1 80
serve_tcp $$ 10.50.0.2 80
serve_tcp $$ 198.51.100.1 80

# one address, one range that holds an address of the host, one address of the host, metadata, the sandboxes themselves
driver_start 10.9.0.5 10.50.0.0/16 10.50.0.1 169.254.0.0/16 10.231.0.0/16
is "${answer%% *}" ok "started with names that overlap"
sandbox a 0
sandbox b 1
serve_tcp "$b" 10.231.0.2 80
for addr in 10.9.0.5 10.9.0.6 192.168.7.7 10.50.0.1 10.50.0.2 198.51.100.1; do yes "$addr answers the host" reach $$ $addr 80; done
yes "a named private address is reached" reach "$a" 10.9.0.5 80
no "its neighbour is not" reach "$a" 10.9.0.6 80
no "another private range is not" reach "$a" 192.168.7.7 80
yes "an address of the host that is named is reached" reach "$a" 10.50.0.1 80
no "one that only lies in a named range is not" reach "$a" 10.50.0.2 80
no "nor one that is not named" reach "$a" 198.51.100.1 80
no "metadata never, named or not" reach "$a" 169.254.169.254 80
no "other sandboxes never, named or not" reach "$a" 10.231.0.2 80
tell purge
wait "$driver_pid" 2>/dev/null
done_testing
