#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the corpus of hostile and of odd but good archives.

make_hostile.py DIRECTORY writes NAME.STATUS.FORM files: STATUS is the error code that sandbox-unpack must report
(NONE: it must unpack), FORM is tar, gzip or zstd.  NAME.expect beside a good one lists what must be in the tree:
"KIND MODE UID NLINK PATH", as tests/system/unpack_hostile.sh prints it.  The form "lower" is a tar that needs a layer below.
"""
import gzip
import io
import os
import struct
import sys
import tarfile

OUT = sys.argv[1]

def entry(name, kind=tarfile.REGTYPE, data=b"", mode=0o644, uid=0, gid=0, link="", pax=None, dev=(0, 0)):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    info.mode, info.uid, info.gid, info.linkname = mode, uid, gid, link
    info.devmajor, info.devminor = dev
    info.mtime = 1000000000
    info.pax_headers = pax or {}
    return info, data

def d(name, **kw):
    return entry(name, tarfile.DIRTYPE, mode=kw.pop("mode", 0o755), **kw)

def sym(name, to, **kw):
    return entry(name, tarfile.SYMTYPE, link=to, mode=0o777, **kw)

def hard(name, to, **kw):
    return entry(name, tarfile.LNKTYPE, link=to, **kw)

def pack(entries, fmt=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()

def raw_header(name, size, kind=b"0", mode=b"0000644", uid=b"0000000", link=b""):
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:107], h[108:115], h[116:123] = mode, uid, b"0000000"
    h[124:136] = size.ljust(12, b"\0")
    h[136:147] = b"00000000000"
    h[156:157] = kind
    h[157:157 + len(link)] = link
    h[257:265] = b"ustar\00000"
    h[148:156] = b" " * 8
    h[148:155] = b"%06o\0" % sum(h)
    return bytes(h)

def pax_block(records, kind=b"x"):
    """A PAX extended header written by hand: tarfile would refuse some of these."""
    body = b""
    for key, value in records:
        line = b" " + key + b"=" + value + b"\n"
        n = len(line)
        while n != len(str(n + 0)) + len(line):
            n = len(str(n)) + len(line)
        body += str(n).encode() + line
    pad = (-len(body)) % 512
    return raw_header(b"pax", b"%011o" % len(body), kind) + body + b"\0" * pad

def put(name, status, blob, form="tar", expect=None):
    with open(os.path.join(OUT, f"{name}.{status}.{form}"), "wb") as f:
        f.write(blob)
    if expect is not None:
        with open(os.path.join(OUT, f"{name}.expect"), "w", errors="surrogateescape") as f:
            f.write("".join(line + "\n" for line in expect))

BAD = "IMAGE_INVALID"
x = b"owned"

# --- names that leave
put("dotdot", BAD, pack([entry("../canary", data=x)]))
put("dotdot-inside", BAD, pack([d("a"), entry("a/../../canary", data=x)]))
put("dotdot-harmless", BAD, pack([d("a"), entry("a/../b", data=x)]))
put("dotdot-directory", BAD, pack([d("..")]))
put("dotdot-pax", BAD, pax_block([(b"path", b"../canary")]) + raw_header(b"x", b"00000000005") + x.ljust(512, b"\0") + b"\0" * 1024)
put("dotdot-gnu-longname", BAD, pack([entry("../" * 60 + "canary", data=x)], tarfile.GNU_FORMAT))
put("absolute", BAD, pack([entry("/canary", data=x)]))
put("absolute-symlink-name", BAD, pack([sym("/etc/x", "y")]))
put("absolute-slashes", BAD, pack([entry("//canary", data=x)]))
# --- links among the ancestors
put("symlink-ancestor", BAD, pack([sym("a", ".."), entry("a/canary", data=x)]))
put("symlink-ancestor-absolute", BAD, pack([sym("a", "/"), entry("a/canary", data=x)]))
put("symlink-ancestor-deep", BAD, pack([d("a"), sym("a/b", "../.."), d("a/b/c"), entry("a/b/c/canary", data=x)]))
put("symlink-ancestor-inside", BAD, pack([d("r"), sym("a", "r"), entry("a/f", data=x)]))
put("symlink-ancestor-mkdir", BAD, pack([sym("a", ".."), d("a/newdir")]))
put("symlink-ancestor-of-link", BAD, pack([sym("a", ".."), sym("a/l", "x")]))
put("symlink-loop-ancestor", BAD, pack([sym("a", "a"), entry("a/f", data=x)]))
put("symlink-proc", BAD, pack([sym("a", "/proc/self/fd/0/.."), entry("a/f", data=x)]))
put("file-ancestor", BAD, pack([entry("a", data=x), entry("a/f", data=x)]))
put("fifo-ancestor", BAD, pack([entry("a", tarfile.FIFOTYPE), entry("a/f", data=x)]))
put("symlink-swap-after-parent", BAD, pack([d("a"), entry("a/1", data=x), sym("a", ".."), entry("a/canary", data=x)]))
# --- hard links
put("hardlink-dotdot", BAD, pack([hard("h", "../canary")]))
put("hardlink-absolute", BAD, pack([hard("h", "/etc/passwd")]))
put("hardlink-through-symlink", BAD, pack([sym("a", ".."), hard("h", "a/canary")]))
put("hardlink-missing", BAD, pack([hard("h", "nothing")]))
put("hardlink-missing-parent", BAD, pack([hard("h", "no/thing")]))
put("hardlink-directory", BAD, pack([d("a"), hard("h", "a")]))
put("hardlink-root", BAD, pack([hard("h", ".")]))
put("hardlink-self", BAD, pack([hard("h", "h")]))
put("hardlink-whiteout", BAD, pack([entry("w", tarfile.CHRTYPE), hard("h", "w")]))
# --- nodes
put("device-null", BAD, pack([entry("null", tarfile.CHRTYPE, dev=(1, 3))]))
put("device-disk", BAD, pack([d("d"), entry("d/sda", tarfile.BLKTYPE, dev=(8, 0))]))
put("device-block-zero", BAD, pack([entry("z", tarfile.BLKTYPE, dev=(0, 0))]))
put("device-in-device-name", BAD, pack([entry("devices/null", tarfile.CHRTYPE, dev=(1, 3))]))
put("root-is-file", BAD, pack([entry(".", data=x)]))
put("root-is-symlink", BAD, pack([sym("./", "..")]))
# --- owners, sizes, depth
put("uid-65536", BAD, pack([entry("f", uid=65536)]))
put("gid-65536", BAD, pack([entry("f", gid=65536)]))
put("uid-huge", BAD, pack([entry("f", uid=4294967295)]))
put("uid-negative", BAD, pack([entry("f", pax={"uid": "-1"})]))
put("deep", BAD, pack([entry("d/" * 300 + "f", data=x)]))
put("name-256", BAD, pack([entry("n" * 256, data=x)]))
put("path-5000", BAD, pack([entry("/".join(["p" * 200] * 25), data=x)]))
put("many-entries", "LIMIT", pack([entry(f"f{i}") for i in range(2001)]))
put("same-entry-many-times", "LIMIT", pack([entry("f") for i in range(2001)]))
put("many-devices", "LIMIT", pack([entry("dev/n", tarfile.CHRTYPE, dev=(1, 3)) for i in range(2001)]))
put("implied-directories", "LIMIT", pack([entry(f"{i}/" + "d/" * 200 + "f") for i in range(12)]))
put("sparse-exabyte", "LIMIT", pax_block([(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"),
    (b"GNU.sparse.size", b"1152921504606846976"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,5"),
    (b"size", b"5")]) + raw_header(b"s", b"00000000005") + x.ljust(512, b"\0") + b"\0" * 1024)
put("content-too-big", "LIMIT", pack([entry("big", data=b"\0" * (9 << 20))]))
put("content-adds-up", "LIMIT", pack([entry(f"b{i}", data=b"\0" * (1 << 20)) for i in range(9)]))
bomb = io.BytesIO()
with gzip.GzipFile(fileobj=bomb, mode="wb", mtime=0) as g:
    g.write(raw_header(b"bomb", b"%011o" % (1 << 32)))
    for _ in range(64):
        g.write(b"\0" * (1 << 20))
put("gzip-bomb", "LIMIT", bomb.getvalue(), "gzip")
put("xattr-count", BAD, pack([entry("f", pax={f"SCHILY.xattr.user.{i}": "v" for i in range(65)})]))
put("xattr-size", BAD, pack([entry("f", pax={"SCHILY.xattr.user.big": "v" * 70000})]))
# --- broken files
good = pack([entry("f", data=b"1234" * 400), entry("g", data=x)])
put("truncated", BAD, good[:1000])
put("truncated-content", BAD, good[:512 + 700])
put("garbage", BAD, bytes((i * 7 + 3) % 256 for i in range(4096)))
put("empty", BAD, b"")
put("zeros", BAD, b"\0" * 10240)
put("checksum", BAD, good[:100] + b"9" + good[101:])
put("gzip-not-tar-form", BAD, gzip.compress(good, mtime=0), "tar")
put("tar-not-gzip-form", "NONE", good, "gzip", ["f 644 0 1 f", "f 644 0 1 g"])
put("gzip-truncated", BAD, gzip.compress(good, mtime=0)[:-20], "gzip")
put("zstd-garbage", BAD, b"\x28\xb5\x2f\xfd" + b"\xff" * 60, "zstd")
put("zip", BAD, b"PK\x03\x04" + b"\0" * 600)
put("cpio", BAD, b"070701" + b"0" * 104 + b"x\0" + b"\0" * 600)
put("whiteout-of-nothing", BAD, pack([entry(".wh.")]))
put("whiteout-dotdot", BAD, pack([entry("a/.wh...")]))

# --- odd but good
put("replace", "NONE", pack([
    d("dir"), d("dir/sub"), entry("dir/sub/f", data=x), entry("dir", data=b"now a file"),
    entry("file", data=x), d("file"), entry("file/in", data=x),
    sym("link", ".."), entry("link", data=x),
    entry("twice", data=b"first"), entry("twice", data=b"second", mode=0o600, uid=7),
    d("keep"), entry("keep/in", data=x), d("keep", mode=0o700)]), expect=[
    "d 700 0 2 keep", "d 755 0 2 file", "f 600 7 1 twice", "f 644 0 1 dir", "f 644 0 1 file/in", "f 644 0 1 keep/in",
    "f 644 0 1 link"])
put("symlink-replaced-by-directory", "NONE", pack([sym("a", ".."), d("a"), entry("a/canary", data=x)]),
    expect=["d 755 0 2 a", "f 644 0 1 a/canary"])
put("symlinks-anywhere", "NONE", pack([sym("up", "../../../../etc/passwd"), sym("abs", "/etc/shadow"), sym("loop", "loop")]),
    expect=["l 777 0 1 abs", "l 777 0 1 loop", "l 777 0 1 up"])
put("hardlinks", "NONE", pack([d("a"), entry("a/f", data=x), hard("b", "a/f"), hard("a/c", "./a//f"), sym("s", "a/f"), hard("t", "s")]),
    expect=["d 755 0 2 a", "f 644 0 3 a/c", "f 644 0 3 a/f", "f 644 0 3 b", "l 777 0 2 s", "l 777 0 2 t"])
put("hardlink-to-same", "NONE", pack([entry("f", data=x), hard("f", "f"), hard("f", "./f")]), expect=["f 644 0 1 f"])
put("modes", "NONE", pack([entry("suid", mode=0o4755, uid=65535, gid=65535), entry("sgid", mode=0o2755), d("sticky", mode=0o1777),
    entry("none", mode=0), entry("pipe", tarfile.FIFOTYPE, mode=0o620)]),
    expect=["d 1777 0 2 sticky", "f 0 0 1 none", "f 2755 0 1 sgid", "f 4755 65535 1 suid", "p 620 0 1 pipe"])
put("whiteouts", "NONE", pack([d("a"), entry("a/.wh.gone"), entry("w", tarfile.CHRTYPE)]),
    expect=["c 0 0 1 a/gone", "c 0 0 1 w", "d 755 0 2 a"])
put("opaque", "NONE", pack([d("a"), entry("a/.wh..wh..opq"), entry("a/f", data=x), entry("b/c/.wh..wh..opq"), entry(".wh..wh..opq"),
    entry(".wh..wh.plnk"), entry("a/.wh..wh.aufs")]), expect=["d 755 0 2 a", "d 755 0 2 b/c", "d 755 0 3 b", "f 644 0 1 a/f"])
put("whiteout-beside-own", "NONE", pack([entry("f", data=x), entry(".wh.f"), entry(".wh.g"), entry("g", data=x), d("h"), entry("h/i", data=x),
    entry(".wh.h")]), expect=["d 755 0 2 h", "f 644 0 1 f", "f 644 0 1 g", "f 644 0 1 h/i"])
put("opaque-of-a-file", BAD, pack([entry("f", data=x), entry("f/.wh..wh..opq")]))
put("opaque-through-link", BAD, pack([sym("a", ".."), entry("a/.wh..wh..opq")]))
put("devices-below-dev", "NONE", pack([d("dev"), entry("dev/null", tarfile.CHRTYPE, dev=(1, 3)), entry("dev/sda", tarfile.BLKTYPE, dev=(8, 0)),
    sym("dev/fd", "/proc/self/fd")]), expect=["d 755 0 2 dev", "l 777 0 1 dev/fd"])
put("no-parents", "NONE", pack([entry("x/y/z", data=x)]), expect=["d 755 0 2 x/y", "d 755 0 3 x", "f 644 0 1 x/y/z"])
put("root-entry", "NONE", pack([d("./", mode=0o700), entry("./f", data=x)]), expect=["f 644 0 1 f"])
put("names", "NONE", pack([entry("a" * 255, data=x), entry("e\u0301", data=x), entry("b/" + "l" * 200, data=x)]),
    expect=["d 755 0 2 b", "f 644 0 1 " + "a" * 255, "f 644 0 1 b/" + "l" * 200, "f 644 0 1 e\u0301"])
put("gnu-names", "NONE", pack([entry("g" * 180 + "/" + "h" * 180, data=x)], tarfile.GNU_FORMAT),
    expect=["d 755 0 2 " + "g" * 180, "f 644 0 1 " + "g" * 180 + "/" + "h" * 180])
put("xattrs-dropped", "NONE", pack([entry("f", pax={"SCHILY.xattr.user.overlay.redirect": "/etc", "SCHILY.xattr.trusted.overlay.opaque": "y",
    "SCHILY.xattr.security.selinux": "x", "SCHILY.xattr.system.nfs4_acl": "x", "SCHILY.xattr.user.kept": "v"})]),
    expect=["f 644 0 1 f"])
put("global-header", "NONE", raw_header(b"g", b"%011o" % 22, b"g") + b"22 comment=hello world\n"[:22].ljust(512, b"\0") + pack([entry("f", data=x)]),
    expect=["f 644 0 1 f"])
put("ustar", "NONE", pack([entry("v7", data=x)], tarfile.USTAR_FORMAT), expect=["f 644 0 1 v7"])
put("pax-names", "NONE", pack([entry("p" * 200 + "/" + "q" * 200 + "/" + "r" * 200, data=x), sym("to", "t" * 300)]),
    expect=["d 755 0 2 " + "p" * 200 + "/" + "q" * 200, "d 755 0 3 " + "p" * 200, "f 644 0 1 " + "p" * 200 + "/" + "q" * 200 + "/" + "r" * 200,
            "l 777 0 1 to"])
put("gzip-members", "NONE", gzip.compress(good[:700], mtime=0) + gzip.compress(good[700:], mtime=0), "gzip",
    ["f 644 0 1 f", "f 644 0 1 g"])
put("sparse-pax", "NONE", pax_block([(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"), (b"GNU.sparse.size", b"4194304"),
    (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"1048576,5"), (b"size", b"5")]) +
    raw_header(b"s", b"00000000005") + x.ljust(512, b"\0") + b"\0" * 1024, expect=["f 644 0 1 s"])
put("late-parent", "NONE", pack([entry("a/f", data=x), d("a", mode=0o711, uid=5)]), expect=["d 711 5 2 a", "f 644 0 1 a/f"])
put("hardlink-chain", "NONE", pack([entry("1", data=x), hard("2", "1"), hard("3", "2"), entry("1", data=b"new")]),
    expect=["f 644 0 1 1", "f 644 0 2 2", "f 644 0 2 3"])

# --- ACLs: what cannot be kept as it is would leave a file open to others
NOBODY = 0xffffffff
ACL, DEFAULT = b"SCHILY.xattr.system.posix_acl_access", b"SCHILY.xattr.system.posix_acl_default"

def acl(*entries, version=2):
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *e) for e in entries)

def plain(name, kind=b"0", data=x, mode=b"0000644", size=None, uid=b"0000000", link=b""):
    body = data if kind == b"0" else b""
    return raw_header(name, b"%011o" % len(body) if size is None else size, kind, mode, uid, link) + body + b"\0" * (-len(body) % 512)

END = b"\0" * 1024
good_acl = acl((1, 6, NOBODY), (2, 4, 7), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
good_default = acl((1, 7, NOBODY), (2, 7, 65535), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY))
put("acl-garbage", BAD, pax_block([(ACL, b"x")]) + plain(b"f") + END)
put("acl-id-65536", BAD, pax_block([(ACL, acl((1, 6, NOBODY), (2, 4, 65536), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)))]) + plain(b"f") + END)
put("acl-group-max", BAD, pax_block([(ACL, acl((1, 6, NOBODY), (4, 0, NOBODY), (8, 4, 0xfffffffe), (16, 4, NOBODY), (32, 0, NOBODY)))]) + plain(b"f") + END)
put("acl-version", BAD, pax_block([(ACL, acl((1, 6, NOBODY), version=3))]) + plain(b"f") + END)
put("acl-incomplete", BAD, pax_block([(ACL, acl((1, 6, NOBODY), (2, 4, 7)))]) + plain(b"f") + END)
put("acl-tag", BAD, pax_block([(ACL, acl((1, 6, NOBODY), (64, 4, 7), (4, 0, NOBODY), (32, 0, NOBODY)))]) + plain(b"f") + END)
put("acl-default-of-a-file", BAD, pax_block([(DEFAULT, good_default)]) + plain(b"f") + END)
put("acl-default-garbage", BAD, pax_block([(DEFAULT, acl((2, 4, 7)))]) + plain(b"d/", b"5") + END)
put("acl", "NONE", pax_block([(ACL, good_acl)]) + plain(b"f") + pax_block([(DEFAULT, good_default)]) + plain(b"d/", b"5", mode=b"0000700") +
    plain(b"d/f", mode=b"0000600") + plain(b"d/in/", b"5") + END, expect=["d 700 0 3 d", "d 644 0 2 d/in", "f 600 0 1 d/f", "f 640 0 1 f"])
put("acl-default-of-what-went", "NONE", pax_block([(DEFAULT, good_default)]) + plain(b"d/", b"5", mode=b"0000700") + pax_block([(DEFAULT, good_default)]) +
    plain(b"d/in/", b"5") + plain(b"d") + plain(b"d/", b"5", mode=b"0000711") + plain(b"d/in/", b"5", mode=b"0000700") + END,
    expect=["d 711 0 3 d", "d 700 0 2 d/in"])
# --- attributes
def pax_file(*records):
    return pax_block(records) + plain(b"f") + END
put("xattr-name-300", BAD, pax_file((b"SCHILY.xattr.user." + b"n" * 300, b"v")))
put("xattr-flood", BAD, pax_file(*[(b"SCHILY.xattr.trusted.%d" % i, b"v") for i in range(2000)]))
put("xattr-odd", "NONE", pax_file((b"SCHILY.xattr.", b"v"), (b"SCHILY.xattr.user.", b"v"), (b"SCHILY.xattr.user.empty", b""),
    (b"LIBARCHIVE.xattr.user.of%2Flibarchive", b"dg=="), (b"SCHILY.xattr.security.capability", b"junk")),
    expect=["f 644 0 1 f"])
put("xattr-on-links", "NONE", pax_block([(b"SCHILY.xattr.user.x", b"v")]) + plain(b"f") + pax_block([(b"SCHILY.xattr.user.y", b"v")]) +
    plain(b"s", b"2", link=b"f") + pax_block([(b"SCHILY.xattr.user.z", b"v")]) + plain(b"h", b"1", link=b"f") + END,
    expect=["f 644 0 2 f", "f 644 0 2 h", "l 777 0 1 s"])
# --- heads upon heads
comment = pax_block([(b"comment", b"c" * 400)])
put("pax-flood", BAD, comment * 5000 + plain(b"f") + END)
put("pax-flood-large", "LIMIT", (raw_header(b"pax", b"%011o" % (1 << 20), b"x") + b"\n" * (1 << 20)) * 40 + plain(b"f") + END)
put("pax-huge", BAD, raw_header(b"pax", b"77777777777", b"x") + b"1" * 4096)
# a damaged record: without it the name, the owner or the size would be others than was meant
def damaged(body):
    return raw_header(b"pax", b"%011o" % len(body), b"x") + body.ljust(-(-len(body) // 512) * 512, b"\0") + plain(b"f") + END
for what, body in {"length": b"99999999999 path=../x", "short": b"9 path=x\n12 path=yy", "long": b"40 path=x\n", "no-length": b"path=x\n",
                   "negative": b"-9 path=x\n", "no-newline": b"9 path=xy", "no-value": b"7 path\n", "no-space": b"9path=xyz\n",
                   "of-two": b"9 path=x\n77 uid=1\n", "empty-name": b"5 =x\n", "zeros": b"\0" * 20}.items():
    put("pax-record-" + what, BAD, damaged(body))
put("pax-record-nul", BAD, pax_file((b"SCHILY.xattr.user.a\0b", b"v")))
put("pax-path-and-sparse-name", BAD, pax_block([(b"path", b"f"), (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"),
    (b"GNU.sparse.name", b"../canary"), (b"GNU.sparse.realsize", b"5")]) + plain(b"f") + END)
put("pax-linkpath", BAD, plain(b"f") + pax_block([(b"linkpath", b"../canary")]) + plain(b"h", b"1", link=b"f") + END)
put("global-path", "NONE", pax_block([(b"path", b"../canary"), (b"uid", b"70000")], b"g") + plain(b"f") + END, expect=["f 644 0 1 f"])
long_name = raw_header(b"././@LongLink", b"%011o" % 7, b"L") + b"longest".ljust(512, b"\0")
put("gnu-longname-chain", BAD, long_name * 200 + plain(b"f") + END)
put("gnu-longname-twice", "NONE", long_name + long_name + plain(b"f") + END, expect=["f 644 0 1 longest"])
put("gnu-longname-nul", "NONE", raw_header(b"././@LongLink", b"%011o" % 20, b"L") + b"in\0/../../../canary".ljust(512, b"\0") + plain(b"f") + END,
    expect=["f 644 0 1 in"])
put("gnu-longname-5000", BAD, raw_header(b"././@LongLink", b"%011o" % 5120, b"L") + (b"l" * 200 + b"/") * 25 + b"\0" * 95 + plain(b"f") + END)
put("gnu-longlink-dotdot", BAD, raw_header(b"././@LongLink", b"%011o" % 10, b"K") + b"../canary".ljust(512, b"\0") + plain(b"h", b"1", link=b"../cana") + END)
put("gnu-longname-alone", BAD, long_name + END)
put("header-checksum-later", BAD, plain(b"a") + plain(b"b")[:200] + b"\1" + plain(b"b")[201:] + END)
# --- names
put("name-empty", BAD, plain(b"") + END)
put("name-nul-pax", "NONE", pax_block([(b"path", b"a\0../../canary")]) + plain(b"f") + END, expect=["f 644 0 1 a"])
put("name-not-utf8", "NONE", pack([d("d")])[:512] + plain(b"d/\xff\xfe") + pax_block([(b"path", b"d/\xc3")]) + plain(b"f") + END,
    expect=["d 755 0 2 d", "f 644 0 1 d/\udcff\udcfe", "f 644 0 1 d/\udcc3"])
put("name-controls", "NONE", plain(b"a\rc\x1b[31m\\..\\x") + END, expect=["f 644 0 1 a\rc\x1b[31m\\..\\x"])
put("name-4096", BAD, pax_block([(b"path", b"/".join([b"p" * 255] * 16) + b"/p")]) + plain(b"f") + END)
put("name-directory-as-file", "NONE", plain(b"d/", b"0", b"") + END, expect=["d 644 0 2 d"])
put("symlink-5000", BAD, pax_block([(b"linkpath", b"t" * 5000)]) + plain(b"s", b"2", link=b"t") + END)
put("symlink-empty", BAD, plain(b"s", b"2") + END)
# --- markers
put("whiteout-dot", BAD, pack([d("a"), entry("a/.wh..")]))
put("whiteout-long", BAD, pack([entry(".wh." + "n" * 255)]))
put("whiteout-among-ancestors", BAD, pack([entry(".wh.a/../../canary", data=x)]))
put("whiteout-is-directory", "NONE", pack([d(".wh.a"), sym(".wh.b", "..")]), expect=["c 0 0 1 a", "c 0 0 1 b"])
put("marker-as-directory", BAD, pack([entry(".wh.a/in", data=x)]))
put("opaque-as-directory", BAD, pack([d("a"), entry("a/.wh..wh..opq/in", data=x)]))
put("whiteout-of-own-parent", "NONE", pack([d("a"), entry("a/f", data=x), entry(".wh.a"), entry("a/g", data=x)]),
    expect=["d 755 0 2 a", "f 644 0 1 a/f", "f 644 0 1 a/g"])
put("whiteout-then-below", "NONE", pack([entry(".wh.a"), entry("a/b/f", data=x), entry("c/.wh.d"), d("c"), entry("c/d/e", data=x)]),
    expect=["d 755 0 2 a/b", "d 755 0 2 c/d", "d 755 0 3 a", "d 755 0 3 c", "f 644 0 1 a/b/f", "f 644 0 1 c/d/e"])
put("whiteout-then-link-below", BAD, pack([entry(".wh.a"), hard("h", "a/f")]))
put("opaque-last", "NONE", pack([d("a"), entry("a/f", data=x), d("a/b"), entry("a/b/g", data=x), entry("a/.wh..wh..opq"), hard("b/h", "a/b/g")]),
    expect=["d 755 0 2 a/b", "d 755 0 2 b", "d 755 0 3 a", "f 644 0 1 a/f", "f 644 0 2 a/b/g", "f 644 0 2 b/h"])
# --- links
put("hardlink-to-skipped-device", BAD, pack([d("dev"), entry("dev/null", tarfile.CHRTYPE, dev=(1, 3)), hard("null", "dev/null")]))
put("hardlink-with-other-looks", "NONE", pack([entry("f", data=x, mode=0o600), hard("h", "f", mode=0o4777, uid=7)]),
    expect=["f 600 0 2 f", "f 600 0 2 h"])
put("hardlink-of-symlink-then-below", BAD, pack([sym("s", ".."), hard("h", "s"), entry("h/canary", data=x)]))
put("hardlink-with-content", BAD, plain(b"f") + raw_header(b"h", b"%011o" % 5, b"1", link=b"f") + b"owner".ljust(512, b"\0") + END)
put("replace-deep", "NONE", pack([entry("d/" * 250 + "f", data=x), entry("d", data=x)]), expect=["f 644 0 1 d"])
# --- numbers
def number(value):
    return b"\x80" + value.to_bytes(11, "big") if value >= 0 else (value % (1 << 96)).to_bytes(12, "big")
put("uid-2-32", BAD, pax_block([(b"uid", b"4294967296")]) + plain(b"f") + END)
put("uid-2-64", BAD, pax_block([(b"uid", b"18446744073709551616")]) + plain(b"f") + END)
put("gid-minus-2-31", BAD, pax_block([(b"gid", b"-2147483648")]) + plain(b"f") + END)
put("uid-base-256-negative", BAD, raw_header(b"f", b"00000000000", uid=b"\xff" * 8) + END)
put("size-negative", BAD, raw_header(b"f", number(-1)) + END)
put("size-max", BAD, raw_header(b"f", number((1 << 63) - 1)) + x.ljust(512, b"\0") + END)
put("size-2-64", BAD, raw_header(b"f", number(1 << 64)) + x.ljust(512, b"\0") + END)
put("size-pax-text", BAD, pax_block([(b"size", b"-5")]) + plain(b"f") + END)
put("size-beyond-the-end", BAD, raw_header(b"f", b"%011o" % 4096) + x.ljust(512, b"\0"))
put("times", "NONE", b"".join(pax_block([(b"mtime", t)]) + plain(b"t%d" % i) for i, t in enumerate(
    (b"9223372036854775807", b"-9223372036854775808", b"99999999999999999999999", b"-1.5", b"1.9999999999999", b"nan", b"1e9"))) + END,
    expect=["f 644 0 1 t%d" % i for i in range(7)])
# --- sparse files
def sparse(size, pieces, data, real=None):
    return pax_block([(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"), (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)), (b"GNU.sparse.map", b",".join(b"%d,%d" % p for p in pieces)), (b"size", b"%d" % len(data))]) + \
        raw_header(b"s", b"%011o" % len(data)) + data + b"\0" * (-len(data) % 512) + END
put("sparse-overlap", BAD, sparse(4096, [(0, 600), (300, 600)], b"a" * 1200))
put("sparse-backwards", BAD, sparse(4096, [(2048, 10), (0, 10)], b"a" * 20))
put("sparse-beyond", BAD, sparse(4096, [(4090, 100)], b"a" * 100))
# what the library passes over: the file keeps its size
put("sparse-offset-max", "NONE", sparse(4096, [((1 << 63) - 2, 100)], b"a" * 100), expect=["f 644 0 1 s"])
put("sparse-longer-than-data", "NONE", sparse(4096, [(0, 4096)], b"a" * 10), expect=["f 644 0 1 s"])
put("sparse-flood", "LIMIT", sparse(1 << 40, [(i * 1024, 1) for i in range(20000)], b"a" * 20000))
put("sparse-negative", BAD, sparse(-1, [(0, 5)], x))
put("sparse-1-0-map", BAD, pax_block([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"s"),
    (b"GNU.sparse.realsize", b"4096"), (b"size", b"512")]) + raw_header(b"s", b"%011o" % 512) + b"99999999999\n0\n1\n".ljust(512, b"\0") + END)
# --- packed forms
put("gzip-twice", BAD, gzip.compress(gzip.compress(good, mtime=0), mtime=0), "gzip")
put("gzip-and-garbage", "NONE", gzip.compress(good, mtime=0) + b"garbage" * 100, "gzip", ["f 644 0 1 f", "f 644 0 1 g"])
put("gzip-and-broken-member", BAD, gzip.compress(good[:700], mtime=0) + gzip.compress(good[700:], mtime=0)[:30], "gzip")
put("gzip-method", BAD, b"\x1f\x8b\x07" + gzip.compress(good, mtime=0)[3:], "gzip")
put("zstd-window-2g", BAD, b"\x28\xb5\x2f\xfd" + bytes([0, 21 << 3]) + b"\1\0\0" + b"\0" * 16, "zstd")
def rle(byte, n):
    out, each = b"\x28\xb5\x2f\xfd" + bytes([0, 7 << 3]), 128 * 1024
    while n:
        part = min(n, each)
        n -= part
        out += struct.pack("<I", part << 3 | 1 << 1 | (n == 0))[:3] + byte
    return out
def stored(data):
    return b"\x28\xb5\x2f\xfd" + bytes([0, 7 << 3]) + b"".join(
        struct.pack("<I", len(p) << 3 | (last))[:3] + p for p, last in ((data[i:i + 65536], i + 65536 >= len(data)) for i in range(0, len(data), 65536)))
put("zstd-bomb", "LIMIT", stored(raw_header(b"bomb", b"%011o" % (1 << 32))) + rle(b"\0", 1 << 30), "zstd")
put("zstd-frames", "NONE", b"\x50\x2a\x4d\x18\4\0\0\0skip" + stored(good[:700]) + stored(good[700:]), "zstd", ["f 644 0 1 f", "f 644 0 1 g"])
put("zstd-dictionary", BAD, b"\x28\xb5\x2f\xfd\3\x38\1\2\3\4" + b"\1\0\0", "zstd")
put("zstd-truncated", BAD, stored(good)[:900], "zstd")
# --- behind the end
put("second-archive", "NONE", pack([entry("f", data=x)]) + pack([entry("../canary", data=x)]), expect=["f 644 0 1 f"])
put("unknown-type", "NONE", plain(b"f", b"Z") + END, expect=["f 644 0 1 f"])
put("multi-volume", BAD, plain(b"f", b"M") + END)

# --- upon a layer: unpack_hostile.sh says what that has, and what comes of it
put("hardlink", BAD, pack([hard("h", "only-below")]), "lower")
put("hardlink-symlink", BAD, pack([hard("h", "link/f")]), "lower")
put("through-link", "NONE", pack([entry("link/f", data=x)]), "lower")
put("opaque", "NONE", pack([d("d"), d("d/in"), entry("d/in/own", data=x), entry("d/.wh..wh..opq")]), "lower")
put("opaque-link", "NONE", pack([d("out"), entry("out/.wh..wh..opq")]), "lower")
put("opaque-root", "NONE", pack([entry(".wh..wh..opq")]), "lower")
put("implied", "NONE", pack([entry("d/new", data=x)]), "lower")
