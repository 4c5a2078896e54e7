#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The gate of TLS names: one address, several names, and what a sandbox can say to get the other one.
suite=egress_gate.py
# shellcheck source=tests/system/egress_lib.sh
. "$(dirname "$0")/egress_lib.sh"
