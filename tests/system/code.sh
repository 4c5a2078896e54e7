#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Code contexts of the execd API, over the wire, with the interpreters of this host: code.py does the talking.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
python_daemon 18842
python_suite code.py "$run/api.sock" "$log"
