#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Streams, files and terminals of the execd API, over the wire: streams.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18851
python_suite streams.py "$run/api.sock" "$monitor"
