#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Disk limits from the request to the write: what a client sees, on every kind of state directory.  tests/system/disk_limits.c has
# what fills disks.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
# Bytes that dd could write into $2 of sandbox $1.
fills() { ctl exec "$1" -- sh -c "dd if=/dev/zero of=$2/fill bs=1M count=200 2>/dev/null; stat -c %s $2/fill; rm $2/fill"; }
between() { # between LEAST MOST VALUE NAME
	[ -n "$3" ] && [ "$3" -ge "$1" ] && [ "$3" -le "$2" ]
	ok $? "$4 ($3)"
}
finish() {
	stop_daemon
	"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1
}
config() { # config LINES-OF-LIMITS [LINES-OF-STORAGE]
	write_config <<-END
		[server]
		port = 0
		[pool]
		target = 1
		disks = 1
		[limits]
		$1
		[storage]
		${2:-}
	END
}

config 'disk_backend = "none"'
start_daemon
ok $? "a daemon that can keep no disk limit starts"
body=$(make_with '{"disk":"64Mi"}')
is "$(status)" 400 "who asks for a limit is refused: $body"
[[ $body == *HOST_LACKS* && $body == *disk_backend* ]]
ok $? "by name, with the reason"
body=$(make_with '{}' '"volumes":[{"name":"v","mountPath":"/v","pvc":{"claimName":"v","storage":"32Mi"}}]')
is "$(status)" 400 "a volume with a size too: $body"
finish

config 'default_disk = "64Mi"' 'volume_default_size = "32Mi"'
start_daemon
ok $? "a daemon with defaults starts"
first=$(make_with '{"disk":"48Mi"}')
if [[ $first == *HOST_LACKS* ]]; then
	echo "ok $((tests + 1)) - disk limits # SKIP $first"
	tests=$((tests + 1))
	finish
	done_testing
fi
id=$(id_of <<<"$first")
[ -n "$id" ]
ok $? "a sandbox with a limit: $first"
between $((30 << 20)) $((48 << 20)) "$(fills "$id" /root)" "it writes no more than that"
between $((30 << 20)) $((48 << 20)) "$(fills "$id" /tmp)" "nor elsewhere"
ctl exec "$id" -- bash -c 'dd if=/dev/zero of=/root/half bs=1M count=20 2>/dev/null; sync'
text=$(api GET "/v1/sandboxes/$id/diagnostics/inspect")
[[ $text == *"disk         48 MiB"* && $text == *" of 48 MiB, "* ]]
ok $? "inspect tells the limit and what is used: $(grep disk <<<"$text" | tr '\n' ' ')"
metrics=$(ctl exec "$id" -- true && api GET "/v1/sandboxes/$id/proxy/44772/metrics")
[[ $metrics == *'"disk_total_mib":48,'* && $metrics == *'"disk_used_mib":2'* ]]
ok $? "metrics too: $metrics"
plain=$(make_with '{}' | id_of)
between $((40 << 20)) $((64 << 20)) "$(fills "$plain" /root)" "one that names no limit has the default"
for wrong in '"0.5Mi"' '"many"' '"-1"' '"900000Ei"' '"8Pi"'; do
	body=$(make_with "{\"disk\":$wrong}")
	is "$(status)" 400 "disk $wrong is refused: $body"
done
body=$(make_with '{"ephemeral-storage":"1Mi"}')
is "$(status)" 400 "so is ephemeral-storage: $body"

volume='"volumes":[{"name":"v","mountPath":"/v","pvc":{"claimName":"kept"CLAIM}}]'
one=$(make_with '{}' "${volume/CLAIM/}" | id_of)
between $((20 << 20)) $((32 << 20)) "$(fills "$one" /v)" "a volume without a size has the configured one"
ctl exec "$one" -- bash -c 'echo kept >/v/file'
body=$(make_with '{}' "${volume/CLAIM/,\"storage\":\"16Mi\"}")
two=$(id_of <<<"$body")
is "$(ctl exec "$two" -- cat /v/file)" kept "one that wants less of it gets it"
body=$(make_with '{}' "${volume/CLAIM/,\"storage\":\"40Mi\"}")
[[ $(status) == 409 && $body == *VOLUME::SIZE* || $(status) == 202 ]]
ok $? "who wants more than it has is refused by name, or it grows: $body"
ctl volume create --size 24m third >"$work/out" 2>&1
ok $? "a volume with a size from the command line: $(cat "$work/out")"
api DELETE "/v1/sandboxes/$one" >/dev/null
api DELETE "/v1/sandboxes/$two" >/dev/null

# As many files as there may be, of the smallest kind; the daemon answers while they go.
many=$(make_with '{"disk":"64Mi"}' | id_of)
says=$(ctl exec "$many" -- bash -c 'mkdir /root/d && cd /root/d && n=0; while : 2>/dev/null >$n; do n=$((n + 1)); done; echo made $n; echo more >/root/more' 2>&1)
made=$(sed -n 's/^made //p' <<<"$says")
between 3000 4096 "$made" "files end where the limit of inodes says"
[[ $says == *"/root/more: No space left on device"* || $says == *"/root/more: Disk quota exceeded"* ]]
ok $? "and that is told: $(tail -n 1 <<<"$says")"
api DELETE "/v1/sandboxes/$many" >/dev/null
is "$(status)" 204 "the sandbox is deleted"
api GET /health >/dev/null
is "$(status)" 200 "the daemon answers"
trash_empty() { [ -z "$(find "$state/trash" -mindepth 1)" ]; }
until_true 60 trash_empty
ok $? "and all of it goes"

# An image of what lies on a disk of its own.
if busybox_tree "$work/tree" sh cat sleep rm mkdir ln dd stat test; then
	mkdir "$work/tree/old"
	echo base >"$work/tree/text"
	ctl image import "$work/tree" base:1 >"$work/out" 2>&1
	ok $? "an image: $(cat "$work/out")"
	from=$(ctl create -q --image base:1 --disk 32m -- sleep 600)
	ctl exec "$from" -- sh -c 'echo new >/new && ln /new /hard && rm -r /old && echo changed >/text && mkdir /dir && dd if=/dev/zero of=/dir/big bs=1M count=4 2>/dev/null'
	ctl commit "$from" made:1 >"$work/out" 2>&1
	ok $? "commit of a sandbox with a disk: $(cat "$work/out")"
	is "$(state_of "$from")" Running "it runs on"
	between $((16 << 20)) $((32 << 20)) "$(fills "$from" /dir)" "within its limit"
	to=$(ctl create -q --image made:1 --disk 32m -- sleep 600)
	is "$(ctl exec "$to" -- sh -c 'cat /new /text; test -e /old || echo gone; stat -c %h /hard; stat -c %s /dir/big')" \
		"$(printf 'new\nchanged\ngone\n2\n4194304')" "the image has all of it, and what was removed is gone"
	between $((20 << 20)) $((32 << 20)) "$(fills "$to" /dir)" "what is in the image does not count for the next one's limit"
else
	tests=$((tests + 1))
	echo "ok $tests - commit of a sandbox with a disk # SKIP no busybox"
fi

# The log of requests inside: a client that only calls must not fill the disk.
logging=$(make_with '{}' '"env":{"EXECD_LOG_FILE":"/tmp/logs/execd.log"}' | id_of)
ctl exec "$logging" -- bash -c 'mkdir -p /tmp/logs && truncate -s 64M /tmp/logs/execd.log'
execd "$logging" /ping >/dev/null
until_true 30 grep -q 'EXECD_LOG_FILE cannot be written in a sandbox: .*File too large' "$log"
ok $? "EXECD_LOG_FILE ends at 64 MiB, and the daemon's log says so"
is "$(ctl exec "$logging" -- stat -c %s /tmp/logs/execd.log)" 67108864 "it has not grown"

kill -9 "$(child broker)"
until_true 30 grep -q 'broker was killed by signal 9' "$log"
answers() { [[ $(api GET "/v1/sandboxes/$id/diagnostics/inspect") == *" of 48 MiB, "* ]]; }
until_true 30 answers
ok $? "kill -9 of the broker: the sandbox has its limit and its figures"
if [ -n "${from:-}" ]; then
	ctl exec "$from" -- sh -c 'echo later >/later'
	ctl commit "$from" again:1 >"$work/out" 2>&1
	ok $? "and its disk is found for a commit: $(cat "$work/out")"
	is "$(ctl run --image again:1 -- cat /new /later | tr '\n' ' ')" "new later " "with what is on it"
fi
between $((15 << 20)) $((28 << 20)) "$(fills "$id" /root)" "and it holds"
stop_daemon
start_daemon
ok $? "the daemon starts again"
until_true 30 answers
ok $? "the sandbox has its limit and its figures"
third=$(make_with '{}' "${volume/CLAIM/}" | id_of)
is "$(ctl exec "$third" -- cat /v/file)" kept "the volume has its file"
doctor=$(ctl doctor 2>&1 | grep -A3 'disk.limits')
[[ $doctor == *"loop images are used"* || $doctor == *"project quotas"* ]]
ok $? "doctor says what is used: $doctor"
finish
leftovers() { grep -l "^$work/" /sys/block/loop*/loop/backing_file 2>/dev/null; }
nothing_left() { [ -z "$(leftovers)" ]; }
until_true 30 nothing_left
ok $? "no loop device is left: $(leftovers)"
done_testing
