#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A sandbox becomes an image: the same tree, nothing of ours or of its mounts in it, nothing left of what is cut off.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
command -v busybox >/dev/null || { echo "1..0 # SKIP no busybox"; exit 0; }
skip() { # NAME REASON
	tests=$((tests + 1))
	echo "ok $tests - $1 # SKIP $2"
}
tree=$work/tree
mkdir -p "$tree/etc" "$tree/dir/deep" "$tree/opq/old" "$tree/data"
busybox_tree "$tree" sh cat sleep find stat sort md5sum xargs ls mv ln rm mkdir touch chmod chown dd mkfifo echo true truncate
echo base >"$tree/base"
echo old >"$tree/dir/deep/file"
echo hidden >"$tree/opq/old/file"
echo removed >"$tree/removed"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tree/etc/passwd"
write_config <<-END
	[server]
	port = 0
	[pool]
	target = 0
END
start_daemon
ok $? "the daemon starts"
ctl image import "$tree" base:1 --env KEEP=1 --env CHANGE=old --cmd 'cat /base' >"$work/out" 2>&1
ok $? "an image to begin with: $(cat "$work/out")"

# Everything that a program inside can tell about the tree, but for directories' times (each start writes into some).
cat >"$work/look" <<-'END'
	cd / && find . -xdev ! -path ./proc ! -path ./sys ! -path ./dev ! -path './run*' ! -path './etc/host*' ! -path ./etc/resolv.conf ! -path './opt*' \
		! -path ./vol | sort >/dev/shm/names
	xargs stat -c '%n %F %a %u:%g %N' </dev/shm/names
	find . -xdev -type f ! -path './etc/host*' ! -path ./etc/resolv.conf ! -path './opt*' | sort >/dev/shm/files
	xargs stat -c '%n %h %s %Y' </dev/shm/files
	xargs md5sum </dev/shm/files
END
look() { ctl exec "$1" -- sh -c "$(cat "$work/look")" 2>&1; }

# ---- the same tree ----
id=$(ctl create -q --image base:1 -e TOKEN=geheim -v commitvol:/vol -- sleep 600)
ctl exec "$id" -- sh -c '
	echo new >/new && ln /new /hard && chmod 4711 /new
	rm /removed && rm -r /opq && mkdir /opq && echo only >/opq/only
	echo changed >/dir/deep/file && mkdir /dir/more && ln -s ../base /dir/more/link && ln -s /nowhere /dangling
	mkfifo /fifo && chown 1000:1001 /data && touch /data/.hidden "/data/a+b" && chmod 0 /data/.hidden
	dd if=/dev/zero of=/sparse bs=1M seek=64 count=0 2>/dev/null && echo end >>/sparse
	echo SECRET=geheim >/opt/opensandbox/.env && echo geheim >/vol/file && mkdir /tmp; chmod 1777 /tmp' 2>"$work/err"
ok $? "a sandbox that has changed much: $(cat "$work/err")"
look "$id" >"$work/before"
ctl commit "$id" made:1 -m 'a message' -a 'an author' -e CHANGE=new -c 'WORKDIR /data' >"$work/out" 2>&1
ok $? "commit: $(cat "$work/out")"
is "$(state_of "$id")" Running "it runs on"
two=$(ctl create -q --image made:1 -v commitvol2:/vol -- sleep 600)
look "$two" >"$work/after"
diff "$work/before" "$work/after" >"$work/diff"
ok $? "a sandbox of the image shows the same tree: $(wc -l <"$work/before") lines"
head -5 "$work/diff" | sed 's/^/# /'
[ "$(wc -l <"$work/before")" -gt 60 ]
ok $? "which is one"
is "$(ctl exec "$two" -- sh -c 'cat /opq/only; ls /opq; cat /removed; cat /opt/opensandbox/.env; ls /vol; echo $KEEP $CHANGE $TOKEN' 2>/dev/null | tr '\n' ' ')" \
	"only only 1 new " "what was removed is gone; no token, no volume, the environment is the image's and ours"
is "$(du -k "$state"/layers/*/sparse | cut -f1 | awk '{print ($1 < 1024)}')" 1 "a sparse file stays one"
! grep -rq geheim "$state/layers" "$state/state/blobs" "$state/state/images"
ok $? "no secret is on the disk with the image"
ctl image inspect made:1 >"$work/out"
is "$(sed -n 's/^ *"\(comment\|author\|workdir\)": "\(.*\)",*$/\2/p' "$work/out" | tr '\n' '/')" "/data/an author/a message/" "message, author and directory are kept"
is "$(ctl run --image made:1 2>&1)" base "the command is the base image's"
ctl exec "$two" -- sh -c 'rm /new; echo third >/third'
ctl commit "$two" made:1 >/dev/null 2>&1
is "$(ctl run --image made:1 -- sh -c 'cat /third /hard; ls /new /removed 2>/dev/null; cat /opq/only' | tr '\n' ' ')" "third new only " "an image of an image, in the place of the first"
ctl commit "$two" flat:1 --flatten >/dev/null 2>&1
is "$(ctl image inspect flat:1 | grep -c '"unpackedBytes"')/$(ctl run --image flat:1 -- sh -c 'cat /third /hard; ls /new /removed 2>/dev/null; cat /opq/only' | tr '\n' ' ')" \
	"1/third new only " "and as one layer"
ctl pause "$two" >/dev/null
ctl commit "$two" paused:1 >/dev/null 2>&1
is "$?/$(state_of "$two")" 0/Paused "one that is paused stays so"
ctl rm "$two" >/dev/null

# ---- refused ----
while IFS='|' read -r why want body; do
	api POST "/v1/sandboxes/$id/commit" "$body" >"$work/answer"
	is "$(status)" "$want" "$why"
done <<'END'
a member that nobody knows|422|{"name":"x:1","squash":true}
no name|422|{}
a name that is none|400|{"name":"X"}
the name of the embedded image|400|{"name":"host"}
a variable without a name|422|{"name":"x:1","config":{"env":["=b"]}}
a directory that is not absolute|400|{"name":"x:1","config":{"workdir":"tmp"}}
END
api POST /v1/sandboxes/00000000-0000-4000-8000-000000000000/commit '{"name":"x:1"}' >/dev/null
is "$(status)" 404 "a sandbox that is not there"
host=$(ctl create -q -- sleep 600)
api POST "/v1/sandboxes/$host/commit" '{"name":"x:1"}' >"$work/answer"
is "$(status)" 400 "the host image's own /usr cannot be committed"
ctl rm "$host" >/dev/null
is "$(ctl image ls -q | grep -c '^x:')" 0 "none of it left an image"

# ---- a sandbox that works against it, and is not paused ----
echo CANARY-OUTSIDE >"$work/canary"
chmod 644 "$work/canary"
evil=$(ctl create -q --image base:1 -- sleep 600)
ctl exec -d "$evil" -- sh -c "mkdir /swap && echo inside >/swap/canary
	while :; do mv /swap /away; ln -s $work /swap; rm /swap; mkdir /swap; rm -r /swap; mv /away /swap; echo x >/grow; dd if=/dev/zero of=/grow bs=1M count=9 2>/dev/null; rm /grow; done" >/dev/null
seen=0
for i in 1 2 3 4 5 6; do
	ctl commit "$evil" "evil:$i" --no-pause >"$work/out" 2>&1 && seen=$((seen + 1))
done
[ $seen -ge 1 ]
ok $? "a tree that changes under it is captured or refused: $seen of 6 captured"
! grep -rq CANARY-OUTSIDE "$state/layers" "$state/state"
ok $? "and nothing from outside is in it"
ctl commit "$evil" evil:7 >"$work/out" 2>&1
ok $? "paused it is captured in any case: $(cat "$work/out")"
ctl rm "$evil" >/dev/null

# ---- cut off ----
settled() { # everything is as before the commit that was cut off
	[ "$(state_of "$id")" = Running ] && [ "$(ctl image ls -q | grep -c '^cut:')" = "${1:-0}" ]
}
tidy() { # after a prune nothing is in the store that no image names
	ctl image prune >/dev/null 2>&1 &&
		[ "$(api GET /v1/usage | sed -n 's/.*"unusedPackedBytes":\([0-9]*\).*/\1/p')" = 0 ] &&
		[ -z "$(find "$state/layers" -maxdepth 1 -name 'new.*')" ] && [ "$(ls "$state/layers" | grep -vc '^00000000686f7374')" = "$n_layers" ]
}
if "$top_builddir/sandboxd" --version >/dev/null && grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	n_layers=$(ls "$state/layers" | grep -vc '^00000000686f7374')
	for point in commit-held commit-captured blob-bytes blob-verified blob-synced blob-named commit-stored commit-unpacked commit-index commit-indexed; do
		after=0
		[ $point = commit-indexed ] && after=1 && n_layers=$((n_layers + 1))
		ctl exec "$id" -- sh -c "echo $point >/point" 2>/dev/null
		echo "$point:kill" >"$fault"
		ctl commit "$id" cut:1 >"$work/out" 2>&1
		: >"$fault"
		until_true 30 settled $after
		ok $? "kill -9 at $point: the sandbox runs, the image is $([ $after = 1 ] && echo whole || echo 'not there')"
		until_true 30 tidy
		ok $? "$point: and nothing is left"
	done
	is "$(ctl run --image cut:1 -- cat /point)" commit-indexed "what was answered for nobody is whole"
	for point in capture-ended layer-unpacked; do
		ctl exec "$id" -- sh -c "echo broker $point >/point" 2>/dev/null # another layer each time
		echo "$point:kill" >"$fault"
		ctl commit "$id" cut:2 >"$work/out" 2>&1
		: >"$fault"
		until_true 30 settled 1
		ok $? "kill -9 of the broker at $point: the sandbox runs, no image"
		until_true 30 tidy
		ok $? "$point: and nothing is left"
	done
	for point in commit-held commit-captured capture-ended layer-unpacked commit-unpacked commit-index; do
		ctl exec "$id" -- sh -c "echo fail $point >/point" 2>/dev/null
		echo "$point:fail" >"$fault"
		ctl commit "$id" cut:2 >"$work/out" 2>&1
		[ $? != 0 ] && : >"$fault" && until_true 30 settled 1 && until_true 30 tidy
		ok $? "a failure at $point leaves nothing"
		: >"$fault"
	done
else
	skip "kill -9 at each step" "built without --enable-fault-points"
fi
ctl commit "$id" cut:3 >"$work/out" 2>&1
ok $? "after all of it a commit works"
ctl rm "$id" >/dev/null
delete_all
ctl image prune --all >/dev/null

# ---- a disk that is full ----
stop_daemon
small=$work/small
mkdir "$small"
trap 'mountpoint -q "$small" && umount -l "$small"; cleanup' EXIT
truncate -s 96m "$work/disk"
if mkfs.ext4 -q -O ^has_journal "$work/disk" 2>/dev/null && mount -o loop "$work/disk" "$small" 2>/dev/null; then
	chmod 755 "$small"
	mkdir "$small/state"
	sed -i "s|^state_dir = .*|state_dir = \"$small/state\"|" "$work/config"
	"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1
	start_daemon
	ok $? "a daemon on a small disk"
	ctl image import "$tree" base:1 >/dev/null 2>&1
	id=$(ctl create -q --image base:1 -- sleep 600)
	ctl exec "$id" -- dd if=/dev/urandom of=/big bs=1M count=40 >/dev/null 2>&1
	sync -f "$small"
	free() { df -k --output=avail "$small" | tail -1; }
	before=$(free)
	api POST "/v1/sandboxes/$id/commit" '{"name":"big:1"}' >"$work/answer"
	is "$(status)" 507 "a commit that does not fit is refused: $(cat "$work/answer")"
	is "$(state_of "$id")" Running "the sandbox runs on"
	ctl image prune >/dev/null
	back() { sync -f "$small"; [ $(($(free) + 512)) -ge "$before" ]; }
	until_true 20 back
	ok $? "and what it had written is gone: $(free) of $before KiB"
	ctl exec "$id" -- rm /big
	ctl commit "$id" big:1 >"$work/out" 2>&1
	ok $? "smaller it fits: $(cat "$work/out")"
	ctl rm "$id" >/dev/null
	ctl image prune --all >/dev/null
	state=$small/state
	until_true 10 clean
	ok $? "nothing is left"
	stop_daemon
	"$top_builddir/sandboxd" --purge --config "$work/config" >>"$log" 2>&1
	umount "$small" || umount -l "$small"
else
	skip "a disk that is full" "no loop device, or no mkfs.ext4"
	start_daemon
	until_true 10 clean
	ok $? "nothing is left"
fi
leftovers | sed 's/^/# /'
done_testing
