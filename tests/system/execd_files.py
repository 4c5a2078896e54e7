# SPDX-License-Identifier: Apache-2.0
"""Files and metrics of the execd API against a running daemon, row by row of sections 8 and 9 of the contract.

Each row is a call and what it has to answer, or what lies in the sandbox behind it; doc/execd-rows.md names them.
"""
import json
import os
import re
import subprocess
import time
import urllib.parse

from execd_client import Box, Connection, Tap, until

t = Tap()
box = Box(env={"WHERE": "/w", "HOME": "/root"})
B = "xYz"


def ask(method, path, body=None, headers=None, of=None):
    """(status, headers, bytes) of one request as it is."""
    conn = Connection(60)
    conn.putrequest(method, (of or box).path(path), skip_accept_encoding=True)
    headers = dict(headers or {})
    if body is not None and "Transfer-Encoding" not in headers:
        headers.setdefault("Content-Length", str(len(body)))
    for name, value in headers.items():
        conn.putheader(name, value)
    conn.endheaders()
    if body is not None:
        conn.send(body)
    reply = conn.getresponse()
    data = reply.read()
    conn.close()
    return reply.status, reply, data


def call(method, path, body=None):
    """(status, value or text) with a JSON body; its headers are looked at as well."""
    status, head, data = ask(method, path, None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode())
    return status, json.loads(data) if data.startswith((b"{", b"[")) else data.decode()


def query(path, *values, **more):
    return path + "?" + urllib.parse.urlencode([("path", v) for v in values] + list(more.items()))


def info(*paths):
    return call("GET", query("/files/info", *paths))


def code(answer):
    """Its status and the code of its error."""
    status, value = answer
    return status, value.get("code") if isinstance(value, dict) else value


def sh(text):
    return box.command(text)


def part(name, content, filename=None, more=b""):
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"' % (B.encode(), name.encode())
    return head + (b"" if filename is None else b"; " + filename) + b"\r\n" + more + b"\r\n" + content + b"\r\n"


META, FILE = b'filename="metadata"', b'filename="f"'


def pair(meta, content):
    return part("metadata", meta if isinstance(meta, bytes) else json.dumps(meta).encode(), META, b"Content-Type: application/json\r\n") + \
        part("file", content, FILE)


def upload(*parts, **headers):
    headers = {k.replace("_", "-"): v for k, v in headers.items()}
    status, head, data = ask("POST", "/files/upload", b"".join(parts) + b"--%s--\r\n" % B.encode(),
                             dict({"Content-Type": "multipart/form-data; boundary=" + B}, **headers))
    return status, json.loads(data) if data else data


def get(path, headers=None, **more):
    return ask("GET", query("/files/download", path, **more), None, headers)


DONE = (200, "")
MISSING = (404, "FILE_NOT_FOUND")
BAD = (400, "INVALID_REQUEST_BODY")
NO_QUERY = (400, "MISSING_QUERY")
FAILED = (500, "RUNTIME_ERROR")


# ---- 8.1 paths, records, modes, owners ----

def test_paths():
    sh("mkdir -p /w/dir /root/below; cd /w; printf 12345 >a; chmod 4751 a; ln -s a link; ln -s none dangling; mkfifo fifo; chown 12345:54321 fifo; "
       "touch '$HOME' '$none' '~' 'a b+c%' $'new\\nline' $'\\xff'; touch /root/below/f; chown nobody:nogroup dir")
    got = info("/w/a")[1].get("/w/a", {})
    t.eq(list(got), ["path", "type", "size", "modified_at", "created_at", "owner", "group", "mode"], "row 8.1-1: a record has all members")
    t.eq((got.get("path"), got.get("type"), got.get("size"), got.get("owner"), got.get("group"), got.get("mode")), ("/w/a", "file", 5, "root", "root", 751),
         "row 8.1-2: the mode's octal digits as a number, without the special bits")
    want = sh("stat -c '%Y' /w/a")
    stamp = r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z$"
    made, changed = (re.match(stamp, got.get(k, "")) for k in ("created_at", "modified_at"))
    t.ok(made and changed and time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(want))) == changed.group(1), "row 8.1-3: times in UTC", got)
    t.ok(made and changed and made.group(1) <= changed.group(1), "row 8.1-4: created when the file was born", got)
    sh("touch -d 2001-02-03T04:05:06.789Z /w/a")
    later = info("/w/a")[1]["/w/a"]
    t.eq((later["modified_at"][:23], later["created_at"]), ("2001-02-03T04:05:06.789", got["created_at"]), "row 8.1-4: and not when it was changed")
    for row, path, kind in (("8.1-5", "/w/dir", "directory"), ("8.1-5", "/w/link", "symlink"), ("8.1-5", "/w/dangling", "symlink"),
                            ("8.1-5", "/w/fifo", "other")):
        t.eq(info(path)[1].get(path, {}).get("type"), kind, "row %s: %s is a %s" % (row, path, kind))
    got = info("/w/fifo", "/w/dir")[1]
    t.eq((got["/w/fifo"]["owner"], got["/w/fifo"]["group"], got["/w/dir"]["owner"], got["/w/dir"]["group"]),
         ("12345", "54321", "nobody", "nogroup"), "row 8.1-6: owners by name, else the number as text")
    for asked, real in (("$WHERE/a", "/w/a"), ("${WHERE}/a", "/w/a"), ("~/below/f", "/root/below/f"), ("~", "/root"), ("/w/$HOME", "/w//root"),
                        ("/w/$none", "/w/$none"), ("/w/~", "/w/~"), ("/w/a b+c%", "/w/a b+c%"), ("/w/new\nline", "/w/new\nline"),
                        ("/w/dir/../a", "/w/a")):
        status, got = info(asked)
        if asked == "/w/$HOME":
            t.eq((status, got.get("code")), MISSING, "row 8.1-7: %r is expanded" % asked)
        else:
            t.ok(status == 200 and got[asked]["path"] in (real, asked if ".." in asked else real), "row 8.1-7: %r" % asked, got)
    t.eq(code(info("~nobody/x")), MISSING, "row 8.1-8: no homes of others")
    t.eq(info("w/a")[1].get("w/a", {}).get("path"), "/w/a", "row 8.1-9: relative to the working directory")
    status, got = call("GET", "/files/info?path=/w/%FF")
    t.ok(status == 200 and list(got) == ["/w/\ufffd"], "row 8.1-10: names that are no UTF-8", (status, got))
    for row, mode, want in (("8.1-11", 640, "640"), ("8.1-11", 0, "640"), ("8.1-12", 4755, "4755"), ("8.1-12", 1777, "1777"), ("8.1-12", 2070, "2070"), ("8.1-11", 7, "7"),
                            ("8.1-11", None, "7")):
        t.eq((call("POST", "/files/permissions", {"/w/a": {"mode": mode}}), sh("stat -c %a /w/a")), (DONE, want), "row %s: mode %s" % (row, mode))
    for mode in (648, 90, -1, 77777, 1 << 40):
        t.eq((code(call("POST", "/files/permissions", {"/w/a": {"mode": mode}})), sh("stat -c %a /w/a")), (FAILED, "7"),
             "row 8.1-13: mode %s is none" % mode)
    for mode in ("755", 7.5, [], True):
        status, got = call("POST", "/files/permissions", {"/w/a": {"mode": mode}})
        t.ok((status, got["code"]) == BAD and sh("stat -c %a /w/a") == "7", "row 8.1-13: mode %r is no number of a mode" % (mode,), (status, got))
    for owner, group, want in (("nobody", "nogroup", "nobody:nogroup"), (None, "root", "nobody:root"), ("", "", "nobody:root"), ("0", None, "root:root"),
                               ("1234", "5678", "1234:5678"), ("root", "root", "root:root")):
        t.eq((call("POST", "/files/permissions", {"/w/dir": {"owner": owner, "group": group}}), sh("stat -c %u:%g /w/dir")),
             (DONE, sh("f=%s; echo $(id -u ${f%%:*} 2>/dev/null || echo ${f%%:*}):$(getent group ${f##*:} | cut -d: -f3 | grep . || echo ${f##*:})" % want)),
             "row 8.1-14: owner %r, group %r" % (owner, group))
    for owner in ("no-such-user", "-1", "4294967295", "1 2", "0x10"):
        t.eq((code(call("POST", "/files/permissions", {"/w/dir": {"owner": owner}})), sh("stat -c %U /w/dir")), (FAILED, "root"),
             "row 8.1-15: no such owner %r" % owner)


# ---- 8.2 to 8.5 ----

def test_info():
    t.eq(call("GET", "/files/info"), (200, {}), "row 8.2-1: of nothing")
    status, got = info("/w/link", "/w/../w/dir", "/w/dir")
    t.eq((status, sorted(got)), (200, ["/w/../w/dir", "/w/dir", "/w/link"]), "row 8.2-2: keyed by the paths as asked")
    t.eq(got["/w/link"]["type"], "symlink", "row 8.2-3: a link is not followed")
    status, got = info("/w/dir", "/w/none", "/w/dir")
    t.ok((status, got["code"]) == MISSING and "/w/none" in got["message"], "row 8.2-4: the first failure ends it", got)
    t.eq(code(info("/w/a/below")), FAILED, "row 8.2-5: what is below a file")
    t.eq(code(info("/w/" + "x" * 300)), FAILED, "row 8.2-5: a name that is too long")
    t.eq(code(info("")), MISSING, "row 8.2-5: an empty path")


def test_remove():
    sh("cd /w; touch r1 r2; mkdir rd; ln -s rd rl; ln -s none rdang; ln -s r2 rlf")
    t.eq((call("DELETE", query("/files", "/w/r1", "/w/never", "/w/rdang", "/w/rlf")), sh("cd /w; ls -d r*")), (DONE, "r2\nrd\nrl"),
         "row 8.3-1: in order, a missing one is fine, a link goes and not what it names, also a dangling one")
    status, got = call("DELETE", query("/files", "/w/r2", "/w/rd", "/w/a"))
    t.ok((status, got["code"]) == FAILED and "path is a directory" in got["message"] and sh("ls /w/r2 2>&1; ls /w/a").endswith("/w/a"),
         "row 8.3-2: a directory is none, and ends it", got)
    t.eq(code(call("DELETE", query("/files", "/w/rl")))[0], 500, "row 8.3-3: nor is a link to one")
    t.eq(code(call("DELETE", "/files")), NO_QUERY, "row 8.3-4: of nothing")
    t.eq(sh("rm -r /w/rd /w/rl; echo gone"), "gone", "row 8.3-3: both stay")


def test_permissions():
    sh("cd /w; touch p; chmod 600 p; ln -s p pl")
    t.eq((call("POST", "/files/permissions", {"/w/pl": {"mode": 4711, "owner": "nobody", "group": "nogroup"}}), sh("stat -c %a:%U:%G /w/p")),
         (DONE, "4711:nobody:nogroup"), "row 8.4-1: through a link; the owner does not take the setuid bit away")
    t.eq(code(call("POST", "/files/permissions", {"/w/none": {"mode": 600}, "/w/p": {"mode": 600}})), MISSING, "row 8.4-2: a missing file")
    t.eq(call("POST", "/files/permissions", b"null"), DONE, "row 8.4-3: null")
    t.eq(call("POST", "/files/permissions", b"{}"), DONE, "row 8.4-3: nothing")
    t.eq(call("POST", "/files/permissions", {"/w/p": None}), DONE, "row 8.4-3: null for a path")
    t.eq(call("POST", "/files/permissions", b'{"/w/p":{"MODE":640,"extra":[1]}} tail'), DONE, "row 8.4-4: names in any case, what is unknown, what follows")
    t.eq(sh("stat -c %a /w/p"), "640", "row 8.4-4: and it counts")
    for body in (b"", b"[]", b"5", b'{"/w/p":5}', b'{"/w/p":{"owner":5}}', b'{"":{"mode":600}}', b"{"):
        t.eq(code(call("POST", "/files/permissions", body)), BAD, "row 8.4-5: %s is no body of it" % body.decode())


def test_move():
    sh("cd /w; mkdir m md; printf x >m/a; printf y >m/b; ln -s a m/l; mkdir md/sub; touch md/sub/f; setfattr -n user.k -v v m/a 2>/dev/null; chmod 4711 m/a")
    t.eq((call("POST", "/files/mv", [{"src": "/w/m/a", "dest": "/w/n/deep/a"}, {"src": "/w/md", "dest": "/w/n/md"}]),
          sh("cd /w/n; find . | sort; stat -c %a deep deep/a")), (DONE, ".\n./deep\n./deep/a\n./md\n./md/sub\n./md/sub/f\n755\n4711"),
         "row 8.5-1: files and directories, parents are made, in order")
    t.eq(code(call("POST", "/files/mv", [{"src": "/w/m/none", "dest": "/w/m/z"}])), MISSING, "row 8.5-2: nothing there")
    status, got = call("POST", "/files/mv", [{"src": "/w/m/b", "dest": "/w/m/b2"}, {"src": "/w/m/l", "dest": "/w/m/b2"}, {"src": "/w/m/b2", "dest": "/w/m/b3"}])
    t.ok((status, got["code"]) == FAILED and "destination path already exists" in got["message"] and sh("ls /w/m") == "b2\nl",
         "row 8.5-3: never over something; the first failure ends it", got)
    t.eq(call("POST", "/files/mv", [{"src": "/w/m/l", "dest": "/w/m/l2"}]) + (sh("readlink /w/m/l2"),), DONE + ("a",), "row 8.5-4: a link is moved as one")
    t.eq((call("POST", "/files/mv", [{"src": "/w/n", "dest": "/dev/shm/n"}]), sh("cd /dev/shm/n && find . | sort; stat -c %a deep/a; ls -d /w/n 2>/dev/null | wc -l")),
         (DONE, ".\n./deep\n./deep/a\n./md\n./md/sub\n./md/sub/f\n4711\n0"), "row 8.5-5: to another file system")
    t.eq(code(call("POST", "/files/mv", [{"src": "/w/m", "dest": "/w/m/in/itself"}])), FAILED, "row 8.5-6: into itself")
    t.eq(sh("ls /w/m/b2 /w/m/l2 | wc -l"), "2", "row 8.5-6: which leaves it")
    t.eq(call("POST", "/files/mv", b"[]"), DONE, "row 8.5-7: of nothing")
    t.eq(call("POST", "/files/mv", b"null"), DONE, "row 8.5-7: of null")
    for body in (b"{}", b'[{"src":"/w/m/b2"}]', b'[{"src":"","dest":"/x"}]', b"[5]", b'[{"src":"/w/m/b2","dest":null}]'):
        t.eq(code(call("POST", "/files/mv", body)), BAD, "row 8.5-8: %s" % body.decode())
    sh("rm -r /dev/shm/n")


# ---- 8.6 search ----

def test_search():
    sh("mkdir -p /s/sub/deep/x.txt /s/.hid; cd /s; touch a.txt b.TXT c.py sub/a.txt sub/b.py sub/deep/c.txt .hid/d.txt .e.txt 'q[1].txt' 'sp ace.txt' x1 x2 x9 xa "
       "sub/deep/x.txt/in; ln -s a.txt l.txt; ln -s sub ld; ln -s /s /sl; ln -s none dang.txt")

    def found(pattern, root="/s"):
        status, got = call("GET", query("/files/search", root, pattern=pattern) if pattern is not None else query("/files/search", root))
        if status != 200:
            return status, got.get("code")
        return [f["path"].replace(root + "/", "", 1) for f in got]

    everything = [".e.txt", ".hid/d.txt", "a.txt", "b.TXT", "c.py", "dang.txt", "l.txt", "ld", "q[1].txt", "sp ace.txt", "sub/a.txt", "sub/b.py", "sub/deep/c.txt",
                  "sub/deep/x.txt/in", "x1", "x2", "x9", "xa"]
    texts = [p for p in everything if p.endswith(".txt")]
    for row, pattern, want in (
            ("8.6-1", None, everything), ("8.6-1", "", everything), ("8.6-1", "**", everything), ("8.6-1", "*", everything),
            ("8.6-2", "*.txt", texts), ("8.6-2", "**/*.txt", texts), ("8.6-2", "a.txt", ["a.txt", "sub/a.txt"]),
            ("8.6-3", "sub/*.py", ["sub/b.py"]), ("8.6-3", "sub/**/*.txt", ["sub/a.txt", "sub/deep/c.txt"]), ("8.6-3", "sub/**", [p for p in everything if p.startswith("sub/")]),
            ("8.6-3", "**/deep/*", ["sub/deep/c.txt"]),
            ("8.6-4", "x?", ["x1", "x2", "x9", "xa"]), ("8.6-4", "x[12]", ["x1", "x2"]), ("8.6-4", "x[0-5]", ["x1", "x2"]), ("8.6-4", "x[!0-5]", ["x9", "xa"]),
            ("8.6-4", "x[^0-9]", ["xa"]), ("8.6-4", "{a,c}.{txt,py}", ["a.txt", "c.py", "sub/a.txt", "sub/deep/c.txt"]), ("8.6-4", "{a,{b,c}}.py", ["c.py", "sub/b.py"]),
            ("8.6-4", "q\\[1\\].txt", ["q[1].txt"]), ("8.6-4", "sp ace.*", ["sp ace.txt"]), ("8.6-4", "!(*.txt)", [p for p in everything if p not in texts]),
            ("8.6-4", "*.Txt", []), ("8.6-4", ".*", [".e.txt"])):
        t.eq(found(pattern), want, "row %s: search %s" % (row, pattern))
    for pattern in ("[", "[a", "{a", "a\\", "[]"):
        status, got = call("GET", query("/files/search", "/s", pattern=pattern))
        t.ok((status, got["code"]) == FAILED and "syntax error in pattern" in got["message"], "row 8.6-5: %s is no pattern" % pattern, got)
    t.eq(code(call("GET", "/files/search?pattern=*")), NO_QUERY, "row 8.6-6: without a path")
    t.eq(found("*", "/none"), MISSING, "row 8.6-6: nowhere")
    t.eq(found("c.py", "/sl"), ["/s/c.py"], "row 8.6-7: a root that is a link is followed, links below are not")
    t.eq([f["path"] for f in call("GET", query("/files/search", "/s/a.txt", pattern="*"))[1]], ["/s/a.txt"], "row 8.6-8: a root that is a file")
    t.eq((sh("ls /proc/1/fd >/dev/null 2>&1; echo $?"), found("comm", "/proc/1/task/1")), ("2", ["comm"]), "row 8.6-10: what may not be read is passed over")
    status, got = call("GET", query("/files/search", "/s", pattern="x1"))
    t.eq((status, list(got[0])), (200, ["path", "type", "size", "modified_at", "created_at", "owner", "group", "mode"]), "row 8.6-9: whole records")
    t.eq(call("GET", query("/files/search", "/s/.hid", pattern="none")), (200, []), "row 8.6-9: an empty list")


# ---- 8.7 replace ----

def test_replace():
    sh("mkdir /p; cd /p; printf 'a.a.a' >one; printf 'aaaa' >two; printf 'x\\0\\377y' >bin; touch empty; chmod 640 one; chown nobody one; ln -s one link")

    def replace(body, verbose=None):
        return call("POST", "/files/replace" + ("" if verbose is None else "?verbose=" + verbose), body)

    t.eq((replace({"/p/one": {"old": "a", "new": "bb"}}), sh("cd /p; cat one; stat -c :%a:%U one")), (DONE, "bb.bb.bb:640:nobody"), "row 8.7-1: every one; mode and owner stay")
    t.eq((replace({"/p/two": {"old": "aa", "new": ""}, "/p/one": {"old": "none", "new": "x"}, "/p/empty": {"old": "a", "new": "b"}}, "true"), sh("cat /p/two")),
         ((200, {"/p/two": {"replacedCount": 2}, "/p/one": {"replacedCount": 0}, "/p/empty": {"replacedCount": 0}}), ""), "row 8.7-2: counts by path as asked")
    for verbose in ("false", "True", "1", ""):
        t.eq(replace({"/p/one": {"old": "none", "new": "x"}}, verbose), DONE, "row 8.7-3: verbose=%s is not true" % verbose)
    t.eq((replace({"/p/link": {"old": "bb", "new": "c"}}, "true"), sh("cd /p; cat one; readlink link")), ((200, {"/p/link": {"replacedCount": 3}}), "c.c.cone"),
         "row 8.7-4: through a link, which stays")
    t.eq((replace({"/p/one": {"old": ".", "new": ".*+?$1\\0"}}, "true"), sh("cat /p/one")), ((200, {"/p/one": {"replacedCount": 2}}), "c.*+?$1\\0c.*+?$1\\0c"),
         "row 8.7-5: texts, no patterns")
    t.eq((replace({"/p/bin": {"old": "x", "new": "\u00fc"}}), sh("od -An -tx1 /p/bin").strip()), (DONE, "c3 bc 00 ff 79"), "row 8.7-6: bytes that are no text")
    status, got = replace({"/p/one": {"old": "", "new": "x"}})
    t.ok((status, got["code"]) == BAD and "old content must not be empty" in got["message"], "row 8.7-7: nothing to replace", got)
    t.eq(code(replace({"/p/none": {"old": "a", "new": "b"}})), MISSING, "row 8.7-8: a missing file")
    t.eq(code(replace({"/p": {"old": "a", "new": "b"}})), FAILED, "row 8.7-8: a directory")
    t.eq(replace({}), DONE, "row 8.7-9: of nothing")
    for body in (b"[]", b'{"/p/one":{"new":"x"}}', b'{"/p/one":{"old":5,"new":"x"}}', b'{"/p/one":5}'):
        t.eq(code(call("POST", "/files/replace", body)), BAD, "row 8.7-9: %s" % body.decode())


# ---- 8.8 upload ----

def test_upload():
    t.eq((upload(pair({"path": "/u/deep/er/a.bin"}, b"abc")), sh("stat -c %a:%U /u /u/deep/er /u/deep/er/a.bin; cat /u/deep/er/a.bin")),
         ((200, b""), "755:root\n755:root\n755:root\nabc"), "row 8.8-1: parents are made; 755 when no mode is given")
    t.eq((upload(pair({"path": "/u/p1", "owner": None, "group": None, "mode": 640}, b"1"), pair({"path": "/u/p2", "owner": "nobody", "group": "nogroup", "mode": 4755}, b""),
                 pair({"path": "$WHERE/p3", "owner": "1", "group": "2", "mode": 0}, b"three\r\n--xY\r\n")),
          sh("stat -c %a:%u:%G:%s /u/p1 /u/p2; stat -c %a:%u:%g:%s /w/p3")),
         ((200, b""), "640:0:root:1\n4755:%s:nogroup:0\n755:1:2:13" % sh("id -u nobody")), "row 8.8-2: several pairs, with modes and owners; an empty one")
    sh("cd /u; printf 'long content' >ex; chmod 604 ex; chown nobody ex; ln -s ex exl; ls -i ex >/tmp/ino")
    t.eq((upload(pair({"path": "/u/exl"}, b"short")), sh("cd /u; cat ex; stat -c :%a:%U ex; readlink exl")), ((200, b""), "short:604:nobody\nex"),
         "row 8.8-3: over a file through a link: its mode and owner stay")
    t.eq((upload(pair({"path": "/u/deep/../p4"}, b"x")), sh("cat /u/p4")), ((200, b""), "x"), "row 8.8-4: .. in a path")
    sh("mkdir /u/far; cd /u; ln -s ../u/far/made dang1; ln -s dang1 dang2; ln -s nowhere/x dang3; ln -s loop loop")
    t.eq((upload(pair({"path": "/u/dang2", "mode": 600}, b"made")), sh("cd /u; readlink dang2 dang1; cat far/made; stat -c :%a far/made")),
         ((200, b""), "dang1\n../u/far/made\nmade:600"), "row 8.8-3: over a dangling link: what it names is made")
    t.eq([upload(pair({"path": "/u/" + name}, b"x"))[0] in (404, 500) for name in ("dang3", "loop")] + [sh("cd /u; readlink dang3 loop")], [True, True, "nowhere/x\nloop"],
         "row 8.8-3: not through one that leads nowhere")
    plain = part("metadata", b'{"path":"/u/nofn"}') + part("file", b"no names")
    t.eq((upload(plain), sh("cat /u/nofn")), ((200, b""), "no names"), "row 8.8-5: parts without a filename count (published: not)")
    star = part("metadata", b'{"path":"/u/star"}', b"filename*=UTF-8''m") + part("file", b"star", b"filename*=UTF-8''%C3%BC")
    t.eq((upload(star), sh("cat /u/star")), ((200, b""), "star"), "row 8.8-6: filename* is one")
    t.eq((upload(part("other", b"ignored", FILE) + pair({"path": "/u/oth"}, b"o") + part("field", b"v")), sh("cat /u/oth")), ((200, b""), "o"),
         "row 8.8-7: other parts are passed over")
    t.eq((upload(b"preamble\r\n", pair({"path": "/u/pre"}, b"p")), sh("cat /u/pre")), ((200, b""), "p"), "row 8.8-7: so is what comes before the first")
    t.eq((upload(part("file", b"first", FILE) + part("metadata", b'{"path":"/u/ff"}', META)), sh("cat /u/ff")), ((200, b""), "first"),
         "row 8.8-8: content before its metadata")
    body = pair({"path": "/u/chunked"}, b"z" * 70000) + b"--%s--\r\n" % B.encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 999]), body[i:i + 999]) for i in range(0, len(body), 999)) + b"0\r\n\r\n"
    status, _, data = ask("POST", "/files/upload", chunks, {"Content-Type": 'multipart/form-data; boundary="%s"' % B, "Transfer-Encoding": "chunked"})
    t.eq((status, data, sh("stat -c %s /u/chunked")), (200, b"", "70000"), "row 8.8-9: in chunks, with a boundary in quotes")
    status, head, data = ask("POST", "/files/upload", pair({"path": "/u/\u00fc \u20ac"}, b"uni") + b"--%s--\r\n" % B.encode(),
                             {"Content-Type": "multipart/form-data; boundary=" + B})
    t.eq((status, head.getheader("Content-Type"), head.getheader("Content-Length"), sh("cat '/u/\u00fc \u20ac'")), (200, None, "0", "uni"),
         "row 8.8-10: the answer is empty and has no type; names that are not ASCII")
    one, meta = pair({"path": "/u/bad"}, b"x"), part("metadata", b'{"path":"/u/bad"}', META)
    for row, parts, headers, want, text in (
            ("8.8-11", (one,), {"Content_Type": "application/json"}, "INVALID_FILE", "multipart form is empty"),
            ("8.8-11", (one,), {"Content_Type": "multipart/form-data"}, "INVALID_FILE", "multipart form is empty"),
            ("8.8-12", (part("file", b"x", FILE),), {}, "INVALID_FILE_METADATA", "metadata file is missing"),
            ("8.8-12", (meta,), {}, "INVALID_FILE_CONTENT", "file is missing"),
            ("8.8-12", (), {}, "INVALID_FILE_METADATA", "metadata file is missing"),
            ("8.8-13", (one, part("file", b"y", FILE)), {}, "INVALID_FILE", "metadata and file count mismatch: 1 vs 2"),
            ("8.8-13", (one, meta), {}, "INVALID_FILE", "metadata and file count mismatch: 2 vs 1"),
            ("8.8-14", (pair(b"{", b"x"),), {}, "INVALID_FILE_METADATA", ""), ("8.8-14", (pair({"path": ""}, b"x"),), {}, "INVALID_FILE_METADATA", ""),
            ("8.8-14", (pair({}, b"x"),), {}, "INVALID_FILE_METADATA", ""), ("8.8-14", (pair({"path": 5}, b"x"),), {}, "INVALID_FILE_METADATA", ""),
            ("8.8-14", (pair({"path": "/u/bad", "mode": "rw"}, b"x"),), {}, "INVALID_FILE_METADATA", "")):
        status, got = upload(*parts, **headers)
        t.ok(status == 400 and got["code"] == want and text in got["message"], "row %s: %s" % (row, text or want), (status, got))
    sh("rm -f /u/bad")
    for meta in ({"path": "/u/deep"}, {"path": "/u/own", "owner": "no-such-user"}, {"path": "/u/mode", "mode": 888}, {"path": "/u/p1/below"}):
        status, got = upload(pair({"path": "/u/first"}, b"1"), pair(meta, b"x"))
        t.ok((status, got["code"]) == FAILED, "row 8.8-15: %s" % json.dumps(meta), (status, got))
    t.eq(sh("cat /u/first; ls -A /u | grep -c sbx-"), "10", "row 8.8-15: earlier pairs stay, and nothing lies beside them")


# ---- 8.9 download ----

def test_download():
    content = bytes(range(256)) * 4
    upload(pair({"path": "/d/f.bin"}, content), pair({"path": "/d/\u00fc b.txt"}, b"u"), pair({"path": "/d/empty"}, b""), pair({"path": "/d/lines"}, b"one\ntwo\r\n\nfour\r"),
           pair({"path": '/d/q"uo\\te'}, b"q"))
    sh("ln -s f.bin /d/link; mkfifo /d/fifo; ln -s none /d/dang")
    status, head, data = get("/d/f.bin")
    t.eq((status, data == content, head.getheader("Content-Type"), head.getheader("Content-Length"), head.getheader("Content-Disposition"), head.getheader("Accept-Ranges")),
         (200, True, "application/octet-stream", "1024", 'attachment; filename="f.bin"', "bytes"), "row 8.9-1: a file and its head")
    modified = head.getheader("Last-Modified")
    t.eq(modified, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(int(sh("stat -c %Y /d/f.bin")))), "row 8.9-2: when it was changed")
    status, head, data = get("/d/f.bin", {"If-Modified-Since": modified})
    t.eq((status, data), (304, b""), "row 8.9-3: not changed since")
    t.eq(get("/d/f.bin", {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"})[0], 200, "row 8.9-3: changed since")
    t.eq(get("/d/\u00fc b.txt")[1].getheader("Content-Disposition"), "attachment; filename=\"%C3%BC%20b.txt\"; filename*=UTF-8''%C3%BC%20b.txt",
         "row 8.9-4: a name that is not ASCII")
    quoted = get('/d/q"uo\\te')[1].getheader("Content-Disposition")
    t.eq(quoted, "attachment; filename=\"q%22uo%5Cte\"; filename*=UTF-8''q%22uo%5Cte", "row 8.9-4: quotes in a name")
    t.eq(get("/d/link")[2], content, "row 8.9-5: through a link")
    for row, text, status, want, where in (
            ("8.9-6", "bytes=0-9", 206, content[:10], "bytes 0-9/1024"), ("8.9-6", "bytes=1000-", 206, content[1000:], "bytes 1000-1023/1024"),
            ("8.9-6", "bytes=-4", 206, content[-4:], "bytes 1020-1023/1024"), ("8.9-6", "bytes=1020-9999", 206, content[1020:], "bytes 1020-1023/1024"),
            ("8.9-6", "bytes=-9999", 206, content, "bytes 0-1023/1024"), ("8.9-7", "bytes=2-3,7-9", 206, content[2:4], "bytes 2-3/1024"),
            ("8.9-6", "bytes=1023-1023", 206, content[1023:], "bytes 1023-1023/1024"), ("8.9-6", "bytes= 0-0", 206, content[:1], "bytes 0-0/1024")):
        got, head, data = get("/d/f.bin", {"Range": text})
        t.eq((got, data, head.getheader("Content-Range"), head.getheader("Content-Length")), (status, want, where, str(len(want))), "row %s: %s" % (row, text))
    got, head, data = get("/d/f.bin", {"Range": "bytes=1024-"})
    t.eq((got, head.getheader("Content-Range"), head.getheader("Content-Length")), (416, "bytes */1024", str(len(data))), "row 8.9-8: behind the end")
    for text in ("bytes=9-1", "lines=1-2", "bytes=x-1", "bytes=-", "bytes=1", "bytes="):
        got, head, data = get("/d/f.bin", {"Range": text})
        t.ok(got == 416 and json.loads(data)["code"] == "UNKNOWN" and head.getheader("Content-Length") == str(len(data)), "row 8.9-9: %s" % text, (got, data))
    t.eq(get("/d/empty", {"Range": "bytes=0-9"})[::2], (200, b""), "row 8.9-10: an empty file")
    t.eq(get("/d/empty")[::2], (200, b""), "row 8.9-10: as a whole")
    for row, more, want in (("8.9-11", {"offset": 1, "limit": 2}, b"one\ntwo"), ("8.9-11", {"offset": 2}, b"two\n\nfour"), ("8.9-11", {"limit": 1}, b"one"),
                            ("8.9-11", {"limit": 99}, b"one\ntwo\n\nfour"), ("8.9-11", {"offset": 3, "limit": 1}, b""), ("8.9-12", {"offset": 99}, b""),
                            ("8.9-12", {"offset": 4, "limit": 1}, b"four")):
        got, head, data = get("/d/lines", None, **more)
        t.eq((got, data, head.getheader("Content-Type")), (200, want, "text/plain; charset=utf-8"), "row %s: lines %s" % (row, more))
    for more in ({"offset": 0}, {"limit": 0}, {"offset": -1}, {"offset": "x"}, {"limit": "1.5"}):
        got, _, data = get("/d/lines", None, **more)
        t.eq((got, json.loads(data)["code"]), BAD, "row 8.9-13: lines %s" % more)
    t.eq(get("/d/lines", {"Range": "bytes=0-1"}, limit=1)[0], 400, "row 8.9-14: lines and a range")
    for row, path, want in (("8.9-15", "/d/none", MISSING), ("8.9-15", "/d/dang", MISSING), ("8.9-16", "/d", (400, "INVALID_FILE")), ("8.9-16", "/d/fifo", FAILED)):
        got, _, data = get(path)
        value = json.loads(data)
        t.ok(got == want[0] and "code" in value, "row %s: %s" % (row, path), (got, value))
    t.eq(code(call("GET", "/files/download")), NO_QUERY, "row 8.9-17: of nothing")


# ---- 8.10 to 8.12 directories ----

def test_directories():
    sh("mkdir -p /l/b/c /l/a /l/A; touch /l/b/c/f /l/b/z /l/a/y /l/.h /l/ab /l/a.b; ln -s b /l/link; ln -s /l /ll; ln -s none /l/no")

    def listed(path="/l", **more):
        status, got = call("GET", query("/directories/list", path, **more))
        return [f["path"][len("/l/"):] for f in got] if status == 200 else (status, got["code"])

    one = [".h", "A", "a", "a.b", "ab", "b", "link", "no"]
    t.eq(listed(), one, "row 8.10-1: one level, names in byte order")
    t.eq(listed(depth=1), one, "row 8.10-1: which is depth 1")
    t.eq(listed(depth=0), [], "row 8.10-2: depth 0")
    deep = [".h", "A", "a", "a/y", "a.b", "ab", "b", "b/c", "b/z", "link", "no"]
    t.eq(listed(depth=2), deep, "row 8.10-3: children directly behind their directory, links are not entered")
    t.eq(listed(depth=999999), deep[:8] + ["b/c/f"] + deep[8:], "row 8.10-3: to the bottom")
    for depth in (-1, "x", "1.5", "99999999999"):
        t.eq(listed(depth=depth), BAD, "row 8.10-4: depth %s" % depth)
    t.eq(code(call("GET", "/directories/list")), NO_QUERY, "row 8.10-5: of nothing")
    t.eq(listed("/none"), MISSING, "row 8.10-5: nowhere")
    status, got = call("GET", query("/directories/list", "/ll"))
    t.ok(status == 400 and "path is a symbolic link, refusing to traverse" in got["message"], "row 8.10-6: a link", got)
    t.eq(listed("/l/ab")[0], 400, "row 8.10-6: a file")
    t.eq(call("GET", query("/directories/list", "/l/A")), (200, []), "row 8.10-7: an empty one")
    t.eq(listed("/proc/1/fd"), FAILED, "row 8.10-8: what may not be read")

    sh("umask 027; mkdir -m 700 /m; mkdir -m 711 /m/old; touch /m/file; ln -s old /m/link")
    t.eq((call("POST", "/directories", {"/m/x/y": {"mode": 1770, "owner": "nobody", "group": "nogroup"}, "/m/old": {"mode": 777, "owner": "nobody"},
                                        "/m/link": {"mode": 777}, "/m/plain": {}, "/m/null": None}),
          sh("cd /m; stat -c %n:%a:%U x x/y old plain null")), (DONE, "x:755:root\nx/y:1770:nobody\nold:711:root\nplain:755:root\nnull:755:root"),
         "row 8.11-1: with parents; mode and owner for the leaf, when it was not there")
    t.eq(code(call("POST", "/directories", {"/m/file": {"mode": 755}})), FAILED, "row 8.11-2: a file in the way")
    t.eq(code(call("POST", "/directories", {"/m/file/below": {"mode": 755}})), FAILED, "row 8.11-2: or above")
    t.eq((code(call("POST", "/directories", {"/m/q": {"mode": 798}})), sh("ls -d /m/q 2>&1 | grep -c cannot")), (FAILED, "1"), "row 8.11-3: a mode that is none")
    t.eq((call("POST", "/directories", {"/m/zero": {"mode": 0}}), sh("stat -c %a /m/zero")), (DONE, "755"), "row 8.11-4: mode 0 is no mode")
    for body in (b"", b"[]", b'{"/m/a":1}', b'{"":{}}'):
        t.eq(code(call("POST", "/directories", body)), BAD, "row 8.11-5: %s" % (body.decode() or "nothing"))

    sh("mkdir -p /x/d/e; touch /x/d/e/f /x/file /x/stay/ 2>/dev/null; mkdir /x/stay; touch /x/stay/s; ln -s ../stay /x/d/out; ln -s stay /x/l; chmod 0 /x/d/e")
    t.eq((call("DELETE", query("/directories", "/x/d", "/x/none", "/x/file", "/x/l")), sh("find /x | sort")), (DONE, "/x\n/x/stay\n/x/stay/s"),
         "row 8.12-1: whole trees in order, files as well, a missing one is fine, links are not followed")
    t.eq(code(call("DELETE", "/directories")), NO_QUERY, "row 8.12-2: of nothing")
    t.eq(code(call("DELETE", query("/directories", "/proc/sys")))[0], 500, "row 8.12-3: what cannot be removed")


# ---- 9 metrics ----

def group_of(of, controller):
    """The directory of a sandbox's control group, found by a process of it."""
    marker = "group-%s" % of.id
    ask("POST", "/command", json.dumps({"command": "exec -a %s sleep 600" % marker, "background": True}).encode(), of=of)
    pids = until(lambda: subprocess.run(["pgrep", "-f", "^" + marker], stdout=subprocess.PIPE).stdout.split())
    lines = [line.split(":", 2) for line in open("/proc/%d/cgroup" % int(pids[0])).read().splitlines()]
    v1 = [path for _, names, path in lines if controller in names.split(",")]
    return "/sys/fs/cgroup/%s%s" % (controller, v1[0]) if v1 else "/sys/fs/cgroup" + next(path for number, _, path in lines if number == "0")


def used_in(group):
    """What is charged to it less what the kernel can drop, in MiB."""
    while not os.path.exists(group + "/memory.current") and not os.path.exists(group + "/memory.usage_in_bytes"):
        group = os.path.dirname(group)
    v2 = os.path.exists(group + "/memory.current")
    stat = dict(line.split() for line in open(group + "/memory.stat"))
    used = int(open(group + ("/memory.current" if v2 else "/memory.usage_in_bytes")).read())
    return (used - int(stat["inactive_file" if v2 else "total_inactive_file"])) / 1048576


def test_metrics():
    small = Box(memory="256Mi", cpu="0.25")
    began = time.time()
    status, head, data = ask("GET", "/metrics", of=small)
    got = json.loads(data)
    t.eq((status, sorted(got)), (200, ["cpu_count", "cpu_used_pct", "mem_total_mib", "mem_used_mib", "timestamp"]), "row 9-1: the members")
    t.ok(got["cpu_count"] == 1 and isinstance(got["timestamp"], int) and abs(got["timestamp"] / 1000 - began) < 60, "row 9-2: processors of the quota, at least one; the time in ms", got)
    t.eq(got["mem_total_mib"], 256, "row 9-3: the limit of the sandbox's own group")
    t.ok(0 <= got["cpu_used_pct"] <= 100 and 0 <= got["mem_used_mib"] <= got["mem_total_mib"], "row 9-4: the ranges that clients check", got)
    before = got["mem_used_mib"]
    body = json.dumps({"command": "python3 -c 'x = bytearray(100 << 20); print(1, flush=True); import time; time.sleep(600)' & wait", "background": True}).encode()
    ask("POST", "/command", body, of=small)
    grown = until(lambda: json.loads(ask("GET", "/metrics", of=small)[2])["mem_used_mib"] - before > 95)
    t.ok(grown, "row 9-5: what is used inside is counted")
    at = group_of(small, "memory")
    told = until(lambda: abs(json.loads(ask("GET", "/metrics", of=small)[2])["mem_used_mib"] - used_in(at)) < 4)
    t.ok(told, "row 9-5: as the group's own files tell", (at, used_in(at)))
    ask("POST", "/command", json.dumps({"command": "while :; do :; done", "background": True}).encode(), of=small)
    busy = until(lambda: json.loads(ask("GET", "/metrics", of=small)[2])["cpu_used_pct"] > 60)
    t.ok(busy, "row 9-10: one that is busy uses its quota, not a quarter of it")
    conn = Connection(60)
    conn.putrequest("GET", small.path("/metrics/watch"))
    conn.endheaders()
    reply = conn.getresponse()
    t.ok(reply.status == 200 and reply.getheader("Content-Type").startswith("text/event-stream"), "row 9-6: a watch is a stream", reply.getheader("Content-Type"))
    lines = [reply.readline() for _ in range(4)]
    first, second = json.loads(lines[0]), json.loads(lines[2])
    t.ok(lines[1] == lines[3] == b"\n", "row 9-7: an empty line behind each object", lines)
    t.ok(set(got) <= set(first) and len(first) > len(got), "row 9-8: under both sets of names", first)
    t.ok(second["timestamp"] - first["timestamp"] >= 900, "row 9-9: one a second", (first, second))
    conn.close()
    small.delete()


t.run(globals())
box.delete()
t.done()
