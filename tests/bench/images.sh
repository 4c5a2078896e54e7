#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What a create waits for its root, how long the overlay of a warm image takes in the broker, and what 1,000 images cost at the start
# and in lists.  Needs root.  BENCH_ROUNDS creates a line, BENCH_IMAGES images.
. "${top_srcdir:-.}/tests/system/daemon_lib.sh" || exit 1
rounds=${BENCH_ROUNDS:-200} images=${BENCH_IMAGES:-1000}
config() { # config POOL
	write_config <<-END
	[server]
	port = 0
	[log]
	level = "debug"
	[pool]
	target = $1
	END
}
started() { # started: sets took, ms from the start to "ready"
	local begun
	begun=$(date +%s%3N)
	start_daemon || echo "# the daemon does not start"
	took=$(($(date +%s%3N) - begun))
}
# on a machine that does other things too: BENCH_RT=1 lets the daemons go first
first() { [ -z "${BENCH_RT:-}" ] || for name in broker sandboxd gateway; do chrt -a -r -p 10 "$(child $name)"; done; }
config 0
started
first
busybox_tree "$work/tree" sh sleep touch
ctl image import "$work/tree" one:1 >/dev/null
echo other >"$work/tree/name"
ctl image import "$work/tree" other:1 >/dev/null
cat >"$work/creates.py" <<'END'
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
    return "p50 %.3f  p99 %.3f  (%d)" % (values[len(values) // 2] / 1000, values[len(values) * 99 // 100] / 1000, len(values)) if values else "none"

# What the broker says about a root: mounted while a create waits, taken because it was mounted ahead, or mounted for nobody yet.
SAYS = {"in line": r"us$", "taken": r"us, mounted ahead$", "ahead": r"us, ahead$", "pool": r"us, for the pool$"}

def one(image):
    status, answer = call("POST", "/v1/sandboxes", {"image": {"uri": image}, "timeout": 600, "resourceLimits": {}, "entrypoint": ["sleep", "600"]})
    assert status in (200, 201, 202), answer
    call("DELETE", "/v1/sandboxes/" + answer["id"])
    time.sleep(0.02) # a client does something with it, and the broker has its quiet moments

# Microseconds of the roots of images with so many layers.  With between, creates of that image come in between, so that no root of the
# first one is ever mounted ahead.
def roots(image, layers, between=None):
    for i in range(3):
        one(between or image)
    at = len(open(log).read())
    for i in range(rounds):
        one(image)
        if between:
            one(between)
    text = open(log).read()[at:]
    return {name: [int(us) for us in re.findall(r"root of %d layers in (\d+) %s" % (layers, says), text, re.M)] for name, says in SAYS.items()}

def report(image, layers, between):
    r = roots(image, layers)
    print("root of %d layers, what a create waits for it, ms: %s; %d of them had been mounted ahead" % (layers, quantiles(r["in line"] + r["taken"]), len(r["taken"])))
    print("    its mount, before a create asks, ms:  %s" % quantiles(r["ahead"]))
    print("    its mount, while a create waits, ms:  %s" % quantiles(roots(image, layers, between)["in line"]))

if sys.argv[5] == "pool":
    r = roots("one:1", 1)
    waited = r["in line"] + r["taken"]
    print("with a pool of shells, %d of %d creates found a shell with the root; the others waited, ms: %s" % (rounds - len(waited), rounds, quantiles(waited)))
    print("    its mount, for a shell that waits, ms: %s" % quantiles(r["pool"]))
    sys.exit(0)
report("one:1", 1, "other:1")
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
        report("deep:%d" % depth, depth, "one:1")
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
print("with %d images:" % images)
report("one:1", 1, "other:1")
END
creates() { python3 "$work/creates.py" "$run/api.sock" "$rounds" "$images" "$log" "$1"; }
creates all
stop_daemon
config 8
started
first
creates pool
stop_daemon
config 0
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
