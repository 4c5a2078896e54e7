#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The store of images: what is in use stays, what nobody needs goes, by itself when the disk is full and when asked.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
command -v busybox >/dev/null || { echo "1..0 # SKIP no busybox"; exit 0; }
command -v python3 >/dev/null || { echo "1..0 # SKIP no python3"; exit 0; }
config() { # config MORE-IMAGES-LINES
	write_config <<-END
	[server]
	port = 0
	[pool]
	target = 0
	[images]
	$1
	END
}
layers() { find "$state/layers" -mindepth 1 -maxdepth 1 -name '[0-9a-f]*' ! -name '00000000686f7374*' | wc -l; }
has_layers() { [ "$(layers)" = "$1" ]; }
images() { ctl image ls -q | sort | tr '\n' ' '; }
make_tree() { # make_tree NAME: a tree with busybox and one file of its own
	busybox_tree "$work/$1" sh cat sleep
	echo "$1" >"$work/$1/name"
}
# As if a registry had brought them, and so long ago: what an import writes into the index is changed while nobody runs.
pulled() { # pulled AGE-SECONDS NAME...
	python3 - "$state/state/images" "$@" <<-'END'
	import glob, json, os, sys, time
	folder, age, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
	for path in glob.glob(folder + "/*.json"):
	    with open(path) as f: image = json.load(f)
	    if any(image["name"].endswith("/" + n) for n in names):
	        image.pop("local", None)
	        image["manifest"] = "sha256:" + os.path.basename(path)[:64]
	        with open(path, "w") as f: json.dump(image, f)
	        os.utime(path, (time.time() - age, time.time() - age))
	END
}

config 'gc_high_percent = 0'
start_daemon
ok $? "the daemon starts"
for n in a b c d; do
	make_tree "$n"
	ctl image import "$work/$n" "$n:1" >"$work/out" 2>&1 || { ok 1 "import $n"; sed 's/^/# /' "$work/out"; }
done
is "$(images)" "a:1 b:1 c:1 d:1 " "four images"
has_layers 4
ok $? "have four layers"

# ---- in use ----
id=$(ctl create -q --image a:1 -- sleep 600)
api DELETE /v1/images/a:1 >"$work/answer"
is "$(status)" 409 "an image in use is not removed"
grep -q "\"code\":\"IMAGE::IN_USE\",\"message\":\"1 sandbox uses the image: $id\"" "$work/answer"
ok $? "and the answer names the sandbox: $(cat "$work/answer")"
ctl image tag a:1 a:2 >/dev/null
api DELETE /v1/images/a:1 >/dev/null
is "$(status)" 204 "one of two names may go"
api DELETE /v1/images/a:2 >"$work/answer"
is "$(status)" 409 "the last one may not, though the sandbox was made by the other"
ctl pause "$id" >/dev/null
is "$(api POST '/v1/images/prune?all=true' | grep -o '"images":\[[^]]*\]' | grep -o '/[a-z]:1' | tr -d '\n')" "/b:1/c:1/d:1" "prune --all takes what is unused, not what a paused sandbox is made of"
is "$(images)" "a:2 " "it stays"
until_true 10 has_layers 1
ok $? "with its layer, and the others are gone"
kill -9 "$(child sandboxd)"
until_true 20 serving
api DELETE /v1/images/a:2 >/dev/null
is "$(status)" 409 "after a restart it is known what the sandbox was made from"
ctl rm "$id" >/dev/null
api DELETE /v1/images/a:2 >/dev/null
is "$(status)" 204 "without the sandbox it goes"
until_true 10 has_layers 0
ok $? "and its layer"

# ---- layers that nobody names ----
for n in a b; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
stop_daemon
rm "$(grep -l '"docker.io/library/a:1"' "$state"/state/images/*.json)"
mkdir "$state/layers/new.0123" && echo junk >"$state/layers/junk"
start_daemon
is "$(images)" "b:1 " "an image was lost from the index"
ctl image gc >"$work/out" 2>&1
grep -q '^0 images, 0 layers' "$work/out" && has_layers 2
ok $? "a collection leaves young layers to a pull that goes on: $(cat "$work/out")"
ctl image prune >"$work/out" 2>&1
grep -q 'and 1 layers removed' "$work/out"
ok $? "prune takes them: $(cat "$work/out")"
until_true 10 has_layers 1
ok $? "only the other image's is left"
[ ! -e "$state/layers/new.0123" ] && [ ! -e "$state/layers/junk" ]
ok $? "half-made directories and foreign files went at the start"

# ---- a collection that is asked for ----
for n in a c d; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
stop_daemon
pulled 5000 a:1
pulled 9000 b:1
pulled 100 c:1
start_daemon
ctl image gc >"$work/out"
grep -q '^0 images' "$work/out"
ok $? "nothing is wanted, nothing goes: $(cat "$work/out")"
head -c 1000 /dev/urandom >"$state/state/blobs/partial/$(printf '%064d' 1)"
head -c 1000 /dev/urandom >"$state/state/blobs/sha256/$(printf '%064d' 2)"
touch -d '30 days ago' "$state"/state/blobs/*/0000*
all_files() { find "$state/layers" "$state/state/blobs" "$state/state/images" "$state/state/import" -printf '%p %s %i\n' | sort; }
all_files >"$work/before"
ctl image gc --dry-run --free 1t -o json >"$work/out"
grep -q '"blobs": *2' "$work/out" && grep -q '"dryRun": *true' "$work/out"
ok $? "a dry run says what would go: $(tr -d '\n ' <"$work/out" | tail -c 200)"
all_files | cmp -s - "$work/before"
ok $? "and takes no image, no layer, no blob, no part of one: $(all_files | diff "$work/before" - | head -3)"
rm "$state"/state/blobs/*/0000*
ctl image gc --dry-run --free 1k -o json >"$work/out"
is "$(grep -o '"docker.io/library/.:1"' "$work/out" | tr -d '\n')" '"docker.io/library/b:1"' "a dry run names the least recently used one"
is "$(images)" "a:1 b:1 c:1 d:1 " "and takes none"
id=$(ctl create -q --image b:1 -- sleep 600)
ctl image gc --free 1k >/dev/null
is "$(images)" "b:1 c:1 d:1 " "what is used now is passed over"
ctl image gc --free 1t >/dev/null
is "$(images)" "b:1 d:1 " "however much is wanted: used and imported ones stay"
ctl rm "$id" >/dev/null
ctl image gc --free 1t >/dev/null
is "$(images)" "d:1 " "the imported one stays alone"
until_true 10 has_layers 1
ok $? "with its layer"

# ---- a dry run says what the run then takes, of each kind: layers of two images and one that both have, one that no image has, blobs of
# images and of none, a part of one ----
for n in a b; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
stop_daemon
config $'gc_high_percent = 0\n\tgc_min_age_seconds = 0\n\tgc_unused_seconds = 0'
name_of() { sha256sum <<<"$1" | cut -c1-64; }
one=$(find "$state/layers" -mindepth 1 -maxdepth 1 -name '[1-9a-f]*' | head -1)
for n in shared nobodys; do cp -a "$one" "$state/layers/$(name_of $n)"; done
for n in config both nobodys; do head -c 3000 /dev/urandom >"$state/state/blobs/sha256/$(name_of $n)"; done
head -c 500 /dev/urandom >"$state/state/blobs/partial/$(name_of part)"
pulled 9000 a:1 b:1
python3 - "$state/state/images" "$(name_of shared)" "$(name_of config)" "$(name_of both)" <<-'END'
	import glob, json, os, sys
	folder, shared, config, both = sys.argv[1:]
	for path in glob.glob(folder + "/*.json"):
	    with open(path) as f: image = json.load(f)
	    if image["name"].endswith(("/a:1", "/b:1")):
	        age = os.stat(path).st_mtime
	        image["layers"].insert(0, shared)
	        image["config"] = "sha256:" + (config if image["name"].endswith("/a:1") else both)
	        image["index"] = "sha256:" + both
	        with open(path, "w") as f: json.dump(image, f)
	        os.utime(path, (age, age))
END
chown -R --reference="$state/state/sandboxd.db" "$state/state/blobs" "$state/state/images"
start_daemon
totals() { python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
print(sorted(i["name"] for i in r["images"]), *(k + "=" + str(r[k]) for k in ("layers", "blobs", "bytes", "imageBytes")))' "$1"; }
blobs() { find "$state/state/blobs" -type f | wc -l; }
for rule in 1k 1t; do
	had=$(layers)/$(blobs)
	ctl image gc --dry-run --free $rule -o json >"$work/dry"
	ctl image gc --dry-run --free $rule -o json >"$work/again"
	is "$(layers)/$(blobs)" "$had" "a dry run for $rule takes nothing"
	before_layers=$(layers) before_blobs=$(blobs)
	ctl image gc --free $rule -o json >"$work/real"
	is "$(totals "$work/dry")" "$(totals "$work/real")" "for $rule it says what the run takes"
	is "$(totals "$work/again")" "$(totals "$work/real")" "twice"
	is "layers=$((before_layers - $(layers))) blobs=$((before_blobs - $(blobs)))" "$(totals "$work/real" | grep -o 'layers=[0-9]* blobs=[0-9]*')" \
		"and that is what is gone"
done
is "$(totals "$work/real" | grep -o 'layers=[0-9]*')" layers=3 "their own layers and the one that both had"
is "$(images)" "d:1 " "the imported one stays"
ctl image fsck >"$work/out" 2>&1
ok $? "and the store is whole: $(tail -1 "$work/out")"
stop_daemon
config 'gc_high_percent = 0'
start_daemon

# ---- cut off ----
if grep -q '^#define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	for point in gc-image:kill gc-image:kill:2 gc-layers:kill; do
		for n in a b; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
		stop_daemon
		pulled 5000 a:1 b:1
		start_daemon
		echo "$point" >"$fault"
		ctl image gc --free 1t >/dev/null 2>&1
		: >"$fault"
		until_true 30 serving
		ctl image fsck >"$work/out" 2>&1
		ok $? "kill -9 at $point: nothing is half: $(images)/ $(tail -1 "$work/out")"
		ctl image gc --free 1t >/dev/null 2>&1
		ctl image prune >/dev/null 2>&1
		is "$(images)" "d:1 " "$point: the next collection ends it"
		until_true 10 has_layers 1
		ok $? "$point: with the layers"
	done
	# prune: what it takes is not asked for again, so whoever is killed in it must leave a store that the next one can end
	for point in gc-image:kill gc-layers:kill gc-blob:kill layer-drop:kill; do
		for n in a b; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
		echo "$point" >"$state/state/blobs/sha256/$(echo "$point" | sha256sum | cut -c1-64)" # a blob that nobody names
		id=$(ctl create -q --image d:1 -- sleep 600)
		echo "$point" >"$fault"
		ctl image prune --all >/dev/null 2>&1
		: >"$fault"
		until_true 30 serving
		ctl image fsck >"$work/out" 2>&1
		ok $? "kill -9 at $point of a prune: nothing is half: $(images)/ $(tail -1 "$work/out")"
		pruned() { ctl image prune --all >/dev/null 2>&1 && has_layers 1 && [ "$(ls "$state/state/blobs/sha256")" = "" ]; }
		until_true 30 pruned
		ok $? "$point: the next one ends it: $(images)/ $(layers) layers, blobs $(ls "$state/state/blobs/sha256")"
		is "$(images)" "d:1 " "$point: what a sandbox is made of stays"
		ctl rm "$id" >/dev/null
	done
fi

# ---- by itself: the disk is always fuller than 1 % of it ----
if [ "$(df --output=pcent "$state" | tail -1 | tr -dc 0-9)" -ge 2 ]; then
	for n in a b; do ctl image import "$work/$n" "$n:1" >/dev/null 2>&1; done
	stop_daemon
	pulled 5000 a:1 b:1
	config $'gc_high_percent = 1\n\tgc_low_percent = 1\n\tgc_min_age_seconds = 60'
	start_daemon
	id=$(ctl create -q --image a:1 -- sleep 600)
	ctl image prune >/dev/null 2>&1 # a collection was just now: it is due again in seconds, not at the next check
	ctl image import "$work/c" c:1 >/dev/null 2>&1 # the store changes: it looks
	gone() { # and changes that go on do not put it off
		ctl image tag c:1 c:2 >/dev/null 2>&1
		[ "$(images)" = "a:1 c:1 c:2 d:1 " ]
	}
	until_true 60 gone
	ok $? "a full disk has it collect by itself, though one was just now and the store keeps changing: $(images)"
	is "$(ctl exec "$id" -- cat /name)" a "and the sandbox has its image"
	ctl rm "$id" >/dev/null
else
	tests=$((tests + 1))
	echo "ok $tests - by itself # SKIP the disk is less than 2 % full"
fi
ctl image prune --all >/dev/null
delete_all
until_true 10 clean
ok $? "nothing is left"
leftovers | sed 's/^/# /'
done_testing
