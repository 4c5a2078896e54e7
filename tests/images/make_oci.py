#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes an OCI layout with a small image that runs: make_oci.py DIR [TAG] [--layers N] [--pad MIB] [--index] [--form gzip|zstd|tar] [--text]

The first layer holds a static busybox and its links, each further one a file /layer<i> and --pad MiB of bytes that do not
compress, or with --text to some 57 %.  The same arguments give the same bytes.
"""
import argparse, gzip, hashlib, io, json, os, random, shutil, subprocess, sys, tarfile

OCI = "application/vnd.oci.image."
LINKS = "sh ls cat echo true sleep id env head tail wc sha256sum grep mkdir rm touch test printf".split()


def busybox():
    for path in ("/bin/busybox", "/usr/bin/busybox"):
        if os.path.exists(path):
            return path
    sys.exit("make_oci.py: no busybox (apt-get install busybox-static)")


def add(tar, name, data=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
    info.mtime = 1600000000
    tar.addfile(info, io.BytesIO(data) if data else None)


def first_layer():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for d in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "run", "var", "home"):
            add(tar, d, mode=0o1777 if d == "tmp" else 0o755, kind=tarfile.DIRTYPE)
        add(tar, "bin/busybox", open(busybox(), "rb").read(), 0o755)
        for name in LINKS:
            add(tar, "bin/" + name, kind=tarfile.SYMTYPE, link="busybox")
        add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        add(tar, "etc/group", b"root:x:0:\n")
        add(tar, "etc/remove-me", b"of the first layer\n")
        add(tar, "etc/version", b"0\n")
    return out.getvalue()


def further_layer(i, pad, text=False):
    rng = random.Random(i)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        add(tar, "etc/version", b"%d\n" % i)
        add(tar, "layer%d" % i, b"layer %d\n" % i)
        if i == 1:
            add(tar, "etc/.wh.remove-me")
        for k in range(pad):
            add(tar, "pad%d/%d" % (i, k), rng.randbytes(1 << 19).hex().encode() if text else rng.randbytes(1 << 20))
    return out.getvalue()


def pack(data, form):
    if form == "tar":
        return data, OCI + "layer.v1.tar"
    if form == "zstd":
        return (subprocess.run(["zstd", "-q", "-c", "-3"], input=data, stdout=subprocess.PIPE, check=True).stdout,
                OCI + "layer.v1.tar+zstd")
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as z:
        z.write(data)
    return out.getvalue(), OCI + "layer.v1.tar+gzip"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Layout:
    def __init__(self, path):
        self.path = path
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path + "/blobs/sha256")
        with open(path + "/oci-layout", "w") as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')

    def put(self, data, media):
        with open(self.path + "/blobs/sha256/" + hashlib.sha256(data).hexdigest(), "wb") as f:
            f.write(data)
        return {"mediaType": media, "digest": digest(data), "size": len(data)}

    def put_json(self, value, media):
        return self.put(json.dumps(value, sort_keys=True).encode(), media)

    def finish(self, descriptor, tag):
        descriptor = dict(descriptor, annotations={"org.opencontainers.image.ref.name": tag})
        with open(self.path + "/index.json", "w") as f:
            json.dump({"schemaVersion": 2, "manifests": [descriptor]}, f)


def image(layout, layers, arch="amd64", config=None):
    """layers: [(tar bytes, packed bytes, media type)]; returns the manifest's descriptor."""
    cfg = {"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(t) for t, _, _ in layers]},
           "config": config or {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/tmp", "Cmd": ["/bin/sh"]}}
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                "config": layout.put_json(cfg, OCI + "config.v1+json"),
                "layers": [layout.put(p, m) for _, p, m in layers]}
    return layout.put_json(manifest, OCI + "manifest.v1+json")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("dir")
    p.add_argument("tag", nargs="?", default="latest")
    p.add_argument("--layers", type=int, default=1)
    p.add_argument("--pad", type=int, default=0)
    p.add_argument("--form", default="gzip")
    p.add_argument("--text", action="store_true")
    p.add_argument("--index", action="store_true")
    a = p.parse_args()
    layout = Layout(a.dir)
    tars = [first_layer()] + [further_layer(i, a.pad, a.text) for i in range(1, a.layers)]
    made = image(layout, [(t,) + pack(t, a.form) for t in tars])
    if a.index:
        other = further_layer(99, 0)
        foreign = image(layout, [(other,) + pack(other, a.form)], arch="s390x")
        attest = layout.put_json({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                                  "config": layout.put_json({"attests": True}, OCI + "config.v1+json"),
                                  "layers": []}, OCI + "manifest.v1+json")
        machine = os.uname().machine
        arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
        made = layout.put_json({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [
            dict(attest, platform={"os": "unknown", "architecture": "unknown"},
                 annotations={"vnd.docker.reference.type": "attestation-manifest"}),
            dict(foreign, platform={"os": "linux", "architecture": "s390x"}),
            dict(made, platform={"os": "linux", "architecture": arch})]}, OCI + "index.v1+json")
    layout.finish(made, a.tag)


if __name__ == "__main__":
    main()
