#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A store of images that was damaged in a dozen ways: each is named, and after a repair nothing of it is left.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
command -v busybox >/dev/null || { echo "1..0 # SKIP no busybox"; exit 0; }
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
index() { grep -l "\"docker.io/library/$1:1\"" "$state"/state/images/*.json; }
layer() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["layers"][-1])' "$(index "$1")"; }
found() { # found KIND [repaired]: how often the last report names it
	python3 - "$work/report" "$1" "${2:-any}" <<-'END'
	import json, sys
	report = json.load(open(sys.argv[1]))
	print(sum(p["kind"] == sys.argv[2] and (sys.argv[3] == "any" or p["repaired"]) for p in report["problems"]))
	END
}
fsck() { ctl image fsck -o json "$@" >"$work/report" 2>"$work/err"; }
write_config <<-END
	[server]
	port = 0
	[pool]
	target = 0
END
start_daemon
ok $? "the daemon starts"
for n in lost owned file orphan cut whole used; do
	mkdir -p "$work/$n/bin"
	cp "$(command -v busybox)" "$work/$n/bin/busybox"
	for a in sh cat sleep; do ln -sf busybox "$work/$n/bin/$a"; done
	echo "$n" >"$work/$n/name"
	ctl image import "$work/$n" "$n:1" >/dev/null 2>"$work/err" || { ok 1 "import $n"; sed 's/^/# /' "$work/err"; }
done
id=$(ctl create -q --image used:1 -- sleep 600)
ctl exec "$id" -- sh -c 'echo x >/x'
ctl commit "$id" packed:1 >/dev/null 2>&1
blob=$(ls "$state/state/blobs/sha256" | head -1)
fsck
is "$?/$(grep -c '"kind"' "$work/report")" 0/0 "nothing is wrong with a store that nobody touched"
sed 's/^/# /' "$work/err"

# ---- a dozen ways, while everything runs ----
lost=$(layer lost) owned=$(layer owned) file=$(layer file) orphan=$(layer orphan)
rm -rf "$state/layers/$lost"
chown 0:0 "$state/layers/$owned"
rm -rf "$state/layers/$file" && echo no directory >"$state/layers/$file"
stop_daemon
rm "$(index orphan)"
head -c 60 "$(index cut)" >"$work/head" && cp "$work/head" "$(index cut)"
cp "$(index used)" "$state/state/images/$(printf 'a%.0s' $(seq 64)).json"
python3 - "$(index whole)" <<-'END'
	import json, sys
	image = json.load(open(sys.argv[1])); image["broken"] = True
	json.dump(image, open(sys.argv[1], "w"))
END
start_daemon
mkdir "$state/layers/new.$lost" "$state/layers/foreign"
chmod 600 "$state/state/blobs/sha256/$blob" && printf 'X' | dd of="$state/state/blobs/sha256/$blob" bs=1 seek=20 conv=notrunc 2>/dev/null
echo noise >"$state/state/blobs/sha256/noise"
mkdir "$state/state/blobs/sha256/$(printf 'b%.0s' $(seq 64))"
partial=$state/state/blobs/partial/$(printf 'c%.0s' $(seq 64))
echo begun >"$partial" && touch -d '3 days ago' "$partial"
mkdir -p "$state/state/import" && echo import >"$state/state/import/0123" && touch -d '1 hour ago' "$state/state/import/0123"
chown -R --reference="$state/state/sandboxd.db" "$state/state/import" "$state/state/images" "$state/state/blobs"
fsck
is $? 1 "errors are told by the exit code"
while read -r kind n what; do
	is "$(found "$kind")" "$n" "$what"
done <<'END'
image-broken 3 a layer that is missing, one that root owns and one that is a file: three images are broken
layer-odd 2 the last two are named
layer-stray 1 directories that are no layers
layer-orphan 2 layers whose image is gone from the index, or cannot be read
index-file 2 a cut file of the index, and one under another's name
blob-wrong 1 a blob that was changed
blob-stray 2 a file and a directory that are no blobs
import-stray 1 what an import left
image-whole 1 an image that is marked for nothing
END
[ -d "$state/layers/$owned" ] && [ -e "$state/state/blobs/sha256/noise" ]
ok $? "a check changes nothing"
is "$(ctl run --image used:1 -- cat /name)" used "what is whole is served meanwhile"

fsck --repair
is $? 0 "after a repair no error is left"
for kind in image-broken layer-odd layer-stray layer-orphan index-file blob-wrong blob-stray import-stray image-whole; do
	[ "$(found $kind repaired)" = "$(found $kind)" ] && [ "$(found $kind)" -ge 1 ]
	ok $? "$kind: $(found $kind) repaired"
done
[ ! -e "$state/layers/$owned" ] && [ ! -e "$state/layers/$file" ] && [ ! -e "$state/layers/$orphan" ] && [ ! -e "$state/layers/foreign" ] &&
	[ ! -e "$state/layers/new.$lost" ] && [ ! -e "$partial" ] && [ ! -e "$state/state/blobs/sha256/$blob" ]
ok $? "what could not be right is gone"
is "$(ctl run --image whole:1 -- cat /name)" whole "the image without a fault works again"
ctl run --pull never --image lost:1 -- cat /name >"$work/out" 2>&1
grep -q 'is damaged.*import or commit it again' "$work/out"
ok $? "a broken one says so: $(cat "$work/out")"
is "$(ctl image inspect lost:1 | grep -c '"broken": true')" 1 "and is listed as that"
ctl image import "$work/lost" lost:1 >/dev/null 2>&1
is "$(ctl run --image lost:1 -- cat /name)" lost "brought again it is whole"
is "$(ctl exec "$id" -- cat /name)" used "the sandbox that ran all the while still does"
fsck
is "$?/$(found image-broken)/$(found layer-odd)" 0/2/0 "a second check finds the two broken images, marked"

# ---- what is in use ----
chown 0:0 "$state/layers/$(layer used)"
fsck --repair
is "$?/$(found layer-odd)/$(found layer-odd repaired)" 1/1/0 "a damaged layer that a sandbox uses is named and not removed"
is "$(ctl exec "$id" -- cat /name)" used "the sandbox goes on"
ctl rm "$id" >/dev/null
fsck --repair
is "$?/$(found layer-odd repaired)" 0/1 "without the sandbox it is removed"

# ---- repairs that are cut off ----
if grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	id=$(ctl create -q --image whole:1 -- sleep 600)
	rm -rf "$state/layers/$(layer lost)"
	echo "fsck-marked:kill" >"$fault"
	ctl image fsck --repair >/dev/null 2>&1
	: >"$fault"
	until_true 30 serving
	fsck --repair --quick
	is "$?/$(ctl image inspect lost:1 | grep -c '"broken": true')" 0/1 "kill -9 in the middle: the next repair ends it"
	ctl rm "$id" >/dev/null
fi
ctl image prune --all >/dev/null
delete_all
until_true 10 clean
ok $? "nothing is left"
leftovers | sed 's/^/# /'
done_testing
