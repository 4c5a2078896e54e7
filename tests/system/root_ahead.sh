#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Roots that are mounted before anybody asks: taken by the lives that want them and by no others, ended with their layers, and
# nothing of them is left behind.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
command -v busybox >/dev/null || { echo "1..0 # SKIP no busybox"; exit 0; }
config() { # config POOL
	write_config <<-END
	[server]
	port = 0
	[log]
	level = "debug"
	[pool]
	target = $1
	[images]
	host = false
	END
}
make_tree() { # make_tree NAME: a tree with busybox and one file of its own
	busybox_tree "$work/$1" sh cat sleep touch ls
	echo "$1" >"$work/$1/name"
}
made() { grep -c ' us, ahead$' "$log"; }
taken() { grep -c ' us, mounted ahead$' "$log"; }
own() { grep -c 'root of [0-9]* layers in [0-9]* us$' "$log"; }
more_made() { [ "$(made)" -ge "$1" ]; }
waiting() { find "$state/roots" -mindepth 1 -maxdepth 1 -name '[0-9]*' | wc -l; }
waits() { [ "$(waiting)" = "$1" ]; }
inside() { # inside ID COMMAND: what it prints
	ctl exec "$1" -- sh -c "$2"
}
# What is mounted ahead, and for which image, is the broker's to decide when it is quiet: creates until one takes a root.
takes_one() { # takes_one IMAGE [MORE]: sets id, of a sandbox that is still there
	local before
	before=$(taken)
	id=$(start "$@")
	[ "$(taken)" -gt "$before" ] && return
	ctl rm "$id" >/dev/null
	return 1
}
start() { # start IMAGE [MORE]: an id
	api POST /v1/sandboxes "{\"image\":{\"uri\":\"$1\"},\"timeout\":600,\"resourceLimits\":{},\"entrypoint\":[\"sleep\",\"600\"]${2:+,$2}}" | id_of
}

config 0
start_daemon
ok $? "the daemon starts"
for n in a b; do
	make_tree "$n"
	ctl image import "$work/$n" "$n:1" >/dev/null 2>&1
done
first=$(start a:1)
is "$(taken) $(own)" "0 1" "the first create has its root mounted"
until_true 10 more_made 2
ok $? "then roots of its image are mounted for the slots whose turn is next"
is "$(waiting)" 2 "two of them wait"
second=$(start a:1)
is "$(taken) $(own)" "1 1" "the next create takes one"
is "$(inside "$second" 'cat /name; touch /new; ls /new')" "a
/new" "its files are there, and it can be written"
is "$(inside "$first" 'ls /new 2>/dev/null')" "" "by nobody else"
is "$(inside "$second" "cat /proc/self/mountinfo" | grep ' / / ' | sed 's/.* - //; s/overlay //')" \
	"$(inside "$first" "cat /proc/self/mountinfo" | grep ' / / ' | sed 's/.* - //; s/overlay //')" "it looks like one that was mounted for its life"
api POST "/v1/sandboxes/$second/commit" '{"name":"c:1","pause":false}' >/dev/null
is "$(status)" 201 "what it wrote is captured"
third=$(start c:1)
is "$(inside "$third" 'cat /name; ls /new')" "a
/new" "as an image"
is "$(taken) $(own)" "1 2" "a create of another image takes none of those that wait"
other=$(start b:1)
is "$(inside "$other" 'cat /name')" b "nor sees anything of them"
for id in $first $second $third $other; do ctl rm "$id" >/dev/null; done

# ---- another image is wanted ----
until_true 10 takes_one b:1
ok $? "when creates ask for another image its roots are mounted and taken"
is "$(inside "$id" 'cat /name')" b "with its files"
ctl rm "$id" >/dev/null

# ---- removal ----
until_true 10 waits 2
api DELETE /v1/images/b:1 >/dev/null
is "$(status)" 204 "an image of which only roots wait can be removed"
until_true 10 waits 0
ok $? "and they are gone with it"
echo new >"$work/b/name"
ctl image import "$work/b" b:1 >/dev/null 2>&1
id=$(start b:1)
is "$(inside "$id" 'cat /name')" new "the name has the files of the new image"
ctl rm "$id" >/dev/null

# ---- a broker that is killed ----
killed() { # killed POINT: a broker is killed there, by what it does when it is quiet
	local id broker=$(child broker)
	echo "$1:kill" >"$fault"
	id=$(start b:1)
	[ -z "$id" ] || ctl rm "$id" >/dev/null
	until_true 20 another_broker "$broker"
	: >"$fault"
	until_true 20 serving
}
another_broker() { [ "$(child broker)" != "$1" ] && ! [ -d "/proc/$1" ]; }
if grep -q 'define SBX_FAULT_POINTS' "$top_builddir/config.h"; then
	for point in root-ahead-directory root-ahead-mounted root-ahead-taken; do
		id=$(start b:1) # so that one waits
		[ -z "$id" ] || ctl rm "$id" >/dev/null
		until_true 10 waits 2
		killed "$point"
		ok $? "the broker is killed at $point, and another one serves"
		id=$(start b:1)
		is "$(inside "$id" 'cat /name')" new "a sandbox of the image starts"
		ctl rm "$id" >/dev/null
	done
	echo 'root-ahead-mounted:fail' >"$fault"
	before=$(grep -c 'no root ahead of its create' "$log")
	id=$(start b:1)
	failed_ahead() { [ "$(grep -c 'no root ahead of its create' "$log")" -gt "$before" ]; }
	until_true 10 failed_ahead
	ok $? "a root that cannot be mounted ahead is told"
	ctl rm "$id" >/dev/null
	: >"$fault"
	id=$(start b:1)
	is "$(inside "$id" 'cat /name')" new "and matters to nobody"
	ctl rm "$id" >/dev/null
else
	ok 0 "a broker that is killed # SKIP no fault points"
fi
until_true 20 clean
is "$(leftovers)" "" "nothing of the sandboxes is left"
mkdir -p "$state/trash/3.17/roots" # the worker cannot remove what lies in a directory of root
is "$(leftovers)" "root $state/trash/3.17" "a root that stays in the trash would be seen"
rm -r "$state/trash/3.17"
stop_daemon

# ---- shells that wait without a root, of generations that are no positive number of a link ----
echo 2147483649 >"$state/generation"
config 8
start_daemon
is "$(waiting)" 0 "what an earlier broker left is gone"
until_true 10 takes_one b:1 '"volumes":[{"name":"v","pvc":{"claimName":"ahead"},"mountPath":"/data"}]'
ok $? "with a pool, a create with a volume takes the root of a shell that waited without one, behind generation 2^31"
is "$(inside "$id" 'touch /data/x /y; cat /name')" new "and has the files of the image"
ctl rm "$id" >/dev/null
done_testing
