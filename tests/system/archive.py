#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What archive.sh runs.  Prints TAP; exits 1 when a row failed.  Arguments choose sections by name."""
import copy, gzip, hashlib, http.client, io, json, os, random, shutil, stat, struct, subprocess, sys, tarfile, urllib.parse

import images_lib as lib
from images_lib import BUILD, CTL, E, LOG, STATE, WORK, Unix, armed, call, fault_points, have, ok, quietly, remove, skip, until

HERE = os.path.dirname(os.path.abspath(__file__))
OCI = "application/vnd.oci.image."
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
def post(data, **query):
    """Status and answer of an import."""
    return call("POST", "/v1/images/import?" + urllib.parse.urlencode(query), data)


def ctl(*args, stdin=None, timeout=120):
    return subprocess.run([CTL, *args], capture_output=True, stdin=stdin, timeout=timeout)


def run(image, *command):
    p = ctl("run", "--image", image, "--", *command)
    return p.stdout.decode() + p.stderr.decode()


def sh(*args, **more):
    return subprocess.run(args, capture_output=True, timeout=120, **more)


def store():
    """What an import could leave behind."""
    out = []
    for d in ("blobs/sha256", "blobs/partial", "images", "import"):
        path = STATE + "/state/" + d
        out += [d + "/" + n for n in os.listdir(path)] if os.path.isdir(path) else []
    out += ["layers/" + n for n in os.listdir(STATE + "/layers") if b"host".hex() not in n]  # each broker makes the embedded image's anew
    return sorted(out)


# ---- making archives ----

def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(value):
    return json.dumps(value, sort_keys=True).encode()


def entry(name, data=b"", kind=tarfile.REGTYPE, link="", **more):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data) if kind == tarfile.REGTYPE else 0, 0o755 if kind == tarfile.DIRTYPE else 0o644
    for k, v in more.items():
        setattr(info, k, v)
    return info, data


def tar(entries, form=tarfile.GNU_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data) if info.size else None)
    return out.getvalue()


serial = random.Random(int.from_bytes(os.urandom(8), "big"))


def small_layer(*more):
    return tar([entry("unique", b"%d" % serial.getrandbits(64))] + list(more))


class Archive:
    """An OCI layout that can be spoilt before it is written; every one has bytes of its own."""

    def __init__(self, layers=None, arch=ARCH):
        self.blobs, self.order = {}, []
        self.layers = layers or [small_layer()]
        self.config = {"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest(l) for l in self.layers]}}
        self.manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json"}
        self.index = {"schemaVersion": 2}
        self.descriptor = {}
        self.layout = {"imageLayoutVersion": "1.0.0"}
        self.names = {}  # name of a member -> other entries for it
        self.extra = []

    def put(self, data, media, **more):
        self.blobs[digest(data)] = data
        return dict({"mediaType": media, "digest": digest(data), "size": len(data)}, **more)

    def seal(self, layer_media=OCI + "layer.v1.tar", config_media=OCI + "config.v1+json"):
        self.manifest.setdefault("config", self.put(dump(self.config), config_media))
        self.manifest.setdefault("layers", [self.put(l, layer_media) for l in self.layers])
        self.descriptor = self.put(dump(self.manifest), OCI + "manifest.v1+json")
        self.index.setdefault("manifests", [self.descriptor])
        return self

    def entries(self):
        rows = [entry("oci-layout", dump(self.layout)), entry("index.json", dump(self.index) if isinstance(self.index, dict) else self.index)]
        rows += [entry("blobs/", kind=tarfile.DIRTYPE), entry("blobs/sha256/", kind=tarfile.DIRTYPE)]
        rows += [entry("blobs/" + d.replace(":", "/"), data) for d, data in self.blobs.items()]
        return [r for r in rows if r[0].name not in self.names] + [e for l in self.names.values() for e in l] + self.extra

    def bytes(self, **more):
        return tar(self.entries(), **more)


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


def docker(layers=None, tags=("saved:1",), change=None, old=True, links=True):
    """What docker save wrote before OCI: <id>/layer.tar, a second one as a link to it."""
    layers = layers or [small_layer()]
    config = {"architecture": ARCH, "os": "linux", "config": {"Env": ["FROM=docker"], "Cmd": ["/bin/sh"]},
              "rootfs": {"type": "layers", "diff_ids": [digest(l) for l in layers]}}
    rows, names, first = [], [], {}
    for i, layer in enumerate(layers):
        d = hashlib.sha256(b"%d" % i + layer).hexdigest()
        rows += [entry(d + "/", kind=tarfile.DIRTYPE), entry(d + "/VERSION", b"1.0"), entry(d + "/json", b"{}")]
        if layer in first and links:
            rows.append(entry(d + "/layer.tar", kind=tarfile.SYMTYPE, link="../%s/layer.tar" % first[layer]))
        else:
            rows.append(entry(d + "/layer.tar", layer))
            first.setdefault(layer, d)
        names.append(d + "/layer.tar")
    raw = dump(config)
    name = hashlib.sha256(raw).hexdigest() + ".json"
    listed = [{"Config": name, "RepoTags": list(tags), "Layers": names}]
    state = {"config": config, "raw": raw, "name": name, "list": listed, "rows": rows}
    if change:
        change(state)
    return tar(state["rows"] + [entry(state["name"], state["raw"]), entry("manifest.json", dump(state["list"])), entry("repositories", b"{}")])


def acl(*entries):
    """An ACL as the kernel takes it, of (tag, permissions, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, perm, ident) for tag, perm, ident in entries)


OWNER, USER, OWNERS, GROUP, MASK, OTHER, NOBODY = 1, 2, 4, 8, 16, 32, 0xffffffff


# ---- sections ----

def accepted():
    oci = WORK + "/oci"
    subprocess.run([sys.executable, HERE + "/../images/make_oci.py", oci, "v1", "--layers", "3", "--index"], check=True)
    p = ctl("image", "import", oci, "dir:1")
    ok(p.returncode == 0 and run("dir:1", "cat", "/etc/version") == "2\n", "a layout in a directory, through an index of platforms", p.stderr)
    ok("remove-me" not in run("dir:1", "ls", "/etc"), "and its whiteout hides")
    sh("tar", "-C", oci, "-cf", WORK + "/oci.tar", ".")
    plain = open(WORK + "/oci.tar", "rb").read()
    packed = {"plain": plain, "gzip": gzip.compress(plain, 1)}
    if have("zstd"):
        packed["zstd"] = sh("zstd", "-q", "-c", input=plain).stdout
    for form, data in packed.items():
        status, image = post(data, name="tar:" + form)
        ok(status == 201 and image["manifest"] == call("GET", "/v1/images/dir%3A1")[1]["manifest"], "the same as a tar, " + form, image)
    ok(run("tar:gzip", "cat", "/etc/version") == "2\n", "and it runs")
    with open(WORK + "/oci.tar", "rb") as f:
        p = ctl("image", "import", "-o", "json", "-", "pipe:1", stdin=f)
    ok(p.returncode == 0 and json.loads(p.stdout)["name"] == "pipe:1", "through a pipe", p.stderr)
    status, answer = post(plain)
    ok(status == 400 and "name is required" in answer["message"], "a tag alone is no name", answer)

    a = Archive().seal()
    a.index["manifests"][0]["annotations"] = {"io.containerd.image.name": "docker.io/library/of-itself:3"}
    status, image = post(a.bytes())
    ok(status == 201 and image["name"] == "of-itself:3", "a name of its own", image)
    status, image = post(a.bytes(), name="of-mine:1")
    ok(status == 201 and image["name"] == "of-mine:1", "is not taken when one is given", image)
    status, image = post(a.bytes(form=tarfile.PAX_FORMAT), name="of-mine:2", kind="oci")
    ok(status == 201, "pax heads", image)

    one, two = Archive().seal(), Archive().seal()
    for x, ref in ((one, "first"), (two, "second")):
        x.index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": ref}
    one.blobs.update(two.blobs)
    one.index["manifests"] += two.index["manifests"]
    status, answer = post(one.bytes(), name="several:1")
    ok(status == 400 and "first, second" in answer["message"], "several images: which one?", answer)
    status, image = post(one.bytes(), name="several:1", ref="second")
    ok(status == 201 and image["manifest"] == two.descriptor["digest"], "the one that is meant", image)

    here, there = Archive().seal(), Archive(arch="s390x").seal()
    here.blobs.update(there.blobs)
    here.index["manifests"] = [dict(there.descriptor, platform={"os": "linux", "architecture": "s390x"}),
                               dict(here.descriptor, platform={"os": "linux", "architecture": ARCH}),
                               dict(here.descriptor, annotations={"vnd.docker.reference.type": "attestation-manifest"})]
    status, image = post(here.bytes(), name="platforms:1")
    ok(status == 201 and image["manifest"] == here.descriptor["digest"], "index.json as the list of platforms, with an attestation", image)

    base = small_layer()
    status, image = post(docker([base, small_layer(), base]))
    ok(status == 201 and image["name"] == "saved:1" and len(image["layers"]) == 3 and image["env"] == ["FROM=docker"],
       "docker save of old, a layer twice by a link", image)
    status, image = post(gzip.compress(docker(), 1), name="saved:2")
    ok(status == 201, "docker save through gzip", image)
    status, image = post(docker(tags=[]), name="saved:3", kind="docker")
    ok(status == 201, "docker save without a name", image)
    a = Archive().seal()
    hexes = [x["digest"][7:] for x in [a.manifest["config"]] + a.manifest["layers"]]
    a.extra = [entry("manifest.json", dump([{"Config": "blobs/sha256/" + hexes[0], "RepoTags": ["new:1"],
                                            "Layers": ["blobs/sha256/" + h for h in hexes[1:]]}])), entry("repositories", b"{}")]
    status, image = post(a.bytes(), name="saved:4")
    ok(status == 201 and image["manifest"] == a.descriptor["digest"], "docker save of today is an OCI layout", image)
    status, image = post(a.bytes(), kind="docker")
    ok(status == 201 and image["name"] == "new:1", "and has the old documents too", image)
    status, image = post(tar([entry("bin/", kind=tarfile.DIRTYPE), entry("bin/x", b"x")]), name="root:1", workdir="/bin")
    ok(status == 201 and image["workdir"] == "/bin" and "manifest" not in image, "anything else is a root file system", image)
    status, image = post(Archive().seal().bytes(), name="root:2", kind="rootfs")
    ok(status == 201 and "manifest" not in image, "also a layout when that is said", image)

    c = Unix("localhost")
    c.request("POST", "/v1/images/import?events=true&name=events:1", Archive([small_layer() for _ in range(8)]).seal().bytes())
    r = c.getresponse()
    events = [json.loads(l[6:]) for l in r.read().splitlines() if l.startswith(b"data: ")]
    c.close()
    ok(r.status == 200 and events and events[-1]["type"] == "done" and events[-1]["image"]["name"] == "events:1", "with events", events[-1:])
    c = Unix("localhost")
    c.request("POST", "/v1/images/import?events=true&name=events:2", flip(Archive().seal().bytes()))
    events = [json.loads(l[6:]) for l in c.getresponse().read().splitlines() if l.startswith(b"data: ")]
    c.close()
    ok(events and events[-1]["type"] == "error" and events[-1]["error"]["code"] == "IMAGE::INVALID", "the last of which may be an error", events)
    remove(*[i["name"] for i in call("GET", "/v1/images")[1]["items"]])


def oci(change, **seal):
    a = Archive()
    change(a)
    return a.bytes()


def spoil(what, **more):
    """A sealed archive that @what changes."""
    a = Archive(**more).seal()
    what(a)
    return a.bytes()


def hostile_rows():
    def lying(a):
        d = a.manifest["layers"][0]["digest"]
        a.blobs[d] = flip(a.blobs[d])

    def missing(key):
        def change(a):
            del a.blobs[key(a)]
        return change

    def resized(a):
        a.manifest["layers"][0]["size"] += 1
        a.descriptor = a.put(dump(a.manifest), OCI + "manifest.v1+json")
        a.index["manifests"] = [a.descriptor]

    def index_of_index(a):
        inner = a.put(dump({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [dict(a.descriptor, platform={"os": "linux", "architecture": ARCH})]}), OCI + "index.v1+json")
        outer = a.put(dump({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [dict(inner, platform={"os": "linux", "architecture": ARCH})]}), OCI + "index.v1+json")
        a.index["manifests"] = [outer]

    def loop(a):
        name = "sha256:" + "ab" * 32
        a.blobs[name] = dump({"schemaVersion": 2, "mediaType": OCI + "index.v1+json",
                              "manifests": [{"mediaType": OCI + "index.v1+json", "digest": name, "size": 1, "platform": {"os": "linux", "architecture": ARCH}}]})
        a.index["manifests"] = [{"mediaType": OCI + "index.v1+json", "digest": name, "size": len(a.blobs[name])}]

    def media(layer=None, config=None):
        a = Archive()
        a.seal(*([layer] if layer else []), **({"config_media": config} if config else {}))
        return a.bytes()

    def named(name, *entries):
        def change(a):
            a.names[name] = list(entries)
        return change

    def extra(*entries):
        def change(a):
            a.extra = list(entries)
        return change

    def config_of(**more):
        a = Archive()
        a.config.update(more)
        return a.seal().bytes()

    def sparse(a):
        info = tarfile.TarInfo("index.json")
        info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "index.json", "GNU.sparse.size": "1099511627776",
                            "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,2"}
        info.size = 2
        a.names["index.json"] = [(info, b"{}")]

    good = Archive().seal()
    blob = "blobs/" + good.manifest["layers"][0]["digest"].replace(":", "/")
    I, L, R = "IMAGE::INVALID", "GENERAL::OVERLOADED", "INVALID"
    many = [entry("blobs/sha256/%064x" % i) for i in range(4200)]
    yield "a layer with another digest", spoil(lying), I, "have the digest"
    yield "a layer that is not there", spoil(missing(lambda a: a.manifest["layers"][0]["digest"])), I, "is not there"
    yield "a configuration that is not there", spoil(missing(lambda a: a.manifest["config"]["digest"])), I, "is not there"
    yield "a manifest that is not there", spoil(missing(lambda a: a.descriptor["digest"])), I, "not in the archive"
    yield "a manifest with another digest", spoil(lambda a: a.blobs.update({a.descriptor["digest"]: flip(dump(a.manifest))})), I, "another digest"
    yield "a layer of another size", spoil(resized), I, "its descriptor says"
    yield "a manifest of another size", spoil(lambda a: a.descriptor.update(size=7)), I, "another size"
    yield "a diff id of something else", config_of(rootfs={"type": "layers", "diff_ids": [digest(b"x")]}), I, "not that of the configuration"
    yield "too few diff ids", config_of(rootfs={"type": "layers", "diff_ids": []}), I, "diff_ids"
    yield "index.json is no JSON", spoil(lambda a: setattr(a, "index", b"{")), I, "index.json"
    yield "index.json is no object", spoil(lambda a: setattr(a, "index", b"[]")), I, "index.json"
    yield "index.json of 5 MiB", spoil(lambda a: setattr(a, "index", b" " * (5 << 20))), I, "more than"
    yield "index.json of 2,000 manifests", spoil(lambda a: a.index.update(manifests=[a.descriptor] * 2000)), I, "at most 1024"
    yield "index.json without manifests", spoil(lambda a: a.index.update(manifests=[])), I, "names no image"
    yield "an index in an index in an index", spoil(index_of_index), I, "media type"
    yield "an index that names itself", spoil(loop), I, "another digest"
    yield "an artifact", media(config="application/vnd.example.thing+json"), I, "configuration of a container image"
    yield "a foreign layer", media(OCI + "layer.nondistributable.v1.tar"), I, "foreign"
    yield "an encrypted layer", media(OCI + "layer.v1.tar+encrypted"), I, "encrypted"
    yield "a layer of an unknown kind", media("application/vnd.example.layer"), I, "media type"
    yield "attestations only", spoil(lambda a: a.descriptor.update(annotations={"vnd.docker.reference.type": "attestation-manifest"})), I, "no image"
    yield "another processor", Archive(arch="s390x").seal().bytes(), I, "s390x"
    yield "a digest that is not sha256", spoil(lambda a: a.descriptor.update(digest="sha512:" + "0" * 128)), I, "sha256"
    yield "a blob that is a symbolic link", spoil(named(blob, entry(blob, kind=tarfile.SYMTYPE, link="../../index.json")), ), I, "link where a file belongs"
    yield "index.json is a link out", spoil(named("index.json", entry("index.json", kind=tarfile.SYMTYPE, link="/etc/passwd"))), I, "link out"
    yield "index.json is a link upwards", spoil(named("index.json", entry("index.json", kind=tarfile.SYMTYPE, link="../../../etc/passwd"))), I, "link out"
    yield "index.json is a link to nothing", spoil(named("index.json", entry("index.json", kind=tarfile.SYMTYPE, link="nothing"))), I, "link to nothing"
    yield "index.json is a link to itself", spoil(named("index.json", entry("index.json", kind=tarfile.SYMTYPE, link="index.json"))), I, "link to nothing"
    yield "index.json is a hard link out", spoil(named("index.json", entry("index.json", kind=tarfile.LNKTYPE, link="../../etc/passwd"))), I, "link out"
    yield "index.json is a device", spoil(named("index.json", entry("index.json", kind=tarfile.CHRTYPE, devmajor=1, devminor=5))), I, "no plain file"
    yield "index.json is a FIFO", spoil(named("index.json", entry("index.json", kind=tarfile.FIFOTYPE))), I, "no plain file"
    yield "index.json twice", spoil(extra(entry("index.json", b"{}"))), I, "twice"
    yield "a blob twice under two spellings", spoil(lambda a: extra(entry("./blobs//sha256/" + a.descriptor["digest"][7:], b"x"))(a)), I, "twice"
    a = Archive().seal()
    sparse(a)
    yield "index.json is 1 TiB of holes", a.bytes(form=tarfile.PAX_FORMAT), I, "holes"
    yield "a member that climbs", spoil(extra(entry("../../etc/cron.d/x", b"x"))), I, ".."
    yield "an absolute member", spoil(extra(entry("/etc/cron.d/x", b"x"))), I, "absolute"
    yield "a member of no image archive", spoil(extra(entry("evil.sh", b"x"))), I, "no such file"
    yield "half a layout", spoil(named("oci-layout")), I, "half"
    yield "a layout of version 2", spoil(lambda a: a.layout.update(imageLayoutVersion="2.0.0")), I, "version"
    yield "4,200 members", tar([entry("oci-layout", b"{}")] + many), L, "4096 members"
    yield "cut in the middle", good.bytes()[:-12000], I, ""
    yield "a head that is damaged", flip(good.bytes()), I, ""
    yield "broken gzip", (lambda z: z[:len(z) // 2])(gzip.compress(good.bytes(), 1)), I, "blob"
    big = tarfile.TarInfo("index.json")
    big.size = 160 << 20
    zeros = gzip.compress(bytes(1 << 20))
    yield "a gzip bomb", gzip.compress(tar([entry("oci-layout", b"{}")])[:1024] + big.tobuf(tarfile.GNU_FORMAT)) + zeros * 160, L, "unpacks to more"
    yield "a layer that climbs", Archive([small_layer(entry("../out", b"x"))]).seal().bytes(), I, ".."
    yield "a layer with a device", Archive([small_layer(entry("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3))]).seal().bytes(), I, "device"
    yield "a good layer below a bad one", Archive([small_layer(), small_layer(entry("/abs", b"x"))]).seal().bytes(), I, "absolute"
    # it is still being unpacked when the bad one has ended the import
    yield "a long good layer below a bad one", Archive(
        [small_layer(*[entry(f"f{i}", b"x" * 4096) for i in range(6000)]), small_layer(entry("/abs", b"x"))]).seal().bytes(), I, "absolute"

    def listed(**more):
        return lambda s: s["list"][0].update(more)
    yield "docker save: a layer that is not there", docker(change=listed(Layers=["f" * 64 + "/layer.tar"])), I, "not in the archive"
    yield "docker save: a configuration that is not there", docker(change=listed(Config="f" * 64 + ".json")), I, "not in the archive"
    yield "docker save: a layer outside", docker(change=listed(Layers=["../../../etc/shadow"])), I, "not in the archive"
    yield "docker save: no layers", docker(change=listed(Layers=[])), I, "1 to 127"
    yield "docker save: 200 layers", docker(change=lambda s: s["list"][0].update(Layers=s["list"][0]["Layers"] * 200)), I, "1 to 127"
    yield "docker save: no list", docker(change=lambda s: s.update(list={"x": 1})), I, "no list"
    yield "docker save: links in a ring", docker(change=lambda s: s["rows"].extend(
        [entry("a" * 64 + "/layer.tar", kind=tarfile.SYMTYPE, link="../" + "b" * 64 + "/layer.tar"),
         entry("b" * 64 + "/layer.tar", kind=tarfile.SYMTYPE, link="../" + "a" * 64 + "/layer.tar")])), I, "link to nothing"
    yield "docker save: a diff id of something else", docker(change=lambda s: s.update(
        raw=dump(dict(s["config"], rootfs={"type": "layers", "diff_ids": [digest(b"x")]})))), I, "not that of the configuration"
    yield "docker save: several images", docker(change=lambda s: s["list"].append(dict(s["list"][0], RepoTags=["other:1"]))), R, "saved:1, other:1"


def hostile():
    before = store()
    canary = os.stat("/etc/passwd")
    for why, data, code, text in hostile_rows():
        status, answer = post(data, name="bad:1")
        good = 400 <= status <= 503 and status != 500 and code in answer["code"] and text in answer["message"]
        same = until(10, lambda: store() == before) if status != 201 else False
        ok(good and same, "refused: " + why, (status, answer, sorted(set(store()) ^ set(before))))
        if not same:
            remove("bad:1")
            before = store()
    ok(os.stat("/etc/passwd") == canary, "nothing outside was touched")
    for query, text in (({"kind": "docker"}, "manifest.json"), ({"kind": "zip"}, "kind"), ({"ref": "x"}, "no image"), ({"env": "A=b"}, "root file systems")):
        status, answer = post(Archive().seal().bytes(), name="bad:1", **query)
        ok(status == 400 and text in answer["message"], "refused: %s" % query, answer)
    status, answer = post(docker(), name="bad:1", kind="oci")
    ok(status == 400 and "no OCI layout" in answer["message"], "docker save is not a layout", answer)
    ok(until(10, lambda: store() == before), "and nothing is left")


def export(name, compression=None):
    c = Unix("localhost")
    try:
        c.request("GET", "/v1/images/%s/export%s" % (urllib.parse.quote(name, safe=""), "?compression=" + compression if compression else ""))
        r = c.getresponse()
        return r.status, r.headers, r.read()
    finally:
        c.close()


def stalled():
    """clients that take an answer's head and no more, as many as there are places for exports; images.export_stall_seconds is 1"""
    layer = tar([entry("big", random.randbytes(24 << 20))])
    status, answer = post(Archive([layer]).seal().bytes(), name="stall:1")
    ok(status == 201, "an image larger than what pipes and sockets hold", answer)
    held = []
    for _ in range(4):
        c = Unix("localhost")
        c.request("GET", "/v1/images/stall%3A1/export")
        held.append((c, c.getresponse()))

    def whole():
        try:
            status, headers, data = export("stall:1")
        except http.client.IncompleteRead:
            return False  # this machine stood still for a second
        return status == 200 and len(data) == int(headers["Content-Length"])

    def cut():
        with open(LOG) as f:
            return f.read().count("stall:1: cut off, the client has read nothing for 1 s") >= 4

    ok([r.status for c, r in held] == [200] * 4, "four exports at once", [r.status for c, r in held])
    ok(until(30, cut), "exports that nobody reads end, and the log says so")
    ok(until(30, whole), "then there is place for another")
    broken = 0
    for c, r in held:
        try:
            broken += len(r.read()) < 24 << 20
        except (http.client.IncompleteRead, OSError):
            broken += 1
        c.close()
    ok(broken == 4, "and the four answers are broken off", broken)
    remove("stall:1")


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        return {m.name: t.extractfile(m).read() for m in t if m.isfile()}


def exports():
    a = Archive([small_layer(), small_layer()]).seal()
    post(a.bytes(), name="out:1")
    status, headers, data = export("out:1")
    files = members(data)
    ok(status == 200 and headers["ETag"] == '"%s"' % a.descriptor["digest"] and int(headers["Content-Length"]) == len(data),
       "an export with its length and digest", (status, dict(headers)))
    ok(all(files["blobs/" + d.replace(":", "/")] == b for d, b in a.blobs.items()), "every blob unchanged")
    ok(export("out:1")[2] == data, "twice the same bytes")
    for form in ("gzip", "zstd", "none"):
        one, two = export("out:1", form), export("out:1", form)
        status, image = post(one[2], name="again:" + form)
        ok(one[0] == 200 and one[2] == two[2] and status == 201, "packed anew with %s: twice the same, and taken back" % form, image)
        ok(call("GET", "/v1/images/again%3A" + form)[1]["manifest"] == one[1]["ETag"].strip('"'), "under the digest that was said")
    status, _, answer = export("out:1", "rar")
    ok(status == 400, "an unknown compression is refused", answer)
    status, _, answer = export("nothing:1")
    ok(status == 404 and b"nothing:1" in answer, "an unknown image is 404", answer)
    status, _, answer = export("host")
    ok(status == 400 and b"cannot be exported" in answer, "the embedded image is not exported", answer)

    post(tar([entry("dir/", kind=tarfile.DIRTYPE, mode=0o1777), entry("dir/f", b"hi", uid=12, gid=34, mode=0o4751, mtime=1234567890)]), name="plain:1", env="A=1")
    one, two = export("plain:1"), export("plain:1")
    ok(one[0] == 200 and one[2] == two[2], "a root file system that has no packed form: twice the same")
    index = json.loads(members(one[2])["index.json"])
    manifest = json.loads(members(one[2])["blobs/" + index["manifests"][0]["digest"].replace(":", "/")])
    layer = members(one[2])["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")]
    with tarfile.open(fileobj=io.BytesIO(layer)) as t:
        info = t.getmember("dir/f")
    ok((info.uid, info.gid, info.mode, info.mtime) == (12, 34, 0o4751, 1234567890), "its files have the ids of the container", info.get_info())
    ok(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "1", "and its tag")

    tree = WORK + "/tree"
    os.makedirs(tree + "/d")
    for name in ("/f", "/d/g"):
        open(tree + name, "w").close()
    try:
        os.setxattr(tree + "/f", "user.note", b"v")
        os.setxattr(tree + "/f", "trusted.overlay.opaque", b"y")
        os.setxattr(tree + "/d", "system.posix_acl_default", acl((OWNER, 7, NOBODY), (USER, 5, 9), (OWNERS, 5, NOBODY), (MASK, 5, NOBODY), (OTHER, 0, NOBODY)))
    except OSError as e:
        skip("attributes of a directory that is imported", str(e))
    else:
        p = ctl("image", "import", tree, "tree:1")
        files = members(export("tree:1")[2])
        index = json.loads(files["index.json"])
        manifest = json.loads(files["blobs/" + index["manifests"][0]["digest"].replace(":", "/")])
        with tarfile.open(fileobj=io.BytesIO(files["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")])) as t:
            got = sorted((m.name, k[13:]) for m in t for k in m.pax_headers if k.startswith("SCHILY.xattr."))
        ok(got == [("d", "system.posix_acl_default"), ("f", "user.note")], "a directory is imported with its attributes and ACLs, and only those",
           (p.stderr, got))
    # a blob that rots: what leaves must be noticed to be broken
    path = STATE + "/state/blobs/sha256/" + a.manifest["layers"][0]["digest"][7:]
    os.chmod(path, 0o600)
    with open(path, "r+b") as f:
        f.seek(600)
        f.write(b"rotten")
    p = ctl("image", "export", "out:1", WORK + "/rotten.tar")
    ok(p.returncode != 0 and not os.path.exists(WORK + "/rotten.tar") and not os.path.exists(WORK + "/rotten.tar.part"),
       "a blob that has changed breaks the answer off, and no file is left", p.stderr)
    p = ctl("image", "export", "plain:1", WORK + "/plain.tar")
    ok(p.returncode == 0 and open(WORK + "/plain.tar", "rb").read() == one[2], "sandboxctl writes the same", p.stderr)
    p = ctl("image", "export", "-d", "plain:1", WORK + "/plain.dir")
    ok(p.returncode == 0 and os.path.exists(WORK + "/plain.dir/oci-layout"), "or a directory", p.stderr)
    p = ctl("image", "import", WORK + "/plain.dir", "plain:2")
    ok(p.returncode == 0, "which is taken back", p.stderr)
    remove(*[i["name"] for i in call("GET", "/v1/images")[1]["items"]])
    ok(not os.listdir(STATE + "/state/import"), "no spool is left")


def snapshot(root):
    """Everything of a tree that an image keeps; hard links as the first name of their file."""
    out, first = {}, {}
    root = os.fsencode(root)
    for base, dirs, files in os.walk(root):
        dirs.sort()
        for name in [b""] * (base == root) + sorted(dirs + files):
            path = os.path.join(base, name) if name else base
            st = os.lstat(path)
            rel = os.path.relpath(path, root)
            row = {"mode": oct(st.st_mode), "owner": (st.st_uid, st.st_gid)}
            if rel != b".":
                row["mtime"] = st.st_mtime_ns
            if stat.S_ISLNK(st.st_mode):
                row["link"] = os.readlink(path)
            if stat.S_ISREG(st.st_mode):
                row["content"] = hashlib.sha256(open(path, "rb").read()).hexdigest()
                row["same as"] = first.setdefault((st.st_dev, st.st_ino), rel)
            if not stat.S_ISLNK(st.st_mode):
                row["xattrs"] = sorted((k, os.getxattr(path, k)) for k in os.listxattr(path) if k.startswith(("user.", "system.posix_acl_")) or k == "security.capability")
            out[rel] = row
    return out


def difference(a, b):
    lines = []
    for k in sorted(set(a) | set(b)):
        if a.get(k) != b.get(k):
            lines.append("%s: %s -> %s" % (k, a.get(k), b.get(k)))
    return "\n".join(lines[:20])


def unpack(layout, tag, name):
    """What umoci makes of it, as root, with all owners."""
    bundle = WORK + "/bundle-" + name
    shutil.rmtree(bundle, ignore_errors=True)
    p = sh("umoci", "unpack", "--image", layout + ":" + tag, bundle)
    if p.returncode:
        print("# umoci: " + p.stderr.decode())
        return None
    return snapshot(bundle + "/rootfs")


def fill(root):
    """A tree with all that may be lost on the way."""
    os.makedirs(root + "/bin", exist_ok=True)
    busy = next(p for p in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(p))
    shutil.copy(busy, root + "/bin/busybox")
    for n in ("sh", "cat", "ls", "stat", "env", "sleep"):
        os.symlink("busybox", root + "/bin/" + n)
    for d in ("etc", "lower/gone", "lower/kept", "opaque/old", "tmp"):
        os.makedirs(root + "/" + d)
    os.chmod(root + "/tmp", 0o1777)
    for f, text in (("etc/version", "1"), ("lower/gone/f", "x"), ("lower/kept/f", "x"), ("opaque/old/f", "x"), ("opaque/g", "x")):
        with open(root + "/" + f, "w") as out:
            out.write(text + "\n")
    with open(root + "/etc/a", "w") as f:
        f.write("two names\n")
    os.link(root + "/etc/a", root + "/etc/b")
    os.link(root + "/etc/a", root + "/lower/kept/c")
    os.mkfifo(root + "/etc/fifo", 0o620)
    with open(root + "/etc/suid", "w") as f:
        f.write("x")
    os.chown(root + "/etc/suid", 1000, 1001)
    os.chmod(root + "/etc/suid", 0o6755)
    with open(root + "/etc/na\u00efve \u4e2d \x01", "w") as f:
        f.write("a name\n")
    with open(root.encode() + b"/etc/raw\xff\xfe", "w") as f:
        f.write("no UTF-8\n")
    with open(root + "/etc/" + "long" * 60, "w") as f:
        f.write("a long name\n")
    os.makedirs(root + "/etc/" + "/".join(["deep"] * 30))
    with open(root + "/etc/holes", "wb") as f:
        f.seek(4 << 20)
        f.write(b"behind a hole")
        f.truncate(6 << 20)
    try:
        os.setxattr(root + "/etc/a", "user.note", b"a\0b\n")
        os.setxattr(root + "/etc", "user.of-a-directory", b"1")
        os.setxattr(root + "/bin/busybox", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    except OSError as e:
        print("# no attributes here: %s" % e)
    with open(root + "/etc/acl", "w") as f:
        f.write("for 1234\n")
    os.mkdir(root + "/etc/acl.d")
    try:
        os.setxattr(root + "/etc/acl", "system.posix_acl_access", acl(
            (OWNER, 6, NOBODY), (USER, 4, 1234), (OWNERS, 0, NOBODY), (GROUP, 2, 4321), (MASK, 6, NOBODY), (OTHER, 0, NOBODY)))
        # before what is in it: files that are made here get it too, and those of the layer must be as the layer says
        for path in ("/etc/acl.d", "/lower"):
            os.setxattr(root + path, "system.posix_acl_default", acl(
                (OWNER, 7, NOBODY), (USER, 5, 65535), (OWNERS, 5, NOBODY), (MASK, 5, NOBODY), (OTHER, 0, NOBODY)))
        os.makedirs(root + "/etc/acl.d/inherits")
        with open(root + "/etc/acl.d/plain", "w") as f:
            f.write("x\n")
        os.removexattr(root + "/etc/acl.d/plain", "system.posix_acl_access")
        os.chmod(root + "/etc/acl.d/plain", 0o640)
    except OSError as e:
        print("# no ACLs here: %s" % e)
    os.symlink("/absolute/nowhere", root + "/etc/abs")
    os.chown(root + "/etc/abs", 7, 8, follow_symlinks=False)
    for base, dirs, files in os.walk(root, topdown=False):
        for n in files + dirs:
            os.utime(os.path.join(base, n), ns=(1500000000123456789, 1500000000123456789), follow_symlinks=False)


def change(root):
    """A second layer: removed, replaced, a directory that is opaque."""
    shutil.rmtree(root + "/lower/gone")
    shutil.rmtree(root + "/opaque")
    os.mkdir(root + "/opaque")
    for f in ("opaque/new", "etc/version"):
        with open(root + "/" + f, "w") as out:
            out.write("2\n")
    os.remove(root + "/etc/b")
    os.mkdir(root + "/etc/b")


def reads(image, tool):
    """The ACL holds inside: its ids are those of the container, through the mapped mount and the overlay."""
    status, answer = call("POST", "/v1/sandboxes", {"image": {"uri": image}, "entrypoint": ["/bin/sleep", "600"], "timeout": 600,
                                                     "resourceLimits": {}})
    ident, out = answer.get("id", ""), {}
    for uid in (1234, 1235):
        body = call("POST", "/v1/sandboxes/%s/proxy/44772/command" % ident, {"command": "cat /etc/acl", "uid": uid, "gid": uid})[1]
        out[uid] = b"for 1234" in body
    ok(status == 202 and out == {1234: True, 1235: False}, tool + ": a file with an ACL is read by whom it names, and by nobody else", (answer, out))
    call("DELETE", "/v1/sandboxes/" + ident)


def round_trip(tool, layout, tag):
    name = tool + ":1"
    want = unpack(layout, tag, tool + "-want")
    p = ctl("image", "import", layout, name, "--ref", tag)
    ok(p.returncode == 0, tool + ": its layout is taken", p.stderr)
    if b"etc/acl" in want and any(k == "system.posix_acl_access" for k, _ in want[b"etc/acl"]["xattrs"]):
        reads(name, tool)
    ok(run(name, "/bin/cat", "/etc/version") == "2\n" and "gone" not in run(name, "/bin/ls", "/lower"), tool + ": it runs")
    for form in (None, "gzip", "none") if tool == "umoci" else (None, "gzip"):  # umoci of Debian 12 does not know zstd
        back = WORK + "/back-%s-%s" % (tool, form)
        p = ctl("image", "export", "-q", "-d", *(["-c", form] if form else []), name, back)
        got = unpack(back, "1", tool + "-got") if p.returncode == 0 else None
        ok(want and got == want, "%s: import, export (%s), unpacked by umoci: the same tree" % (tool, form or "keep"),
           p.stderr.decode() + difference(want or {}, got or {}))
        shutil.rmtree(back, ignore_errors=True)
    if have("skopeo"):
        ctl("image", "export", "-q", "-c", "zstd", name, WORK + "/z.tar")
        p = sh("skopeo", "copy", "-q", "--dest-compress-format", "gzip", "--dest-compress", "oci-archive:%s/z.tar" % WORK, "oci:%s/z:1" % WORK)
        p = p if p.returncode else sh("skopeo", "inspect", "oci:%s/z:1" % WORK)
        ok(p.returncode == 0 and len(json.loads(p.stdout)["Layers"]) == len(call("GET", "/v1/images/" + tool + "%3A1")[1]["layers"]),
           tool + ": skopeo copies and inspects the export with zstd", p.stderr)
        shutil.rmtree(WORK + "/z", ignore_errors=True)
    # the layers that sandbox-unpack wrote, exported and unpacked by it again, must not drift
    one = export(name, "gzip")
    post(one[2], name="again:1")
    two = export("again:1", "gzip")
    ok(one[1]["ETag"] == two[1]["ETag"], tool + ": imported again and exported again, it has the same digest")
    remove(name, "again:1")


def umoci_layout():
    layout, bundle = WORK + "/umoci", WORK + "/umoci-bundle"
    for args in (["init", "--layout", layout], ["new", "--image", layout + ":v1"], ["unpack", "--image", layout + ":v1", bundle]):
        if sh("umoci", *args).returncode:
            return None
    fill(bundle + "/rootfs")
    if sh("umoci", "repack", "--image", layout + ":v1", bundle).returncode:
        return None
    shutil.rmtree(bundle)
    sh("umoci", "unpack", "--image", layout + ":v1", bundle)
    change(bundle + "/rootfs")
    p = sh("umoci", "repack", "--image", layout + ":v1", bundle)
    sh("umoci", "config", "--image", layout + ":v1", "--config.env", "PATH=/bin", "--config.cmd", "/bin/sh")
    return None if p.returncode else layout


def trips():
    if not have("umoci"):
        skip("round trips", "no umoci (apt-get install umoci)")
        return
    layout = umoci_layout()
    ok(layout, "umoci makes an image of two layers")
    if not layout:
        return
    round_trip("umoci", layout, "v1")
    if have("skopeo"):
        p = sh("skopeo", "copy", "-q", "oci:%s:v1" % layout, "docker-archive:%s/da.tar:made/by-skopeo:1" % WORK)
        q = sh("skopeo", "copy", "-q", "oci:%s:v1" % layout, "oci:%s/skopeo:v1" % WORK)
        ok(p.returncode == 0 and q.returncode == 0, "skopeo copies it", p.stderr + q.stderr)
        round_trip("skopeo", WORK + "/skopeo", "v1")
        want = unpack(layout, "v1", "want")
        p = ctl("image", "import", "-q", WORK + "/da.tar")
        ok(p.returncode == 0 and p.stdout == b"made/by-skopeo:1\n", "skopeo's docker-archive is taken, with its name", p.stderr)
        ctl("image", "export", "-q", "-d", "made/by-skopeo:1", WORK + "/back-da")
        ok(unpack(WORK + "/back-da", "1", "got") == want, "and leaves with the same tree")
        remove("made/by-skopeo:1")
    else:
        skip("round trips through skopeo", "no skopeo (apt-get install skopeo)")
    if not have("buildah"):
        skip("round trips through buildah", "no buildah (apt-get install buildah)")
        return
    place = "/var/tmp/sandboxd-buildah-%d" % os.getpid()  # it makes a reference of the path, which has to be lower-case
    try:
        through_buildah(layout, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def through_buildah(layout, place):
    e = dict(E, STORAGE_DRIVER="vfs", HOME=place, XDG_RUNTIME_DIR=place + "/xdg", TMPDIR=place)
    os.makedirs(place + "/xdg")
    shutil.copytree(layout, place + "/layout")
    base = ["buildah", "--root", place + "/store", "--runroot", place + "/run", "--storage-driver", "vfs"]
    made = sh(*base, "from", "oci:%s/layout:v1" % place, env=e)
    made = made if made.returncode else sh(*base, "mount", made.stdout.decode().split()[-1], env=e)
    if made.returncode:
        skip("round trips through buildah", "buildah does not work here: " + made.stderr.decode().strip().replace("\n", " ")[-120:])
        return
    root = made.stdout.decode().strip()
    container = sh(*base, "containers", "-q", env=e).stdout.decode().split()[0]
    shutil.rmtree(root + "/lower/kept")
    with open(root + "/lower/from-buildah", "w") as f:
        f.write("x\n")
    p = sh(*base, "commit", "-q", "--format", "oci", container, "oci:%s/buildah:v1" % place, env=e)
    if p.returncode == 0:
        round_trip("buildah", place + "/buildah", "v1")
    else:
        skip("round trips through buildah", "buildah does not commit here: " + p.stderr.decode().strip().replace("\n", " ")[-120:])
    sh(*base, "umount", "-a", env=e)
    sh(*base, "rm", "-a", env=e)


def daemon_serves():
    try:
        return call("GET", "/v1/host")[0] == 200 and call("GET", "/v1/images")[0] == 200
    except OSError:
        return False


def struck(point, what):
    """What @what returns with the point armed; False when the answer never came."""
    with armed(point + ":kill"):
        return quietly(what)


def kills():
    """kill -9 of whoever is at the point; then the same import must work, and its removal must leave nothing."""
    clean = store()
    if not fault_points():
        skip("kill -9 at each step", "no fault points in this build")
        return
    points = [("import-indexed", "oci"), ("blob-synced", "oci"), ("layer-publish", "oci"), ("image-put", "oci"), ("import-put", "rootfs")]
    if E.get("ARCHIVE_ALL"):  # the blobs' are those of a pull, which registry.sh kills at each; the broker's restart takes seconds
        points += [("blob-bytes", "oci"), ("blob-verified", "oci"), ("blob-named", "oci"), ("capture-ended", "oci"), ("layer-unpacked", "rootfs"),
                   ("layer-publish", "rootfs")]
    for point, kind in points:
        data = Archive([small_layer(entry("big", os.urandom(300000))), small_layer()]).seal().bytes()
        answer = struck(point, lambda: post(data, name="killed:1", kind=kind))
        good = until(60, daemon_serves)
        name = "%s, %s" % (point, kind)
        ok(good and (not answer or answer[0] != 201), "killed at %s: the import has failed, the daemon is there" % name, answer)
        status, answer = post(data, name="killed:1", kind=kind)
        if status == 503:  # the broker is still coming back
            until(60, lambda: post(data, name="killed:1", kind=kind)[0] == 201)
            status = 201 if call("GET", "/v1/images/killed%3A1")[0] == 200 else status
        ok(status == 201, "killed at %s: the same import works now" % name, answer)
        remove("killed:1")
        same = until(20, lambda: store() == clean or remove() or store() == clean)
        ok(same, "killed at %s: nothing is left of it" % name, sorted(set(store()) ^ set(clean)))
    post(Archive().seal().bytes(), name="killed:1")
    for point in ("export-planned", "export-bytes") + (("capture-ended",) if E.get("ARCHIVE_ALL") else ()):
        answer = struck(point, lambda: export("killed:1", "gzip"))
        until(60, daemon_serves)
        until(60, lambda: quietly(lambda: export("killed:1", "gzip")[0] == 200))
        ok((not answer or answer[0] != 200) and export("killed:1", "gzip")[0] == 200 and not os.listdir(STATE + "/state/import"),
           "killed at %s: the answer is broken off, the next export works, and no spool is left" % point, answer)
    remove("killed:1")


sections = {f.__name__: f for f in (accepted, hostile, exports, trips, kills, stalled)}
lib.count_from(int(E.get("FIRST", "0")))
for section in sys.argv[1:] or [name for name in sections if name != "stalled"]:
    sections[section]()
n, failed = lib.result()
with open(WORK + "/count", "w") as f:
    f.write("%d\n" % n)
sys.exit(1 if failed else 0)
