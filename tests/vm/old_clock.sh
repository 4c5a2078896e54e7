#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A machine whose clock stands before 2020 until somebody sets it.
# shellcheck source=tests/vm/guest_lib.sh
. "$(dirname "$0")/guest_lib.sh"
dir=/mnt/disk/clock
mkdir -p "$dir"
write_config </dev/null
default_route
now=$(date +%s)
date -s '2019-02-03 04:05:06' >/dev/null
yes "in 2019 the daemon starts" start_daemon
says "and warns" "before 2020" cat "$dir/log"
says "doctor says it too" "2019-02-03" ctl doctor
field() { ctl inspect "$1" -o json | sed -n "s/.*\"$2\": *\"\([^\"]*\)\".*/\1/p" | head -n 1; }
id=$(create --timeout 600)
short=$(create --timeout 60)
made=$(up)
says "a deadline is in 2019" "^2019-02-03T04:1" field "$id" expiresAt
says "a command runs" fine ctl exec "$id" -- echo fine
date -s "@$((now + 3600))" >/dev/null
read -r -t 2 <> <(:)
is "$(field "$id" state)" Running "the clock is set to now: the sandbox lives"
left=$(($(date -d "$(field "$id" expiresAt)" +%s) - $(date +%s)))
[ $left -gt 400 ] && [ $left -le 600 ]
ok $? "and its deadline went along ($left s are left)"
gone() { ! ctl inspect "$short"; }
is "$(field "$short" state)" Running "so does the one of a minute"
yes "which ends after its minute" until_true 120 gone
took=$(($(up) - made))
[ $took -ge 55 ] && [ $took -lt 115 ]
ok $? "and not earlier or much later ($took s)"
yes "renew" ctl renew "$id" 300
kill -9 "$daemon"
wait "$daemon" 2>/dev/null
read -r -t 1 <> <(:)
yes "after a restart" start_daemon
left=$(($(date -d "$(field "$id" expiresAt)" +%s) - $(date +%s)))
[ $left -gt 150 ] && [ $left -le 300 ]
ok $? "the deadline is the same ($left s are left)"
yes "rm" ctl rm "$id"
stop_daemon
"$top_builddir/sandboxd" --purge --config "$dir/config" >"$dir/out" 2>&1
ok $? "purge"
date -s "@$((now + 3700))" >/dev/null
echo "1..$n"
