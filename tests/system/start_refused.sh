#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Starts that must not succeed, each with a line that says what to do; and what a start must survive.
if [ -z "${START_TEST_INSIDE:-}" ] && [ "$(id -u)" = 0 ]; then
	START_TEST_INSIDE=1 exec unshare -m -- "$0" "$@"
fi
. "${top_srcdir:-.}/tests/system/daemon_lib.sh"
write_config <<-EOF
	[server]
	port = 0
	[pool]
	target = 0
EOF

refused() { # refused NAME TEXT ARGUMENT...: ends by itself, soon, with a status that is not 0, and says TEXT
	local name=$1 text=$2 out
	shift 2
	out=$(timeout 20 "$top_builddir/sandboxd" "$@" 2>&1)
	local code=$?
	[ $code != 0 ] && [ $code != 124 ] && case $out in *"$text"*) true ;; *) false ;; esac
	local good=$?
	ok $good "refused: $name"
	[ $good = 0 ] || printf '%s\n' "$out" | sed "s/^/# ($code) /" | tail -5
}
daemon() { echo --standalone --config "$work/config" "$@"; }

refused "no such file" "No such file" --standalone --config "$work/nothing"
printf '[server]\nport = "x"\n' >"$work/bad"
refused "a bad value, with file and line" "$work/bad:2: server.port" --standalone --config "$work/bad"
refused "the same when only checked" "$work/bad:2: server.port" --check-config --config "$work/bad"
refused "an unknown command" "unknown command" frobnicate
refused "a state directory on overlay" "is on overlay" $(
	mkdir -p "$work/lower" "$work/upper" "$work/w" "$work/overlay"
	mount -t overlay none -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/w" "$work/overlay"
	daemon --state-dir "$work/overlay"
)
mount -t tmpfs -o size=64k,mode=755 none "$work/lower"
head -c 64k /dev/zero >"$work/lower/fill" 2>/dev/null
refused "a full state directory" "No space left" $(daemon --state-dir "$work/lower")
umount "$work/lower"
mount -t tmpfs -o size=16m,mode=755 none "$work/lower"
sed 's/^port = 0/&\nunix_socket_owner = "nobody-of-this-name"/' "$work/config" >"$work/owner"
refused "an unknown owner of the socket" 'there is no user "nobody-of-this-name"' --standalone --config "$work/owner"
refused "a run directory that is too long for a socket" "run_dir needs 0 to 80" $(daemon --run-dir "$work/$(printf 'x%.0s' $(seq 120))")
base=$((0x78000000 - instance * 0x8000000))
cp /etc/subuid "$work/subuid" 2>/dev/null || : >"$work/subuid"
echo "somebody:$((base + 65536)):65536" >>"$work/subuid"
if [ -e /etc/subuid ] && mount --bind "$work/subuid" /etc/subuid; then
	refused "ids that /etc/subuid has given away" "subuid" $(daemon)
	umount /etc/subuid
else
	ok 0 "ids that /etc/subuid has given away # SKIP there is no /etc/subuid to cover"
fi
ip link add lan0 type veth peer name lan1 && ip link set lan0 up && ip link set lan1 up
ip addr add "10.$((213 + instance)).7.1/24" dev lan0
refused "a subnet that this host has a route into" "10.$((213 + instance))" $(daemon)
ip link del lan0
setpriv --reuid 65534 --clear-groups true 2>/dev/null && {
	cp "$top_builddir/sandboxd" "$work/sandboxd" && chmod 755 "$work/sandboxd"
	out=$(setpriv --reuid 65534 --clear-groups "$work/sandboxd" --standalone --config /dev/null 2>&1)
	case $out in *"needs root"*) ok 0 "refused: not root" ;; *) ok 1 "refused: not root"; printf '# %s\n' "$out" ;; esac
}

umount "$work/overlay" "$work/lower"

# ---- and what it lives with ----
"$top_builddir/sandboxd" init-config "$work/deep/er/config.toml" >/dev/null && "$top_builddir/sandboxd" --check-config \
	--config "$work/deep/er/config.toml" | grep -q 'valid, 0 warnings'
ok $? "what init-config writes is valid and without a warning"
"$top_builddir/sandboxd" init-config "$work/deep/er/config.toml" >/dev/null 2>&1
is $? 1 "init-config does not write over a file"
mkdir "$work/closed" "$work/closed/state"
chmod 700 "$work/closed"
state=$work/closed/state
sed -i "s|^state_dir.*|state_dir = \"$state\"|" "$work/config"
start_daemon
ok $? "a state directory below one that only root may enter"
id=$(create)
is "$(state_of "$id")" Running "and a sandbox on it"
api DELETE "/v1/sandboxes/$id" >/dev/null
is "$(status)" 204 "which is deleted"
is "$(stat -c %a "$run/api.sock") $(stat -c %a "$run/key") $(stat -c %a "$state/key")" "600 600 600" "socket and key are root's"
for name in sandboxd gateway dnsd; do
	pid=$(child $name)
	is "$(awk '/^(Uid|CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):/ {printf "%s ", $1 == "Uid:" ? ($2 > 1000000 ? "other" : $2) : $2}' \
		"/proc/$pid/status")" "other 0000000000000000 0000000000000000 0000000000000000 1 2 " "$name: no privilege"
done
stop_daemon
is "$(find "$run" -maxdepth 1 -type s | wc -l)" 0 "after the end no socket is left"
done_testing
