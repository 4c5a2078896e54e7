# SPDX-License-Identifier: Apache-2.0
# Shared by ./setup and ./run-tests (bash): packages, a copy of the sources to build from, progress lines.

build_packages="autoconf automake gcc make pkg-config libc6-dev linux-libc-dev musl-tools perl
	libarchive-dev libcap-dev libcjson-dev libcurl4-openssl-dev libidn2-dev libnftables-dev libnl-route-3-dev libseccomp-dev libsqlite3-dev libssl-dev"

# Everything is built from a copy below _build/, so that a tree in which somebody ran ./configure builds too.
work="$top/_build"

die() {
	echo "$program: $*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] && return
	command -v sudo >/dev/null || die "needs root; run it as root"
	exec sudo -- "$top/$program" "$@"
}

# Prints those of the given packages that are not installed; PROGRAM=PACKAGE is there when the program is, wherever from.
missing_packages() {
	local p
	for p in "$@"; do
		case $p in
		*=*)
			command -v "${p%%=*}" >/dev/null || echo "${p#*=}"
			continue
			;;
		esac
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || echo "$p"
	done
}

# Installs what is missing; its output goes to $log.  Sets n_installed.
install_packages() {
	local missing
	command -v apt-get >/dev/null || die "knows Debian and its relatives only; install by hand: $*"
	missing=$(missing_packages "$@")
	n_installed=$(printf '%s' "$missing" | grep -c .)
	[ "$n_installed" = 0 ] && return 0
	export DEBIAN_FRONTEND=noninteractive
	# shellcheck disable=SC2086
	{ apt-get update && apt-get install -y --no-install-recommends $missing; } >>"$log" 2>&1 ||
		{ tail -n 20 "$log" >&2; die "apt-get failed; see $log"; }
}

# Copies the sources to _build/src and makes ./configure there.  Times are kept, so make rebuilds only what changed.
copy_sources() {
	local list="$work/files" git="git -c safe.directory=*"
	mkdir -p "$work/src"
	if [ -e "$top/.git" ] && command -v git >/dev/null; then
		(cd "$top" && $git ls-files -co --exclude-standard | while IFS= read -r f; do [ -e "$f" ] && printf '%s\n' "$f"; done) >"$list.new"
	else
		(cd "$top" && find . \( -path ./_build -o -path ./build -o -name .deps -o -name autom4te.cache \) -prune -o \
			-type f ! -name '*.[oa]' ! -name config.status ! -name 'config.h*' ! -path ./Makefile -print) >"$list.new"
	fi
	# what is no longer there must not be built
	if [ -e "$list" ]; then
		sort "$list" >"$list.old.sorted"
		sort "$list.new" >"$list.new.sorted"
		comm -23 "$list.old.sorted" "$list.new.sorted" | (cd "$work/src" && while IFS= read -r f; do rm -f "$f"; done)
		rm -f "$list.old.sorted" "$list.new.sorted"
	fi
	mv "$list.new" "$list"
	tar -C "$top" --verbatim-files-from -T "$list" -cf - | tar -C "$work/src" -xf - || die "cannot copy the sources"
	if [ ! -x "$work/src/configure" ] || [ "$work/src/configure.ac" -nt "$work/src/configure" ] ||
		[ -n "$(find "$work/src" -name '*.mk' -newer "$work/src/configure" -print -quit)" ]; then
		(cd "$work/src" && autoreconf -fi && touch configure) >>"$log" 2>&1 ||
			{ tail -n 20 "$log" >&2; die "autoreconf failed; see $log"; }
	fi
}

# build_tree NAME CONFIGURE-ARGUMENT...: configures and builds _build/NAME.
build_tree() {
	local dir="$work/$1"
	shift
	mkdir -p "$dir"
	(
		cd "$dir" || exit 1
		if [ ! -e Makefile ] || [ ../src/configure -nt Makefile ]; then
			../src/configure --silent "$@" || exit 1
		fi
		make -j"$(nproc)" all
	) >>"$log" 2>&1
}

now_ms() {
	local t=${EPOCHREALTIME/[.,]/}
	echo $((t / 1000))
}

seconds_since() { # MS
	local d=$(($(now_ms) - $1))
	if [ $d -ge 60000 ]; then
		printf '%d min %d s' $((d / 60000)) $((d % 60000 / 1000))
	else
		printf '%d.%d s' $((d / 1000)) $((d % 1000 / 100))
	fi
}
