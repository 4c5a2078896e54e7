#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Egress policies end to end: a real daemon, a local name server, servers in a "world" of their own.  The contract's rows 1 to
# 30 and 124 to 127 over the wire, what a policy lets through, how fast it is changed, and that killing a process opens nothing.
suite=egress.py
# shellcheck source=tests/system/egress_lib.sh
. "$(dirname "$0")/egress_lib.sh"
