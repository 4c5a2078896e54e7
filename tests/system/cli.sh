#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# sandboxctl against a daemon of its own, in a network namespace of its own: what a person would type, and what must not
# happen when an answer or a name inside is hostile.
set -u
builddir=${top_builddir:-$PWD}
srcdir=$(cd "${top_srcdir:-$PWD}" && pwd)
cd "$builddir" || exit 1
if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root"
	exit 0
fi
if [ -z "${SBX_CLI_INSIDE:-}" ]; then
	SBX_CLI_INSIDE=1 exec unshare -n -- "$0"
fi
ip link set lo up

. "$srcdir/tests/system/instance_lib.sh"
# shellcheck source=tests/system/busybox_lib.sh
. "$srcdir/tests/system/busybox_lib.sh"
take_instance || exit 99
work=$(mktemp -d /var/tmp/sandboxd-cli.XXXXXX)
cat >"$work/config.toml" <<TOML
instance = $instance
state_dir = "$work/state"
[server]
port = 0
endpoint_port = 0
api_key = "key-of-the-test"
[storage]
allowed_host_paths = ["$work/shared"]
TOML
mkdir "$work/shared" "$work/t"
setsid ./sandboxd --standalone --config "$work/config.toml" </dev/null >"$work/log" 2>&1 &
daemon=$!
finish() {
	kill -TERM $daemon 2>/dev/null && wait $daemon 2>/dev/null
	./sandboxd --purge --config "$work/config.toml" >>"$work/log" 2>&1
	[ "$failed" = 0 ] || sed 's/^/# log: /' "$work/log" | tail -n 40
	rm -rf "$work"
}
failed=0
trap finish EXIT
export SANDBOXD_SOCKET="/run/sandboxd/$instance/api.sock"
unset OPEN_SANDBOX_DOMAIN OPEN_SANDBOX_API_KEY
ctl="$builddir/sandboxctl"
for _ in $(seq 1200); do
	"$ctl" version >/dev/null 2>&1 && break
	sleep 0.05
done

n=0 failed=0
ok() { # STATUS NAME
	n=$((n + 1))
	if [ "$1" = 0 ]; then
		echo "ok $n - $2"
	else
		echo "not ok $n - $2"
		failed=1
	fi
}
is() { # GOT WANTED NAME
	[ "$1" = "$2" ]
	ok $? "$3"
	[ "$1" = "$2" ] || printf '#  got: %s\n# want: %s\n' "$(printf '%s' "$1" | head -c 300)" "$2"
}
has() { # TEXT PART NAME
	case $1 in *"$2"*) ok 0 "$3" ;; *)
		ok 1 "$3"
		printf '# %s\n' "$1" | head -n 5
		;;
	esac
}
count() { "$ctl" ls -q | wc -l; }

# --- run
is "$("$ctl" run -- echo hello)" hello "run prints what the command prints"
is "$("$ctl" run -- sh -c 'echo out; echo err >&2' 2>/dev/null)" out "stdout and stderr stay apart"
is "$("$ctl" run -- sh -c 'echo err >&2' 2>&1 >/dev/null)" err "stderr arrives on stderr"
"$ctl" run -- sh -c 'exit 7'
is $? 7 "the exit code is passed on"
"$ctl" run -- sh -c 'kill -KILL $$'
is $? 137 "a killed command is 128 + 9"
for signo in 6 10 11 15 31 34; do
	"$ctl" run -- sh -c "kill -$signo \$\$"
	is $? $((128 + signo)) "a command that signal $signo ends is 128 + $signo"
	"$ctl" run -u 1000 -- sh -c "kill -$signo \$\$"
	is $? $((128 + signo)) "and as another user"
done
"$ctl" run -- /no/such/program 2>/dev/null
is $? 127 "a program that is not there is 127, as in a shell"
is "$("$ctl" run -- printf '%s|' 'a b' "it's" '$HOME' '' '*' 'x"y\z')" "a b|it's|\$HOME||*|x\"y\\z|" "arguments arrive as they were"
is "$("$ctl" run -e A='x y' -e B= -- sh -c 'echo "$A/$B"')" "x y/" "-e sets the environment"
is "$(A_NAME=mine "$ctl" run -e A_NAME -- sh -c 'echo $A_NAME')" mine "-e NAME takes the caller's value"
is "$("$ctl" run -w /usr -- pwd)" /usr "-w starts in the directory"
is "$("$ctl" run -u 1000:100 -- id -u)" 1000 "-u runs as that user"
is "$(echo in | "$ctl" run -i -- cat)" in "-i passes stdin and its end"
is "$(echo in | timeout 60 "$ctl" run -- cat)" "" "without -i stdin is empty"
head -c 4000000 /dev/urandom >"$work/random"
"$ctl" run -i -- cat <"$work/random" | cmp -s - "$work/random"
ok $? "4 MB of random bytes come back as they were"
out=$("$ctl" run -m 64m -- python3 -c 'x = "a" * 10**9' 2>&1)
is $? 137 "out of memory is 137"
has "$out" "killed: out of memory (limit 64 MiB, peak 6" "and says so, with what to do"
is "$(count)" 0 "run leaves no sandbox"
"$ctl" run -- sleep 60 &
runner=$!
for _ in $(seq 100); do
	[ "$(count)" = 1 ] && break
	sleep 0.05
done
kill -TERM $runner
wait $runner
is $? 143 "a terminated run ends with 128 + 15"
is "$(count)" 0 "and removed its sandbox"
"$ctl" run --image nothing:1 -- true 2>"$work/err"
is $? 125 "an image that is not there is 125"
has "$(cat "$work/err")" "sandboxctl image import" "and the error says what to type"

# --- a sandbox that stays
id=$("$ctl" create -q --name web --metadata team=core --timeout 1h)
is "${#id}" 36 "create -q prints the id"
is "$("$ctl" exec web -- echo by-name)" by-name "exec finds it by name"
is "$("$ctl" exec "${id:0:5}" -- echo by-prefix)" by-prefix "exec finds it by the beginning of its id"
"$ctl" exec nothing -- true 2>"$work/err"
is $? 125 "exec in no sandbox is 125"
has "$(cat "$work/err")" "sandboxctl ls" "and the error says what to type"
is "$("$ctl" exec web -e A="it's" -- sh -c 'echo $A')" "it's" "exec -e"
is "$("$ctl" exec -u 1000 web -- id -un)" sandbox "exec -u"
has "$("$ctl" ls)" "web" "ls shows its name"
is "$("$ctl" ls -q --metadata team=core -s running)" "$id" "ls filters"
is "$("$ctl" ls -q --metadata team=other)" "" "ls filters it away"
python3 -c 'import json,sys; d=json.load(sys.stdin); assert d[0]["metadata"]["name"] == "web"' < <("$ctl" ls -o json)
ok $? "ls -o json is JSON"
has "$("$ctl" ls -o yaml)" '- id: "'"$id"'"' "ls -o yaml"
has "$("$ctl" inspect web)" "OOM kills:" "inspect has figures"
"$ctl" pause web >/dev/null
is "$("$ctl" ls -q -s paused)" "$id" "pause"
"$ctl" exec web -- true 2>"$work/err"
has "$(cat "$work/err")" "resume" "exec in a paused sandbox says what to do"
is "$("$ctl" resume web -o json | tr -d ' \n')" "[\"$id\"]" "resume -o json gives whole ids"
is "$("$ctl" exec web -- echo on)" on "resume"
has "$("$ctl" renew web 30m)" "in 29m" "renew, shorter than before"
has "$("$ctl" endpoint web 8000 2>/dev/null)" "/$id/8000" "endpoint"
command=$("$ctl" exec -d web -- sh -c 'echo behind; sleep 30')
for _ in $(seq 600); do
	[ -n "$("$ctl" logs web -c "$command")" ] && break
	sleep 0.05
done
is "$("$ctl" logs web -c "$command")" behind "exec -d and logs -c"
is "$("$ctl" logs web 2>&1)/$?" /0 "logs of a sandbox without a command of its own: nothing, and no error"
"$ctl" run -it -- sh </dev/null >"$work/out" 2>&1
is "$?/$(cat "$work/out")" "2/sandboxctl: -t: stdin is no terminal; use -i alone" "run -t without a terminal does not wait for ever"
is "$("$ctl" --socket "$work/none" ls 2>/dev/null)" "" "ls without a daemon prints no table"

"$ctl" exec -u 1000 web -- sh -c 'echo started; exec sleep 4321' >"$work/started" &
runner=$!
for _ in $(seq 600); do
	[ -s "$work/started" ] && break
	sleep 0.05
done
kill -TERM $runner
wait $runner
is $? 143 "a terminated exec ends with 128 + 15"
is "$("$ctl" exec web -- sh -c 'grep -l 432[1] /proc/[0-9]*/cmdline 2>/dev/null | wc -l')" 0 "and ended its command"
for i in $(seq 24); do
	"$ctl" exec web -- sh -c "sleep 0.5; echo $i" >"$work/many.$i" 2>&1 &
	pids[i]=$!
done
wait "${pids[@]}"
is "$(cat "$work"/many.* | sort -n | tr '\n' ' ')" "$(seq -s ' ' 24) " "24 at once: more than there are sessions"

# --- cp
mkdir -p "$work/t/tree/sub"
echo one >"$work/t/tree/sub/one"
chmod 750 "$work/t/tree/sub/one"
cp "$work/random" "$work/t/tree/random"
"$ctl" cp "$work/t/tree" web:/tmp
is "$("$ctl" exec web -- sh -c 'stat -c %a /tmp/tree/sub/one; cat /tmp/tree/sub/one')" "750
one" "cp in keeps content and mode"
"$ctl" cp web:/tmp/tree "$work/t/back"
diff -r "$work/t/tree" "$work/t/back" >/dev/null
ok $? "cp out gives the same tree"
"$ctl" cp web:/tmp/tree/random - >/dev/null 2>&1
rm -f ./-
"$ctl" cp "$work/t/tree/sub/one" web:/tmp/renamed
is "$("$ctl" exec web -- cat /tmp/renamed)" one "cp to a new name"
"$ctl" cp web:/nothing "$work/t/" 2>"$work/err"
is $? 1 "cp of nothing fails"
# hostile: links in a tree that is copied out, and a destination with a link planted by an earlier copy
"$ctl" exec web -- sh -c 'mkdir -p /tmp/bad/d && ln -s /etc/passwd /tmp/bad/link && mkfifo /tmp/bad/fifo && echo x > /tmp/bad/d/f && chmod 4777 /tmp/bad/d/f'
mkdir -p "$work/t/bad" "$work/t/elsewhere"
ln -s "$work/t/elsewhere" "$work/t/bad/d"
"$ctl" cp web:/tmp/bad "$work/t" >/dev/null 2>"$work/err"
[ ! -e "$work/t/elsewhere/f" ]
ok $? "cp out does not write through a link in the destination"
rm "$work/t/bad/d"
"$ctl" cp web:/tmp/bad "$work/t" 2>"$work/err"
[ ! -e "$work/t/bad/link" ] && [ ! -L "$work/t/bad/link" ] && [ ! -p "$work/t/bad/fifo" ]
ok $? "cp out makes no links and no FIFOs"
has "$(cat "$work/err")" "2 links, devices or sockets were not copied" "and says so"
is "$(stat -c %a "$work/t/bad/d/f")" 755 "cp out drops setuid"
"$ctl" exec web -- printf '\033[31mred\007' >"$work/raw"
is "$(od -An -tx1 <"$work/raw" | tr -d ' \n')" 1b5b33316d72656407 "output bytes pass unchanged"

# --- volumes
"$ctl" volume create data >/dev/null
"$ctl" run -v data:/data -- sh -c 'echo kept > /data/f'
is "$("$ctl" run -v data:/data:ro -- cat /data/f)" kept "a named volume outlives its sandboxes"
"$ctl" run -v data:/data:ro -- sh -c 'echo x > /data/g' 2>/dev/null
[ $? != 0 ]
ok $? "a read-only volume cannot be written"
"$ctl" run -v "$work/shared":/s -- sh -c 'echo inside > /s/f'
is "$(cat "$work/shared/f")" inside "an allowed host path is written by root inside"
is "$(stat -c %u "$work/shared/f")" 0 "as the directory's owner"
"$ctl" run -v /etc:/e -- true 2>"$work/err"
is $? 125 "another host path is refused"
has "$(cat "$work/err")" "allowed_host_paths" "with the key that says why"
"$ctl" volume rm data >/dev/null
ok $? "volume rm"

# --- images
if busybox_tree "$work/image" sh tail cat ls echo; then
	"$ctl" image import "$work/image" box:1 -c /bin/sh >/dev/null
	ok $? "image import of a directory"
	tar -C "$work/image" -czf "$work/image.tgz" .
	"$ctl" image import "$work/image.tgz" box:gz >/dev/null
	ok $? "image import of a gzip archive"
	tar -C "$work/image" -c . | "$ctl" image import - box:pipe >/dev/null
	ok $? "image import from a pipe"
	is "$("$ctl" image ls -q | tr '\n' ' ')" "box:1 box:gz box:pipe " "image ls"
	is "$("$ctl" run --image docker.io/library/box:1 -- ls /bin | tr '\n' ' ')" "busybox cat echo ls sh tail " "it runs, by its long name too"
	is "$(echo 'echo from the image' | "$ctl" run -i --image box:1)" "from the image" "without a command the image's own is run"
	"$ctl" image rm box:1 box:gz box:pipe >/dev/null
	ok $? "image rm"
	rm "$work"/image/bin/[!b]* && mv "$work/image/bin/busybox" "$work/image/busybox"
	"$ctl" image import "$work/image" alone:1 >/dev/null
	is "$("$ctl" run --image alone:1 -- /busybox echo no shell)" "no shell" "an image that is one static program runs it"
	"$ctl" run --image alone:1 -- /busybox false
	is $? 1 "with its exit code"
	"$ctl" run --image alone:1 -- /nothing 2>/dev/null
	is $? 125 "what is not in it is 125"
	is "$("$ctl" ls -q)" "$id" "and no failed sandbox stays behind"
	"$ctl" image rm alone:1 >/dev/null
else
	for i in 1 2 3 4 5 6 7 8 9 10 11; do
		n=$((n + 1))
		echo "ok $n - image $i # SKIP no busybox (apt-get install busybox-static)"
	done
fi
printf 'no archive at all' >"$work/junk"
"$ctl" image import "$work/junk" junk:1 2>"$work/err"
is $? 1 "what is no archive is refused"
is "$("$ctl" image ls -q)" "" "and leaves no image"

# --- over TCP, with a key
url="http://$(head -n 1 "/run/sandboxd/$instance/address")"
"$ctl" --url "$url" ls 2>"$work/err"
is $? 1 "TCP without a key is refused"
has "$(cat "$work/err")" "OPEN_SANDBOX_API_KEY" "and the error says what to give"
is "$("$ctl" --url "$url" --key key-of-the-test ls -q)" "$id" "TCP with --key"
is "$(OPEN_SANDBOX_DOMAIN=${url#http://} OPEN_SANDBOX_API_KEY=key-of-the-test "$ctl" exec web -- echo tcp)" tcp "TCP by the environment"
OPEN_SANDBOX_DOMAIN=$url OPEN_SANDBOX_API_KEY=key-of-the-test sh "$srcdir/examples/quickstart.sh" >"$work/quick" 2>&1
ok $? "examples/quickstart.sh works"
has "$(cat "$work/quick")" "from outside" "and shows the file that it uploaded"

# --- the rest
"$ctl" doctor >/dev/null
[ $? -le 1 ]
ok $? "doctor"
has "$("$ctl" config)" "Unix socket" "config"
"$ctl" --socket "$work/none" ls 2>"$work/err"
is $? 1 "no daemon is an error"
has "$(cat "$work/err")" "sandboxd --standalone" "that says how to start one"
"$ctl" bogus 2>/dev/null
is $? 2 "an unknown command is 2"
is "$("$ctl" rm --all | wc -l)" 1 "rm --all"
is "$(count)" 0 "and nothing is left"
has "$("$ctl" ls | head -n 1)" "ID" "ls of nothing has its heads"

echo "1..$n"
exit $failed
