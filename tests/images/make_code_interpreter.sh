#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make_code_interpreter.sh DIRECTORY: a root file system with what the code interpreter image of the published clients has:
# /opt/code-interpreter/code-interpreter.sh as its entrypoint, Python, Node, a JDK, and Go with a filled build cache.  It is put
# together from the Debian packages of this host (their files, with those that they depend on), so nothing is downloaded;
# what is not installed here is named and left out.  Needs root, for owners.  Then:
#
#	sandboxctl image import DIRECTORY code-interpreter:test
#	sandboxctl create --image code-interpreter:test -- /opt/code-interpreter/code-interpreter.sh
set -euo pipefail
root=${1:?usage: make_code_interpreter.sh DIRECTORY}
packages=(base-files base-passwd bash coreutils dash findutils grep sed gawk tar gzip procps util-linux ca-certificates curl tzdata
	python3 python3-matplotlib python3-numpy openjdk-17-jdk-headless golang-go golang-src nodejs esbuild)
mkdir -p "$root"/{usr/{bin,sbin,lib,lib64},etc,tmp,var/tmp,root,home,proc,sys,dev,run,opt/code-interpreter,workspace}
chmod 1777 "$root/tmp" "$root/var/tmp"
for link in bin sbin lib lib64; do
	[ -e "$root/$link" ] || ln -s "usr/$link" "$root/$link"
done

wanted=()
for package in "${packages[@]}"; do
	if dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
		wanted+=("$package")
	else
		echo "not installed here, left out: $package" >&2
	fi
done
closure=$(apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
	--no-enhances "${wanted[@]}" | grep '^[a-z0-9]' | sort -u)
echo "$closure" | while read -r package; do
	dpkg-query -L "$package" 2>/dev/null || dpkg-query -L "$package:$(dpkg --print-architecture)" 2>/dev/null || :
done | sort -u | grep -Ev '^/(\.|usr/share/(doc|man|locale|info|lintian|bug)(/|$)|var/lib/dpkg)' | while read -r path; do
	if [ -L "$path" ] || [ -f "$path" ]; then
		printf '%s\0' "${path#/}"
	fi
done | tar -C / --null --no-recursion -T - -cf - | tar -C "$root" --keep-directory-symlink -xf -

# Not from a package: a Node that was installed otherwise, with the libraries that it names.
if [ ! -e "$root/usr/bin/node" ] && node=$(command -v node); then
	cp -L "$node" "$root/usr/bin/node"
	ldd "$node" | grep -o '/[^ ]*' | while read -r library; do
		cp -Lu --parents "$library" "$root/"
	done
fi
# What maintainer scripts made.
cp -a /etc/alternatives "$root/etc/"
for file in passwd group nsswitch.conf ld.so.conf ld.so.conf.d ssl/certs java-17-openjdk os-release; do
	[ ! -e "/etc/$file" ] || cp -a --parents "/etc/$file" "$root/"
done
find /usr/bin /usr/lib -maxdepth 3 -type l -lname '/etc/alternatives/*' -print0 | tar -C / --null -T - -cf - 2>/dev/null | tar -C "$root" -xf -
ldconfig -r "$root"
# Accounts without their passwords; no key or credential of this host.
sed -i 's/^\([^:]*\):[^:]*:/\1:x:/' "$root/etc/passwd"
rm -rf "$root"/etc/{shadow,gshadow,machine-id,ssh}

cat >"$root/opt/code-interpreter/code-interpreter.sh" <<'SCRIPT'
#!/bin/bash
# Chooses versions for later commands through the file that EXECD_ENVS names, then waits.
set -u
env_file=${EXECD_ENVS:-/opt/opensandbox/.env}
mkdir -p "$(dirname "$env_file")"
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for dir in /opt/python/versions/${PYTHON_VERSION:-none}/bin /opt/node/${NODE_VERSION:-none}/bin /opt/go/${GO_VERSION:-none}/bin; do
	[ ! -d "$dir" ] || path=$dir:$path
done
for home in /usr/lib/jvm/java-${JAVA_VERSION:-17}-openjdk-*; do
	[ ! -d "$home" ] || { echo "JAVA_HOME=$home"; path=$home/bin:$path; }
done >>"$env_file"
echo "PATH=$path" >>"$env_file"
exec tail -f /dev/null
SCRIPT
chmod 755 "$root/opt/code-interpreter/code-interpreter.sh"

if [ -x "$root/usr/bin/go" ] && command -v go >/dev/null; then
	# the standard library as cells use it, built where the image's go looks for it
	here=$(cd "$(dirname "$0")/../.." && pwd -P)
	cp "$here/api/execd/code_drivers/go.go" "$root/tmp/driver.go"
	GOCACHE=$root/root/.cache/go-build GOFLAGS= go build -o /dev/null "$root/tmp/driver.go"
	GOCACHE=$root/root/.cache/go-build GOFLAGS= go build bufio bytes context encoding/json errors fmt math/rand net/http os regexp sort strconv \
		strings sync time
	rm "$root/tmp/driver.go"
fi
du -sm "$root" | cut -f1 | sed 's/$/ MiB/'
