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
	busybox_tree "$work/$n" sh cat sleep
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

# ---- files inside a layer (threats.md, finding 5: a layer that was altered after it was published) ----
tree=$work/tree
mkdir -p "$tree/d/e"
printf 'some words\n' >"$tree/file"
head -c 300000 /dev/urandom >"$tree/large"
truncate -s 2M "$tree/holes" && printf x | dd of="$tree/holes" bs=1 seek=1000000 conv=notrunc 2>/dev/null
echo deep >"$tree/d/e/deep" && ln "$tree/d/e/deep" "$tree/d/second" && ln -s file "$tree/link" && mkfifo "$tree/fifo"
touch "$tree/nobody" && chown 65534:65534 "$tree/nobody"
ids=$(stat -c %u "$state/layers/$(layer whole)")
acl=$(python3 -c 'import struct, sys
print((struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in
	((1, 6, 0xffffffff), (2, 7, int(sys.argv[1])), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 4, 0xffffffff)))).hex())' $((ids + 7)))
xattr() { python3 -c 'import os, sys; os.setxattr(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))' "$@"; }
touch "$state/probe"
for name in "user.a 62" "system.posix_acl_access $acl"; do
	# shellcheck disable=SC2086
	xattr "$state/probe" $name 2>/dev/null || lacks="${lacks:-}${name%% *} "
done
rm "$state/probe"
ctl image import "$tree" t0:1 >/dev/null 2>"$work/err"
ok $? "a layer of all kinds of names"
sed 's/^/# /' "$work/err"
whole=$(layer t0) number=0
while IFS='|' read -r want what; do
	if [[ -n ${lacks:-} && $what == xattr* ]]; then # said below
		continue
	fi
	key=$whole
	# the first alteration is made in the layer itself, each other one in a copy, which is as good and costs less than an import
	if [ $((number++)) -gt 0 ]; then
		key=$(printf '%064x' $((number + 0xabc000)))
		cp -a "$work/copy" "$state/layers/$key" && cp -p "$state/seals/$whole" "$state/seals/$key"
	else
		cp -a "$state/layers/$key" "$work/copy"
	fi
	l=$state/layers/$key
	(cd "$l" && eval "$what") || ok 1 "alter a layer: $what"
	printf '%s|%s|%s\n' "${l##*/}" "$want" "$what"
done >"$work/altered" <<END
"file": its content is another|time=\$(stat -c %y file) && printf 'm' | dd of=file bs=1 conv=notrunc 2>/dev/null && touch -d "\$time" file
"large": its content is another|time=\$(stat -c %y large) && printf 'm' | dd of=large bs=1 seek=299999 conv=notrunc 2>/dev/null && touch -d "\$time" large
"holes": its content is another|time=\$(stat -c %y holes) && printf 'm' | dd of=holes bs=1 seek=2000000 conv=notrunc 2>/dev/null && touch -d "\$time" holes
"file": size 10, was 11|truncate -s 10 file
"file": mode 4755, was 0644|chmod 4755 file
"d/e": mode 0700, was 0755|chmod 700 d/e
"file": owner 1:0, was 0:0|chown $((ids + 1)) file
"link": owner 0:1, was 0:0|chown -h :$((ids + 1)) link
"nobody": belongs to an id that is none of a layer|chown 0:0 nobody
"file": belongs to an id that is none of a layer|chown 0 file
"file": its extended attributes are others|xattr file security.capability 0100000280000000000000000000000000000000
"file": its extended attributes are others|xattr file user.overlay.redirect 2f657463
"file": its extended attributes are others|xattr file system.posix_acl_access $acl
"d": its extended attributes are others|xattr d user.a 62
"d/added": was not in the layer|echo new >d/added
"d/e.added": was not in the layer|mkdir d/e.added
"d/e/deep": is gone|rm d/e/deep
"link": is gone|rm link
"file": is a symbolic link, was a file|rm file && ln -s /etc/passwd file && chown -h --reference=large file
"d/e": is a symbolic link, was a directory|rm -r d/e && ln -s / d/e
"fifo": is a file, was a FIFO|rm fifo && touch fifo
"large": is a device or whiteout, was a file|rm large && mknod large c 0 0
"d/e/deep": has 1 names, had 2|cp -p d/second ../../copy && rm d/second && mv ../../copy d/second
"link": leads elsewhere|rm link && ln -s large link && chown -h --reference=large link
"d/e/deep": has 3 names, had 2|ln d/e/deep ../../outside
"file": its time of modification is another|touch file
"d": its time of modification is another|touch d
END
if [ -n "${lacks:-}" ]; then
	tests=$((tests + 1))
	echo "ok $tests - attributes of layers # SKIP the file system of $state lacks $lacks"
fi
key=$(printf '%064x' $((0xfff000)))
cp -a "$work/copy" "$state/layers/$key" && cp -p "$state/seals/$whole" "$state/seals/$key"
fsck
is "$?/$(found layer-altered)" "1/$(wc -l <"$work/altered")" "every layer that was altered is named, and an unaltered copy is not"
while IFS='|' read -r key want what; do
	python3 -c 'import json, sys
report, key, want = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
told = [p["detail"] for p in report["problems"] if p["kind"] == "layer-altered" and p["what"] == "sha256:" + key]
print("#", told)
sys.exit(len(told) != 1 or want not in told[0])' "$work/report" "$key" "$want" >"$work/told"
	ok $? "$want (${what%% 2>*})" || cat "$work/told"
done <"$work/altered"
is "$(ctl run --image t0:1 -- /none 2>&1 | grep -c damaged)" 0 "a check alone marks nothing"
ctl doctor --verify >"$work/out" 2>&1
is "$?/$(grep -c '^layer-altered' "$work/out")" "1/$(wc -l <"$work/altered")" "doctor --verify names them too, by its exit code as well"
ctl doctor --verify -o json 2>/dev/null | python3 -c 'import json, sys
r = json.load(sys.stdin); sys.exit(not (r["rows"] and any(p["kind"] == "layer-altered" for p in r["store"]["problems"])))'
ok $? "and in JSON"
api POST '/v1/images/fsck?events=true' >"$work/out"
[ "$(grep -c '"type":"progress","phase":"\(blobs\|layers\)"' "$work/out")" -ge 1 ] && tail -n 2 "$work/out" | grep -q '"type":"done","report":{.*layer-altered'
ok $? "a stream of events tells how far it is, and ends with the report"
fsck --repair
is "$?/$(found layer-altered repaired)/$(find "$state/layers" -name "$(head -1 "$work/altered" | cut -d '|' -f 1)" | wc -l)" \
	"0/$(wc -l <"$work/altered")/0" "a repair removes them"
is "$(find "$state/seals" -type f | wc -l)" "$(find "$state/layers" -mindepth 1 -maxdepth 1 ! -name '00000000686f7374*' | wc -l)" "and their seals"
ctl run --pull never --image t0:1 -- cat /name >"$work/out" 2>&1
grep -q 'is damaged.*import or commit it again' "$work/out"
ok $? "their images say so: $(cat "$work/out")"
ctl image import "$tree" t0:1 >/dev/null 2>&1
fsck
is "$?/$(found layer-altered)" 0/0 "what was brought again is whole"
seal=$state/seals/$(layer t0)
printf X | dd of="$seal" bs=1 seek=200 conv=notrunc 2>/dev/null
mv "$state/seals/$(layer lost)" "$work/seal"
fsck
is "$?/$(found layer-altered)/$(found layer-unsealed)" 1/2/0 "a damaged seal is an error, and so is a missing one"
grep -q 'the seal of the layer is damaged' "$work/report" && grep -q 'its seal is gone' "$work/report"
ok $? "and it is said that the seal is"
python3 -c 'import os, sys; os.removexattr(sys.argv[1], "trusted.sandboxd.sealed")' "$state/layers/$(layer lost)"
ok $? "a layer as an earlier version left it"
fsck
is "$?/$(found layer-altered)/$(found layer-unsealed)" 1/1/1 "of which nobody knows more: a note"
mv "$work/seal" "$state/seals/$(layer lost)"
chmod 600 "$state/layers/$(layer used)/name"
fsck --repair
is "$?/$(found layer-altered)/$(found layer-altered repaired)" 1/2/1 "an altered layer that a sandbox uses is named and stays"
grep -q '"detail": "\\"name\\": mode 0600, was 0644; layer [0-9a-f]* is in use' "$work/report"
ok $? "with what differs and why: $(grep -o '"detail": .*in use[^,]*' "$work/report")"

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
