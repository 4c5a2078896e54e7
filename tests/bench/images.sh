#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# How long a warm image's overlay takes in the broker, and what 1,000 images cost at the start and in lists.  Needs root.
# BENCH_ROUNDS creates a line, BENCH_IMAGES images.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
rounds=${BENCH_ROUNDS:-200} images=${BENCH_IMAGES:-1000}
write_config <<-END
	[server]
	port = 0
	[log]
	level = "debug"
	[pool]
	target = 0
END
started() { # started: sets took, ms from the start to "ready"
	local begun
	begun=$(date +%s%3N)
	start_daemon || echo "# the daemon does not start"
	took=$(($(date +%s%3N) - begun))
}
started
# on a machine that does other things too: BENCH_RT=1 lets the two daemons go first
[ -z "${BENCH_RT:-}" ] || for name in broker sandboxd gateway; do chrt -a -r -p 10 "$(child $name)"; done
mkdir -p "$work/tree/bin"
cp "$(command -v busybox)" "$work/tree/bin/busybox"
for a in sh sleep touch; do ln -sf busybox "$work/tree/bin/$a"; done
ctl image import "$work/tree" one:1 >/dev/null
python3 - "$run/api.sock" "$rounds" "$images" "$log" <<'END'
import http.client, io, json, re, socket, sys, tarfile, time, urllib.parse

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])

rounds, images, log = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
c = Unix("localhost")

def call(method, path, body=None, kind="application/json"):
    c.request(method, path, body if isinstance(body, bytes) else json.dumps(body) if body is not None else None, {"Content-Type": kind} if body is not None else {})
    r = c.getresponse()
    data = r.read()
    return r.status, json.loads(data) if data else None

def quantiles(values):
    values.sort()
    return "p50 %.3f  p99 %.3f  (%d)" % (values[len(values) // 2] / 1000, values[len(values) * 99 // 100] / 1000, len(values))

def creates(image):
    at = len(open(log).read())
    for i in range(rounds):
        status, answer = call("POST", "/v1/sandboxes", {"image": {"uri": image}, "timeout": 600, "resourceLimits": {}, "entrypoint": ["sleep", "600"]})
        assert status in (200, 201, 202), answer
        call("DELETE", "/v1/sandboxes/" + answer["id"])
    return [int(us) for us in re.findall(r"root of \d+ layers in (\d+) us", open(log).read()[at:])]

print("overlay of 1 layer, ms in the broker:    %s" % quantiles(creates("one:1")))
# one layer more with each commit
status, s = call("POST", "/v1/sandboxes", {"image": {"uri": "one:1"}, "timeout": 3600, "resourceLimits": {}, "entrypoint": ["sleep", "3600"]})
name = "one:1"
for depth in range(2, 128):
    status, image = call("POST", "/v1/sandboxes/%s/commit" % s["id"], {"name": "deep:1", "pause": False})
    assert status == 201, image
    call("DELETE", "/v1/sandboxes/" + s["id"])
    status, s = call("POST", "/v1/sandboxes", {"image": {"uri": "deep:1"}, "timeout": 3600, "resourceLimits": {}, "entrypoint": ["sleep", "3600"]})
    assert status in (200, 201, 202), s
    if depth in (10, 127):
        assert len(image["layers"]) == depth
        call("POST", "/v1/images/deep:1/tag?name=deep:%d" % depth)
        print("overlay of %d layers, ms in the broker: %s" % (depth, quantiles(creates("deep:%d" % depth))))
call("DELETE", "/v1/sandboxes/" + s["id"])
begun = time.time()
for i in range(images):
    out = io.BytesIO()
    t = tarfile.open(fileobj=out, mode="w")
    info = tarfile.TarInfo("name%d" % i)
    t.addfile(info)
    t.close()
    status, answer = call("POST", "/v1/images/import?name=many:%d" % i, out.getvalue(), "application/x-tar")
    assert status == 201, answer
print("%d imports: %.1f s" % (images, time.time() - begun))
for what, method, path in (("list", "GET", "/v1/images"), ("usage", "GET", "/v1/usage"), ("gc --dry-run", "POST", "/v1/images/gc?dryRun=true"),
                           ("fsck --quick", "POST", "/v1/images/fsck?quick=true"), ("inspect", "GET", "/v1/images/many:%d" % (images // 2))):
    times = []
    for i in range(20):
        begun = time.time()
        assert call(method, path)[0] == 200
        times.append((time.time() - begun) * 1e6)
    print("%s with %d images, ms: %s" % (what, images, quantiles(times)))
print("overlay of 1 layer of %d, ms in the broker: %s" % (images, quantiles(creates("one:1"))))
END
stop_daemon
many='' empty=''
# in turn: the same state with all layers, and an empty one
for round in 1 2 3 4 5; do
	sed -i "s|^state_dir = .*|state_dir = \"$state\"|" "$work/config"
	started
	many="$many $took"
	stop_daemon
	mkdir -p "$work/empty"
	sed -i "s|^state_dir = .*|state_dir = \"$work/empty\"|" "$work/config"
	started
	empty="$empty $took"
	stop_daemon
done
echo "start with $(find "$state/layers" -mindepth 1 -maxdepth 1 | wc -l) layers, ms:$many"
echo "start with no layers, ms:$empty"
sed -i "s|^state_dir = .*|state_dir = \"$state\"|" "$work/config"
