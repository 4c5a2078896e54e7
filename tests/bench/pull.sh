#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Pull and unpack of an image of some 300 MB packed (525 MiB unpacked, five layers) from docker-registry on the same machine: ours, skopeo
# with umoci, podman, in turns.  Figures only, no verdict: pull.sh [ROUNDS].
: "${top_srcdir:=$(cd "$(dirname "$0")/../.." && pwd)}"
for tool in docker-registry skopeo umoci podman python3; do
	command -v "$tool" >/dev/null || echo "# $tool is missing: its row is left out"
done
. "$top_srcdir/tests/system/daemon_lib.sh"
rounds=${1:-3}
write_config <<-TOML
	[server]
	port = 0
	endpoint_port = 0
	[images]
	auth_file = ""
TOML
start_daemon || exit 1
export SANDBOXD_SOCKET=$run/api.sock
cat >"$work/registry.yml" <<-YML
	version: 0.1
	log: {level: error, accesslog: {disabled: true}}
	storage: {filesystem: {rootdirectory: $work/registry}}
	http: {addr: "127.0.0.1:5020"}
YML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry=$!
until_true 20 curl -s http://127.0.0.1:5020/v2/
image=127.0.0.1:5020/big:x
python3 "$top_srcdir/tests/images/make_oci.py" "$work/layout" x --layers 6 --pad 105 --text
skopeo copy -q --dest-tls-verify=false "oci:$work/layout:x" "docker://$image"
rm -rf "$work/layout"
du -sm "$work/registry" | awk '{print "# packed: " $1 " MiB"}'

now_ms() { date +%s%3N; }
ours() { "$top_builddir/sandboxctl" pull -q "$image" >/dev/null; }
ours_clean() { "$top_builddir/sandboxctl" image prune -a >/dev/null; }
skopeo_umoci() {
	skopeo copy -q --src-tls-verify=false "docker://$image" "oci:$work/copied:x" && umoci unpack --image "$work/copied:x" "$work/bundle" >/dev/null 2>&1
}
skopeo_umoci_clean() { rm -rf "$work/copied" "$work/bundle"; }
podman_pull() { podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay pull -q --tls-verify=false "$image" >/dev/null 2>"$work/podman.err"; }
podman_pull_clean() { podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay rmi -af >/dev/null 2>&1; }
ways="ours"
command -v umoci >/dev/null && ways="$ways skopeo_umoci"
command -v podman >/dev/null && ways="$ways podman_pull"
for round in $(seq "$rounds"); do
	for way in $ways; do
		"${way}_clean"
		sync
		begun=$(now_ms)
		if "$way"; then
			echo "$way $round $(($(now_ms) - begun))"
		else
			echo "$way $round failed: $(tail -n 1 "$work/podman.err" 2>/dev/null | head -c 200)"
		fi
	done
done | tee "$work/figures"
for way in $ways; do
	awk -v way="$way" '$1 == way && $3 ~ /^[0-9]+$/ {v[n++] = $3} END {if (n) {for (i = 0; i < n; i++) for (j = i + 1; j < n; j++) if (v[j] < v[i]) \
		{t = v[i]; v[i] = v[j]; v[j] = t} printf "%-14s median %6.2f s  best %6.2f s  of %d\n", way, v[int(n / 2)] / 1000, v[0] / 1000, n}}' "$work/figures"
done
kill $registry
podman --root "$work/podman" --runroot "$work/podman-run" system reset -f >/dev/null 2>&1
