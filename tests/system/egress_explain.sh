#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What explain says is what happens: a table of policies and attempts, each made from inside a sandbox and asked of the API.
# Then what is told of the time while sandboxd was away, and starts with files of the operator that do not read.
suite=egress_explain.py
# shellcheck source=tests/system/egress_lib.sh
. "$(dirname "$0")/egress_lib.sh"
