# SPDX-License-Identifier: Apache-2.0
"""Streams, files and terminals of the execd API against a running daemon.

usage: streams.py API-SOCKET GATEWAY-PID-COMMAND.  Sizes come from the environment; the defaults keep a run short:
STREAM_MIB (output of one command), UPLOAD_MIB (one upload), RACE_ROUNDS (exchanges of a directory and a link),
TREE_FILES (files of a search), RACE_REMOVALS (removals of what changes places with links), SOAK_COMMANDS
in SOAK_SANDBOXES.
"""
import base64
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import execd_client
from execd_client import Box, Connection, Tap, joined, once, request, short, wait_for

t = Tap()
WORK = os.path.dirname(os.path.dirname(execd_client.SOCKET))
MIB = 1024 * 1024


def size(name, default):
    return int(os.environ.get(name, default))


def gateway():
    return int(subprocess.check_output(["pgrep", "-P", sys.argv[2], "sandbox-gateway"]).split()[0])


def kib(pid, field):
    with open("/proc/%d/status" % pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field))


def n_fds(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


class Peak:
    """The largest resident set of a process while a block runs, less what it was before."""

    def __init__(self, pid):
        self.pid, self.before, self.most, self.over = pid, kib(pid, "VmRSS"), 0, threading.Event()

    def look(self):
        while not self.over.wait(0.02):
            self.most = max(self.most, kib(self.pid, "VmRSS"))

    def __enter__(self):
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        self.grown = max(0, self.most - self.before)


def until(seconds, true):
    end = time.monotonic() + seconds + 30  # more than it should need: a machine that is shared may stand still
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def raw(box, method, path, body=None, headers=None, keep=False):
    """One request as it is; returns (status, headers, body), or the socket and reply when @keep."""
    conn = Connection(60)
    conn.putrequest(method, box.path(path), skip_accept_encoding=True)
    for k, v in (headers or {}).items():
        conn.putheader(k, v)
    if body is not None and "Transfer-Encoding" not in (headers or {}):
        conn.putheader("Content-Length", str(len(body)))
    conn.endheaders()
    if body is not None:
        conn.send(body)
    if keep:
        return conn
    reply = conn.getresponse()
    data = reply.read()
    conn.close()
    return reply.status, reply, data


def form(*files):
    out = b""
    for meta, content in files:
        out += b'--XyZ\r\nContent-Disposition: form-data; name="metadata"; filename="metadata"\r\n' \
               b'Content-Type: application/json\r\n\r\n' + json.dumps(meta).encode() + b'\r\n' \
               b'--XyZ\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + content + b'\r\n'
    return out + b"--XyZ--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=XyZ"}


def files_first(*files):
    """The same form with all files before all metadata."""
    parts = form(*files)[len(b"--XyZ\r\n"):-len(b"\r\n--XyZ--\r\n")].split(b"\r\n--XyZ\r\n")
    return b"--XyZ\r\n" + b"\r\n--XyZ\r\n".join(parts[1::2] + parts[0::2]) + b"\r\n--XyZ--\r\n"


def upload(box, *files):
    return raw(box, "POST", "/files/upload", form(*files), FORM)


def download(box, path, **headers):
    return raw(box, "GET", "/files/download?path=" + path, None, headers)


def inside(box, program, *args):
    """Run Python inside; returns its output."""
    text = base64.b64encode(program.encode()).decode()
    return box.command("echo %s | base64 -d > /tmp/prog.py; python3 /tmp/prog.py %s" % (text, " ".join(args)))


# ---- streams ----

def test_first_byte(box):
    go = once("stdout", lambda: box.command("touch /tmp/first.seen") and None)
    status, events = box.stream("/command", {"command": "echo a; %s; echo b" % wait_for("/tmp/first.seen")}, go)
    t.eq(joined(events), "ab", "the first line leaves when it is written")

    def soon():  # one of several: the published server takes a second each time
        last = box.stream("/command", {"command": "true"})[1][-1]
        return last["type"] == "execution_complete" and time.monotonic() - last["at"] < 0.3

    t.ok(any(soon() for _ in range(10)), "the response ends with its last event")


def test_much_output(box):
    total = size("STREAM_MIB", 24) * MIB
    line = "%0999d" % 7
    pid = gateway()
    conn = Connection(600)
    conn.request("POST", box.path("/command"), json.dumps({"command": "yes %s | head -c %d" % (line, total)}).encode())
    reply = conn.getresponse()
    n, last = 0, None
    with Peak(pid) as peak:
        for event in reply:
            if len(event) > 1:
                last = json.loads(event)
                if last["type"] == "stdout":
                    n += len(last["text"]) + 1
    conn.close()
    t.ok(last and last["type"] == "execution_complete" and n // 1000 == total // 1000, "%d MiB of output pass" % (total // MIB), n)
    t.ok(peak.grown < 8 * 1024, "in bounded memory (%d KiB more)" % peak.grown)


def test_slow_reader(box):
    loop = "i=0; while :; do head -c 65536 /dev/zero | tr '\\0' x; echo; i=$((i+1)); echo $i >/tmp/count; done"
    conn = Connection(60)
    conn.request("POST", box.path("/command"), json.dumps({"command": loop}).encode())
    reply = conn.getresponse()
    ident = json.loads(reply.readline())["text"]

    def count():
        return int(box.command("cat /tmp/count 2>/dev/null || echo 0") or 0)

    def stands():
        before = count()
        time.sleep(0.5)  # a command that goes on writes some hundred lines in that
        return before and count() == before

    t.ok(until(30, stands) and count() < 4000, "a client that does not read stalls its command (%d)" % count())
    second = count()
    t.eq(box.command("echo beside"), "beside", "and no other")
    conn.close()
    t.ok(until(10, lambda: count() > second + 50), "when it has gone the command goes on")
    status, reply, data = raw(box, "GET", "/command/%s/logs?cursor=0" % ident)
    cursor = int(reply.getheader("EXECD-COMMANDS-TAIL-CURSOR"))
    t.ok(status == 200 and cursor > second * 65537 and len(data) > 65536, "its output is kept", (status, cursor, len(data)))
    t.eq(raw(box, "DELETE", "/command?id=" + ident)[0], 200, "it can be interrupted")
    t.eq(box.call("GET", "/command/status/" + ident)[1]["running"], False, "and has ended")


def test_bytes(box):
    text = r"printf '\xe2\x82'; sleep 0.2; printf '\xac|\xff\xfe|x\xe2\x82\n\xf0\x9f\x98\x80\n'"
    status, events = box.stream("/command", {"command": text})
    lines = [e["text"] for e in events if e["type"] == "stdout"]
    t.eq(lines, ["\u20ac|\ufffd\ufffd|x\ufffd\ufffd", "\U0001f600"], "bytes that are no UTF-8 are U+FFFD each, characters in two pieces whole")
    status, reply, data = raw(box, "GET", "/command/%s/logs" % events[0]["text"])
    t.eq(data, b"\xe2\x82\xac|\xff\xfe|x\xe2\x82\n\xf0\x9f\x98\x80\n", "and raw in the log, of a foreground command too")


def test_vanish(box):
    pid = gateway()
    box.command("true")
    before = n_fds(pid)
    conns = []
    for i in range(40):
        body = json.dumps({"command": "echo %d; sleep 0.3; echo %d >> /tmp/survived" % (i, i)}).encode()
        conn = raw(box, "POST", "/command", body, keep=True)
        conn.reply = conn.getresponse()
        conn.reply.readline()  # it has begun
        conns.append(conn)
    for conn in conns:
        conn.reply.close()
        conn.close()
    for i in range(10):
        raw(box, "GET", "/files/download?path=/usr/bin/python3", keep=True).close()
        conn = Connection(60)
        conn.putrequest("POST", box.path("/files/upload"))
        conn.putheader("Content-Type", FORM["Content-Type"])
        conn.putheader("Content-Length", "400000")
        conn.endheaders()
        conn.send(form(({"path": "/tmp/gone"}, b"x" * 300000))[:200000])  # a part that has ended would be a file that is there
        conn.close()
    t.ok(until(15, lambda: box.command("wc -l </tmp/survived").strip() == "40"), "commands of clients that went go on",
         box.command("wc -l </tmp/survived"))
    t.ok(until(10, lambda: n_fds(pid) <= before), "their descriptors are free", (before, n_fds(pid)))
    results = []
    threads = [threading.Thread(target=lambda: results.append(box.command("echo ok"))) for _ in range(50)]
    [x.start() for x in threads]
    [x.join() for x in threads]
    t.eq(results.count("ok"), 50, "and so are their streams: fifty commands at once")
    t.ok(until(5, lambda: box.command("ls -A /tmp | grep -c -e gone -e sbx-") == "0"), "no half upload stays")


# ---- files ----

def test_content(box):
    data = os.urandom(3 * MIB + 12345)
    t.eq(upload(box, ({"path": "/f/one"}, data), ({"path": "/f/empty"}, b""), ({"path": "/f/two", "mode": 600}, data[:70000]))[0],
         200, "three files in one request")
    status, reply, got = download(box, "/f/one")
    t.ok(status == 200 and got == data, "a large one comes back")
    t.ok(download(box, "/f/two")[2] == data[:70000] and download(box, "/f/empty")[2] == b"", "and the others")
    for first, last in ((0, 0), (65535, 65537), (100000, 2999999), (3 * MIB, 99999999), (0, 65535)):
        status, reply, got = download(box, "/f/one", Range="bytes=%d-%d" % (first, last))
        t.ok(status == 206 and got == data[first:last + 1], "bytes %d to %d" % (first, last), (status, len(got)))
    status, reply, got = download(box, "/f/one", Range="bytes=-1000000")
    t.ok(got == data[-1000000:], "the last million")
    # boundaries that are none, cut at every place that a reader may stop at
    nasty = (b"\r\n--Xy" * 9000 + b"\r\n--XyZ?" + b"\r" * 70000 + b"\r\n--" + b"\n" * 10)
    t.eq(upload(box, ({"path": "/f/nasty"}, nasty))[0], 200, "content full of almost-boundaries")
    t.ok(download(box, "/f/nasty")[2] == nasty, "comes back")
    body = form(({"path": "/f/chunked"}, data))
    conn = raw(box, "POST", "/files/upload", b"", dict(FORM, **{"Transfer-Encoding": "chunked"}), keep=True)
    at = 0
    for n in (1, 7, 300, 65536, 65537, 10**6, 10**9):
        piece = body[at:at + n]
        at += n
        if piece:
            conn.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
    conn.send(b"0\r\n\r\n")
    reply = conn.getresponse()
    reply.read()
    t.ok(reply.status == 200 and download(box, "/f/chunked")[2] == data, "a body in chunks")
    failures = []

    def both(i):
        mine = os.urandom(700000 + i)
        if upload(box, ({"path": "/f/p%d" % i}, mine))[0] != 200 or download(box, "/f/p%d" % i)[2] != mine:
            failures.append(i)

    threads = [threading.Thread(target=both, args=(i,)) for i in range(12)]
    [x.start() for x in threads]
    [x.join() for x in threads]
    t.eq(failures, [], "twelve uploads and downloads at once")


def test_slow_download(box):
    data = os.urandom(4 * MIB)
    upload(box, ({"path": "/f/slow"}, data))
    slow = [raw(box, "GET", "/files/download?path=/f/slow", keep=True) for _ in range(4)]
    began = time.monotonic()
    good = all(download(box, "/f/slow")[2] == data for _ in range(3))
    t.ok(good and time.monotonic() - began < 10, "clients that do not take their content hold nobody up")
    slow[0].close()
    t.ok(slow[1].getresponse().read() == data and slow[2].getresponse().read() == data, "and get it whole when they do")
    slow[3].close()


def test_late_metadata(box):
    """A file that comes before its metadata lies in the sandbox without a name until it is known where it belongs."""
    big = os.urandom(5 * MIB + 1)

    def send(*files):
        return raw(box, "POST", "/files/upload", files_first(*files), FORM)

    pairs = (({"path": "/l/deep/big", "mode": 640}, big), ({"path": "/l/none"}, b""), ({"path": "/l/small", "owner": "nobody"}, b"small"))
    t.eq(send(*pairs)[0], 200, "three files before their metadata")
    t.ok(all(download(box, meta["path"])[2] == content for meta, content in pairs), "are where they belong")
    t.eq(box.command("stat -c %a:%U /l/deep/big /l/none /l/small"), "640:root\n755:root\n755:nobody", "with mode and owner")
    box.command("ln -sf small /l/link; ln /l/small /l/second")
    t.eq(send(({"path": "/l/link"}, b"through"))[0], 200, "one over a link to a file with two names")
    t.eq(box.command("cat /l/second; readlink /l/link"), "throughsmall", "which both stay")
    status, _, data = send(({"path": "/l/deep"}, b"x"))
    t.ok(status == 500 and b"/l/deep" in data, "a directory is refused by its name", (status, data))
    conn = Connection(60)
    body = files_first(({"path": "/l/gone"}, big))
    conn.putrequest("POST", box.path("/files/upload"))
    conn.putheader("Content-Type", FORM["Content-Type"])
    conn.putheader("Content-Length", str(len(body)))
    conn.endheaders()
    conn.send(body[:-200])

    agent = pid_of_agent(box)

    def held():
        """Files without a name that children of the agent have open."""
        n = 0
        with open("/proc/%d/task/%d/children" % (agent, agent)) as f:
            for child in f.read().split():
                try:
                    links = [os.readlink("/proc/%s/fd/%s" % (child, fd)) for fd in os.listdir("/proc/%s/fd" % child)]
                except OSError:  # it has just ended
                    continue
                n += sum(".sbx-upload-" in link and link.endswith("(deleted)") for link in links)
        return n

    t.ok(until(10, lambda: held() == 1), "content that waits for its metadata has no name", held())
    conn.close()
    t.ok(until(10, lambda: held() == 0), "and goes with its client")
    t.eq(box.command("ls -A /tmp /var/tmp /l | grep -c -e sbx- -e gone"), "0", "nothing is left")


def test_large_upload(box):
    n = size("UPLOAD_MIB", 96) * MIB
    pid = gateway()
    block = b"\0" * MIB
    head = form(({"path": "/f/large"}, b""))
    at = head.index(b"\r\n\r\n", head.index(b'name="file"')) + 4
    head, tail = head[:at], head[at:]
    conn = Connection(900)
    conn.putrequest("POST", box.path("/files/upload"), skip_accept_encoding=True)
    conn.putheader("Content-Type", FORM["Content-Type"])
    conn.putheader("Content-Length", str(len(head) + n + len(tail)))
    conn.endheaders()
    with Peak(pid) as peak:
        conn.send(head)
        for _ in range(n // MIB):
            conn.send(block)
        conn.send(tail)
        reply = conn.getresponse()
        reply.read()
    conn.close()
    t.ok(reply.status == 200 and box.command("stat -c %s /f/large") == str(n), "an upload of %d MiB" % (n // MIB))
    t.ok(peak.grown < 4 * 1024, "with the gateway's memory flat (%d KiB more)" % peak.grown)
    box.command("rm /f/large")


KEEP = """
import os
os.makedirs('/k', exist_ok=True)
def put(name, text='old'):
    open(name, 'w').write(text)
put('/k/file'); os.chmod('/k/file', 0o640); os.chown('/k/file', 33, 34)
try:
    os.setxattr('/k/file', 'user.mark', b'kept')
except OSError as e:
    print('noxattr', e)
put('/k/target'); os.symlink('target', '/k/link')
put('/k/names'); os.link('/k/names', '/k/names2')
os.makedirs('/k/dir'); put('/k/dir/held')
"""
LOOK = """
import os
def xattr(p):
    try:
        return os.getxattr(p, 'user.mark').decode()
    except OSError:
        return 'none'
s = os.stat('/k/file')
print(oct(s.st_mode & 0o7777), s.st_uid, s.st_gid, xattr('/k/file'), open('/k/file').read())
print(os.path.islink('/k/link'), open('/k/target').read())
print(open('/k/names2').read(), os.stat('/k/names').st_nlink)
print([f for d in ('/k', '/k/dir', '/etc') for f in os.listdir(d) if '.sbx' in f])
"""


def test_replacing(box):
    text = inside(box, KEEP)
    has_xattr = "noxattr" not in text
    upload(box, ({"path": "/k/file"}, b"new"), ({"path": "/k/link"}, b"through"), ({"path": "/k/names"}, b"both"))
    mark = "kept" if has_xattr else "none"
    t.eq(inside(box, LOOK).split("\n"), ["0o640 33 34 %s new" % mark, "True through", "both 2", "[]"],
         "an upload keeps owner, mode, attributes, links and names")
    inside(box, KEEP.replace("os.symlink", "0 and os.symlink").replace("os.link", "0 and os.link").replace("os.makedirs('/k/dir')", "0"))
    box.call("POST", "/files/replace", {"/k/file": {"old": "old", "new": "newer"}, "/k/link": {"old": "old", "new": "linked"},
                                        "/k/names": {"old": "old", "new": "named"}})
    t.eq(inside(box, LOOK).split("\n"), ["0o640 33 34 %s newer" % mark, "True linked", "named 2", "[]"], "and so does a replacement")
    # a mount on a file, as root of the host can make one: a rename over it is refused by the kernel
    box.command("echo below >/k/below; echo old >/k/held; chmod 0604 /k/held; chown 33:34 /k/held; ln -s below /k/to-below")
    enter = ["nsenter", "-t", str(pid_of_agent(box)), "-m", "-r", "--"]
    if subprocess.run(enter + ["mount", "--bind", "/k/held", "/k/below"], stderr=subprocess.DEVNULL).returncode:
        t.skip("writing a file that is a mount", "no mount can be made inside of the sandbox")
        return
    look = "grep -c ' /k/below ' /proc/self/mountinfo; stat -c '%i %a %u %g' /k/held /k/below; ls -A /k | grep -c sbx-; readlink /k/to-below"
    was = box.command(look)
    t.ok(was.startswith("1\n"), "a file that is a mount", was)
    t.eq(upload(box, ({"path": "/k/to-below"}, b"new text\n"))[0], 200, "is written through a link")
    t.eq(box.command("cat /k/held"), "new text", "where it is")
    t.eq(box.call("POST", "/files/replace", {"/k/below": {"old": "text", "new": "words"}})[0], 200, "and replaced in")
    t.eq(box.command("cat /k/held"), "new words", "there, too")
    t.eq(box.command(look), was, "it is the same file and mount, with its mode and owner, and nothing lies beside it")


def test_killed_gateway(box):
    """Half an upload, half a download: what the next gateway finds in the FIFOs is nobody's."""
    data = os.urandom(2 * MIB)
    upload(box, ({"path": "/f/before"}, data))
    body = form(({"path": "/f/half"}, data))
    up = Connection(60)
    up.putrequest("POST", box.path("/files/upload"))
    up.putheader("Content-Type", FORM["Content-Type"])
    up.putheader("Content-Length", str(len(body)))
    up.endheaders()
    up.send(body[:MIB])
    down = raw(box, "GET", "/files/download?path=/f/before", keep=True)
    time.sleep(0.2)
    os.kill(gateway(), 9)
    up.close()
    down.close()

    def back():
        try:
            return request("GET", box.path("/ping"), timeout=5)[0] == 200
        except OSError:
            return False
    t.ok(until(20, back), "the gateway is back")
    good = all(upload(box, ({"path": "/f/after%d" % i}, data[i:]))[0] == 200 and download(box, "/f/after%d" % i)[2] == data[i:]
               for i in range(3))
    t.ok(good, "uploads and downloads are whole")
    t.eq(box.command("ls -A /f | grep -c -e half -e sbx-"), "0", "of the half one nothing stayed")


RACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs('/r/d/sub', exist_ok=True); os.makedirs('/precious/sub', exist_ok=True)
for d in ('/precious', '/precious/sub', '/r/d', '/r/d/sub'):
    for i in range(5):
        open('%s/f%d' % (d, i), 'w').write('x')
targets = ['/precious', '../../../../../..', '/']
n = int(sys.argv[1])
links = []
for i, target in enumerate(targets):
    os.symlink(target, '/r/l%d' % i)
print('ready', flush=True)
done = 0
def mend(i):
    # a call may have removed one of them, or the link while it stood in the directory's place
    link = '/r/l%d' % i
    if os.path.islink('/r/d') == os.path.islink(link):
        os.system('rm -rf /r/d ' + link)
    try:
        if os.path.islink('/r/d'):
            libc.renameat2(-100, b'/r/d', -100, link.encode(), 0)
        os.makedirs('/r/d/sub', exist_ok=True)
        for j in range(5):
            open('/r/d/f%d' % j, 'a').write('x')
        os.symlink(targets[i], link)
    except OSError:
        pass
while done < n:
    for i in range(3):
        a, b = b'/r/d', b'/r/l%d' % i
        mend(i)
        for _ in range(400):
            if libc.renameat2(-100, a, -100, b, 2):
                mend(i)
            done += 1
        if os.path.islink('/r/d'):
            libc.renameat2(-100, a, -100, b, 2)
print('exchanged', done, flush=True)
"""


def host_tree(top):
    """Names below a directory of the host, but for what belongs to the sandbox itself."""
    out = subprocess.run(["find", top, "-xdev"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return set(out.split(b"\n"))


def test_exchange_race(box):
    rounds = size("RACE_ROUNDS", 60000)
    other = Box()
    other.command("mkdir -p /precious; for i in 1 2 3; do echo $i >/precious/f$i; done")
    mark = "zz-race-%d" % os.getpid()
    os.makedirs(WORK + "/canary/sub", exist_ok=True)
    open(WORK + "/canary/f", "w").write("host")
    text = base64.b64encode(RACE.encode()).decode()
    conn = Connection(1800)
    command = {"command": "echo %s | base64 -d > /race.py; python3 /race.py %d" % (text, rounds)}
    conn.request("POST", box.path("/command"), json.dumps(command).encode())
    reply = conn.getresponse()
    over = threading.Event()
    last = []

    def drain():
        for line in reply:
            if len(line) > 1:
                last.append(json.loads(line))
        over.set()

    threading.Thread(target=drain).start()
    until(10, lambda: any(e.get("text") == "ready" for e in last))
    calls = 0
    strange = []

    def note(status, reply):
        if status not in (200, 400, 404, 500):
            strange.append((status, reply))

    while not over.is_set():
        for method, path, body in (
                ("POST", "/directories", {"/r/d/%s/a/b" % mark: {"mode": 700}}),
                ("DELETE", "/directories?path=/r/d/%s" % mark, None),
                ("DELETE", "/directories?path=/r/d", None), ("DELETE", "/directories?path=/r/d", None),
                ("DELETE", "/directories?path=/r/d", None), ("DELETE", "/directories?path=/r/d", None),
                ("GET", "/directories/list?path=/r/d&depth=2", None),
                ("GET", "/files/search?path=/r/d/sub&pattern=f*", None),
                ("POST", "/files/permissions", {"/r/d/f1": {"mode": 600, "owner": "nobody"}}),
                ("POST", "/files/mv", [{"src": "/r/d/f2", "dest": "/r/d/%s.moved" % mark}]),
                ("POST", "/files/replace", {"/r/d/f3": {"old": "x", "new": "y"}}),
                ("DELETE", "/files?path=/r/d/f4", None)):
            note(*box.call(method, path, body))
        status, _, data = upload(box, ({"path": "/r/d/%s.up" % mark}, b"u" * 70000))
        note(status, data)
        calls += 13
    done = next((int(e["text"].split()[1]) for e in last if e.get("text", "").startswith("exchanged")), 0)
    t.ok(done >= rounds and calls > 20 and not strange, "%d exchanges of a directory and a link during %d file calls" % (done, calls),
         (last[-3:], calls, strange, request("GET", "/v1/sandboxes/" + box.id)))
    t.eq(box.command("ls /usr /etc >/dev/null && ls /precious/sub | wc -l"), "5", "a removal follows no link: what it leads to is there")
    t.eq(other.command("cat /precious/f*; ls / | grep -c %s" % mark), "1\n2\n3\n0", "another sandbox was not reached")
    t.eq(open(WORK + "/canary/f").read(), "host", "nor the host")
    strays = [p for p in host_tree(WORK) | host_tree("/etc") | host_tree("/root") | set(os.listdir(b"/"))
              if mark.encode() in p and b"/sandboxes/" not in p and b"/trash/" not in p]
    t.eq(strays, [], "no file of it lies outside of a sandbox's own tree")
    own = {p.split(b"/sandboxes/")[1].split(b"/")[0] for p in host_tree(WORK) if mark.encode() in p and b"/sandboxes/" in p}
    t.ok(len(own) <= 1, "and all of them in one", own)
    other.delete()


REMOVE_RACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs('/precious2/sub'); os.makedirs('/x/n')
for i in range(5):
    open('/precious2/sub/f%d' % i, 'w').write('x')
def mend(a, b):
    # what a removal has left of the two becomes a directory and a link again
    try:
        os.makedirs('/x/n', exist_ok=True)
        if not os.path.lexists(a):
            os.rename(b, a) if os.path.lexists(b) and not os.path.islink(b) else os.mkdir(a)
        if not os.path.lexists(b):
            os.symlink('/precious2/sub', b)
    except OSError:
        pass
pairs = [(b'/x/d', b'/x/l'), (b'/x/n/d', b'/x/m')]
for a, b in pairs:
    mend(a, b)
done = 0
print('ready', flush=True)
while not os.path.exists('/x/stop'):
    for a, b in pairs:
        for _ in range(200):
            if libc.renameat2(-100, a, -100, b, 2):
                mend(a, b)
            done += 1
print('exchanged', done, flush=True)
"""


def test_removal_race(box):
    """What is removed becomes a link and a directory again, all the time: a removal that follows one empties /precious2."""
    requests = size("RACE_REMOVALS", 600)
    text = base64.b64encode(REMOVE_RACE.encode()).decode()
    conn = Connection(1800)
    conn.request("POST", box.path("/command"), json.dumps({"command": "echo %s | base64 -d > /race2.py; python3 /race2.py" % text}).encode())
    reply = conn.getresponse()
    ready, over = threading.Event(), threading.Event()
    last = []

    def drain():
        for line in reply:
            if len(line) > 1:
                last.append(json.loads(line))
                if last[-1].get("text") == "ready":
                    ready.set()
        ready.set()
        over.set()

    threading.Thread(target=drain).start()
    ready.wait(60)
    began = time.monotonic()
    made, strange = 0, []
    while made < requests and time.monotonic() - began < 60 and not over.is_set():
        for path in ("/x/d", "/x/n"):
            # one child tries it again and again, until one of them fails
            status, data = box.call("DELETE", "/directories?" + "&".join(["path=" + path] * 500))
            if status not in (200, 404, 500):
                strange.append((status, data))
            made += 1
    box.command("touch /x/stop")
    over.wait(60)
    done = next((int(e["text"].split()[1]) for e in last if e.get("text", "").startswith("exchanged")), 0)
    t.ok(done > 1000 and made > 20 and not strange, "%d exchanges during %d removals (%.1f s)" % (done, made, time.monotonic() - began),
         (last[-3:], strange))
    t.eq(box.command("ls /precious2/sub | wc -l"), "5", "none of them followed a link")


TREE = """
import os, sys
n = int(sys.argv[1])
for i in range(0, n, 1000):
    d = '/tree/%d' % (i // 1000)
    os.makedirs(d)
    for j in range(i, min(n, i + 1000)):
        open('%s/f%d.txt' % (d, j), 'w').write('needle')
"""


def test_many_files(box):
    n = size("TREE_FILES", 8000)
    inside(box, TREE, str(n))
    times = []
    over = threading.Event()

    def ping():
        conn = Connection(60)
        while not over.is_set():
            began = time.monotonic()
            conn.request("GET", box.path("/ping"))
            conn.getresponse().read()
            times.append(time.monotonic() - began)
            time.sleep(0.005)

    thread = threading.Thread(target=ping)
    thread.start()
    status, found = request("GET", box.path("/files/search?path=/tree&pattern=*.txt"), timeout=1800)
    pids = int(inside(box, "import subprocess; print(int(subprocess.check_output(['sh', '-c', 'echo $$'])))"))
    began = time.monotonic()
    replaced, counts = request("POST", box.path("/files/replace?verbose=true"),
                               {f["path"]: {"old": "needle", "new": "thread"} for f in found}, timeout=1800)
    spent = time.monotonic() - began
    pids = int(inside(box, "import subprocess; print(int(subprocess.check_output(['sh', '-c', 'echo $$'])))")) - pids
    over.set()
    thread.join()
    times.sort()
    t.ok(status == 200 and len(found) == n, "a search over %d files" % n, (status, len(found)))
    t.ok(replaced == 200 and len(counts) == n and all(c == {"replacedCount": 1} for c in counts.values()),
         "one request replaces in each of them (%.1f s)" % spent, (replaced, str(counts)[:300]))
    t.eq(box.command("grep -rl needle /tree | wc -l; grep -rl thread /tree | wc -l; ls -AR /tree | grep -c sbx-"), "0\n%d\n0" % n,
         "every file has the new text, and nothing lies beside them")
    t.ok(0 < pids < 100, "and one process did it (%d more began meanwhile)" % pids)
    p99 = times[len(times) * 99 // 100] * 1000
    t.ok(p99 < 5000, "while others are served (ping p50 %.1f p99 %.1f worst %.1f ms of %d)" %
         (times[len(times) // 2] * 1000, p99, times[-1] * 1000, len(times)))
    box.command("rm -rf /tree")


# ---- terminals ----

class Ws:
    def __init__(self, box, ident, query=""):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(execd_client.SOCKET)
        self.sock.sendall(("GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                           % box.path("/pty/%s/ws%s" % (ident, query))).encode())
        self.buf = b""
        self.out = b""      # bytes of the terminal
        self.texts = []
        self.offset = None
        while b"\r\n\r\n" not in self.buf:
            self.more()
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        self.status = int(head.split()[1])
        self.closed = None

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buf += data

    def need(self, n):
        while len(self.buf) < n:
            self.more()

    def frame(self):
        self.need(2)
        op, n = self.buf[0] & 15, self.buf[1] & 127
        at = 2
        if n == 126:
            self.need(4)
            n, at = struct.unpack(">H", self.buf[2:4])[0], 4
        elif n == 127:
            self.need(10)
            n, at = struct.unpack(">Q", self.buf[2:10])[0], 10
        self.need(at + n)
        data, self.buf = self.buf[at:at + n], self.buf[at + n:]
        return op, data

    def take(self):
        op, data = self.frame()
        if op == 2 and data[:1] == b"\x03":
            self.offset = struct.unpack(">Q", data[1:9])[0]
            self.out += data[9:]
        elif op == 2:
            self.out += data[1:]
        elif op == 1:
            self.texts.append(json.loads(data))
        elif op == 8:
            self.closed = struct.unpack(">H", data[:2])[0] if data else 0
        return op

    def until(self, true, seconds=15):
        end = time.monotonic() + seconds + 30
        try:
            while not true() and self.closed is None and time.monotonic() < end:
                self.take()
        except (EOFError, socket.timeout, OSError):
            pass
        return true()

    def send(self, op, data):
        n = len(data)
        head = struct.pack(">BB", 0x80 | op, 0x80 | n) if n < 126 else struct.pack(">BBH", 0x80 | op, 0x80 | 126, n)
        self.sock.sendall(head + b"\0\0\0\0" + data)

    def type(self, text):
        self.send(2, b"\0" + text.encode())

    def say(self, **message):
        self.send(1, json.dumps(message).encode())


def test_terminal(box):
    status, reply = box.call("POST", "/pty", {"cwd": "/term/dir"})
    ident = reply["session_id"]
    t.eq(status, 201, "a terminal session")
    ws = Ws(box, ident)
    t.eq(ws.status, 101, "its socket")
    t.ok(ws.until(lambda: ws.texts), "is connected")
    t.eq({k: ws.texts[0].get(k) for k in ("type", "session_id", "mode")}, {"type": "connected", "session_id": ident, "mode": "pty"},
         "and says so")
    ws.type("PS1=; stty -echo; pwd; stty size; echo $TERM; echo rea''dy\n")
    ws.until(lambda: b"ready" in ws.out)
    t.ok(b"/term/dir\r\n24 80\r\nxterm-256color\r\nready" in ws.out, "24 by 80, in its directory", ws.out)
    # readline reads the size and sets it again before each prompt, so one that comes right then is undone
    for _ in range(20):
        seen = len(ws.out)
        ws.say(type="resize", cols=120, rows=40)
        ws.type("stty size; echo siz''ed\n")
        ws.until(lambda: b"sized" in ws.out[seen:])
        if b"40 120" in ws.out:
            break
    t.ok(b"40 120" in ws.out, "a resize arrives", ws.out)
    ws.type("sleep 100\n")
    t.ok(until(5, lambda: box.command("pgrep -x sleep -a | grep -c 'sleep 100'") == "1"), "a foreground job")
    ws.say(type="signal", signal="SIGINT")
    ws.type("echo aft''er $?\n")
    t.ok(ws.until(lambda: b"after 130" in ws.out), "a signal reaches it, and not the shell", ws.out)
    ws.type("sleep 200\n")
    until(5, lambda: box.command("pgrep -x sleep -a | grep -c 'sleep 200'") == "1")
    ws.type("\x03echo ctr''l $?\n")
    t.ok(ws.until(lambda: b"ctrl 130" in ws.out), "and so does control-C", ws.out)
    status, info = box.call("GET", "/pty/" + ident)
    t.ok(info["running"] and info["output_offset"] >= len(ws.out), "its offset", (info, len(ws.out)))
    second = Ws(box, ident)
    t.eq(second.status, 409, "a second socket is refused")
    second.sock.close()
    third = Ws(box, ident, "?takeover=1&since=%d" % (info["output_offset"] - 5))
    t.ok(third.until(lambda: third.texts) and third.offset == info["output_offset"] - 5, "a takeover replays from its offset",
         (third.offset, info))
    t.ok(ws.until(lambda: ws.closed is not None) and ws.closed == 4001, "and the one before is told so", ws.closed)
    third.type("echo left; (until [ -e /tmp/gone ]; do sleep 0.05; done; echo mean''while) & disown\n")
    third.until(lambda: b"left" in third.out)
    offset = box.call("GET", "/pty/" + ident)[1]["output_offset"]
    third.sock.close()
    box.command("touch /tmp/gone")
    until(20, lambda: box.call("GET", "/pty/" + ident)[1]["output_offset"] >= offset + len("meanwhile"))
    back = Ws(box, ident, "?since=%d" % offset) if until(5, lambda: Ws(box, ident, "?takeover=1").status == 101) else None
    t.ok(back is not None and back.until(lambda: b"meanwhile" in back.out), "what it printed to nobody is replayed", back and back.out)
    if back.status != 101:
        back = Ws(box, ident, "?takeover=1")
    back.type("exit 5\n")
    t.ok(back.until(lambda: back.closed is not None) and back.closed == 1000, "it ends with the shell", back.closed)
    t.ok({"type": "exit", "exit_code": 5} in back.texts, "with its code", back.texts)
    again = Ws(box, ident)
    again.type("echo new''shell\n")
    t.ok(again.until(lambda: b"newshell" in again.out), "the next socket gets a new shell")
    again.sock.close()
    t.eq(box.call("DELETE", "/pty/" + ident)[0], 200, "deleted")
    t.eq(box.call("DELETE", "/pty/" + ident)[0], 404, "once")


LINES = b"".join(b"%06d\r\n" % i for i in range(1, 200001))  # 1.6 MB; the session keeps the last MiB
RING = 1 << 20


def test_replay(box):
    """Every byte exactly once, however often the socket changes."""
    ident = box.call("POST", "/pty", {"command": "seq -w 1 200000; echo done; exec cat"})[1]["session_id"]
    ws = Ws(box, ident)
    ws.until(lambda: len(ws.out) > 300000)
    t.ok(LINES.startswith(ws.out), "a terminal's output, as it is written")
    got = ws.out
    for n in range(30):
        ws = Ws(box, ident, "?takeover=1&since=%d" % len(got))
        if ws.status != 101:
            return t.ok(False, "takeover %d" % n, ws.status)
        ws.until(lambda: len(ws.out) > 20000)
        if ws.offset not in (None, len(got)):
            return t.ok(False, "takeover %d: what comes follows what was seen" % n, (ws.offset, len(got)))
        got += ws.out
    seen = len(ws.out)
    ws.until(lambda: ws.out.endswith(b"done\r\n"))
    got += ws.out[seen:]
    whole = LINES + b"done\r\n"
    total = box.call("GET", "/pty/" + ident)[1]["output_offset"]
    t.ok(got == whole and total == len(whole), "thirty takeovers: no byte is lost, none comes twice", (len(got), total, len(whole)))
    for since, want in ((0, total - RING), (total - RING, total - RING), (total - 1000, total - 1000), (total, None), (total + 5, None)):
        ws = Ws(box, ident, "?takeover=1&since=%d" % since)
        ws.until(lambda: ws.texts)
        t.ok(ws.offset == want and (want is None or ws.out == whole[want:]), "replay since %d: from %s" % (since, want), (ws.offset, len(ws.out)))
    ws = Ws(box, ident, "?takeover=1&since=%d" % total)
    ws.type("live\n")
    t.ok(ws.until(lambda: ws.out.count(b"live\r\n") == 2), "and the terminal goes on", ws.out)
    ws.sock.close()
    box.call("DELETE", "/pty/" + ident)


def test_signals(box):
    job = ("for s in HUP INT QUIT TERM; do trap \"echo got $s\" $s; done; echo jo\"\"b; n=0; "
           "until [ $n = 1200 ]; do sleep 0.05; n=$((n+1)); done")
    ident = box.call("POST", "/pty", {})[1]["session_id"]
    ws = Ws(box, ident)
    ws.type("PS1=; stty -echo; trap 'echo the''shell' HUP INT QUIT TERM; echo rea''dy\n")
    ws.until(lambda: b"ready" in ws.out)
    ws.type("bash -c '%s'\n" % job)
    ws.until(lambda: b"job" in ws.out)
    for name in ("HUP", "INT", "QUIT", "TERM"):
        ws.say(type="signal", signal="SIG" + name)
        t.ok(ws.until(lambda: b"got " + name.encode() in ws.out), "SIG%s reaches the job in front" % name, ws.out)
    for name in ("SIGSTOP", "9", "", None):
        before = len(ws.texts)
        ws.say(type="signal", signal=name)
        t.ok(ws.until(lambda: len(ws.texts) > before) and ws.texts[-1].get("code") == "INVALID_FRAME", "no signal: %r" % name, ws.texts[before:])
    ws.say(type="signal", signal="SIGKILL")
    ws.type("echo ended $?\n")
    t.ok(ws.until(lambda: b"ended 137" in ws.out), "SIGKILL ends it, and not the shell", ws.out)
    t.ok(b"theshell" not in ws.out, "which got none of them", ws.out)
    ws.type("trap - TERM; kill -9 $$\n")
    ws.until(lambda: ws.closed is not None)
    t.ok({"type": "exit", "exit_code": -1, "signal": 9} in ws.texts, "the end of the shell names its signal", ws.texts)
    box.call("DELETE", "/pty/" + ident)


# ---- the script before the entrypoint ----

PRE = r"""
export PRE_WORD='x"y$z' PRE_LINES="$(printf 'one\ntwo')"
unset GONE; plain=no; PATH=/opt/pre:$PATH; export EXECD_BOOTSTRAP_LATE=1
(sleep 0.7; echo late >/v/late) &
sleep 0.5
"""


def test_pre_script():
    volumes = [{"name": "v", "pvc": {"claimName": "pre-script"}, "mountPath": "/v"}]

    def make(**env):
        body = {"image": {"uri": "host"}, "entrypoint": ["sh", "-c", "echo $PRE_WORD >/tmp/entry; exec sleep 1000"], "timeout": 600,
                "resourceLimits": {"cpu": "1", "memory": "256Mi"}, "volumes": volumes, "env": env}
        status, reply = request("POST", "/v1/sandboxes", body)
        made = Box.__new__(Box)
        made.id = reply.get("id")
        return made if t.eq(status, 202, "a sandbox with a volume") else None

    first = make()
    text = base64.b64encode(PRE.encode()).decode()
    first.command("echo %s | base64 -d >/v/pre.sh" % text)
    second = make(EXECD_BOOTSTRAP_PRE_SCRIPT="/v/pre.sh", GONE="here", KEPT="too", PRE_WORD="old")
    t.eq(second.command('echo "$PRE_WORD|$PRE_LINES|${GONE-none}|${plain-none}|$KEPT|${PATH%%:*}|$EXECD_BOOTSTRAP_LATE"'),
         'x"y$z|one\ntwo|none|none|too|/opt/pre|1', "what the script exports reaches a command that came at once")
    t.eq(second.command("cat /tmp/entry"), 'x"y$z', "and the entrypoint")
    t.eq(second.stream("/command", {"command": "echo $PRE_WORD", "envs": {"PRE_WORD": "mine"}})[1][2]["text"], "mine", "a request's own wins")
    ident = second.call("POST", "/pty", {"command": "echo word:$PRE_WORD"})[1]["session_id"]
    ws = Ws(second, ident)
    t.ok(ws.until(lambda: b'word:x"y$z' in ws.out), "terminals have it", ws.out)
    t.eq(second.command("ls /proc/self/fd | tr -d '\n'"), "0123", "no descriptor is left over")
    broken = make(EXECD_BOOTSTRAP_PRE_SCRIPT="/v/nothing")
    t.eq(broken.command("echo $EXECD_BOOTSTRAP_PRE_SCRIPT"), "/v/nothing", "one that is not there holds nobody up")
    for made in (first, second, broken):
        made.delete()


# ---- hostile inside ----

def test_hostile_inside(box):
    for command in ("kill -9 1", "kill -STOP 1", "kill -TERM 1; kill -SEGV 1", "prlimit --pid 1 --nofile=1:1",
                    "cat /proc/1/mem", "ls /proc/1/fd", "echo 1000 > /proc/1/oom_score_adj", "chrt -o -p 0 1; taskset -p 1 1"):
        box.command(command + " 2>/dev/null")
        t.eq(box.command("echo lives"), "lives", "it lives through: " + command)
    victim = Box(memory="128Mi")
    victim.stream("/command", {"command": "f() { f | f & }; f; sleep 1", "timeout": 2000})
    victim.stream("/command", {"command": "python3 -c 'x=[]\nwhile 1: x.append(bytearray(1<<20))'", "timeout": 4000})
    t.ok(until(20, lambda: victim.call("GET", "/ping")[0] == 200), "after a fork bomb and a memory bomb it answers")
    victim.stream("/command", {"command": "for i in $(seq 300); do (head -c 1M /dev/zero; sleep 30) & done; wait", "timeout": 3000})
    for i in range(4):
        victim.stream("/command", {"command": "head -c 80M /dev/zero", "background": True})
    t.ok(until(20, lambda: victim.call("GET", "/ping")[0] == 200), "and with its spool full")
    t.eq(box.command("echo beside"), "beside", "another one noticed nothing")
    victim.delete()


def pid_of_agent(box):
    marker = "agent-%s" % box.id
    box.stream("/command", {"command": "exec -a %s sleep 50" % marker, "background": True})
    until(5, lambda: subprocess.run(["pgrep", "-f", "^" + marker], stdout=subprocess.PIPE).stdout)
    pid = int(subprocess.check_output(["pgrep", "-f", "^" + marker]).split()[0])
    with open("/proc/%d/stat" % pid) as f:
        return int(f.read().rsplit(")", 1)[1].split()[1])


def test_dead_agent():
    box = Box()
    other = Box()
    os.kill(pid_of_agent(box), 9)
    t.ok(until(10, lambda: request("GET", "/v1/sandboxes/" + box.id)[1]["status"]["state"] == "Failed"), "a sandbox without its pid 1 is Failed",
         request("GET", "/v1/sandboxes/" + box.id))
    status = request("GET", "/v1/sandboxes/" + box.id)[1]["status"]
    t.ok(status.get("reason") and status.get("message"), "with a reason", status)
    began = time.monotonic()
    code, reply = box.call("GET", "/ping")
    t.ok(code == 503 and reply.get("code") and time.monotonic() - began < 20, "its calls fail at once, not for want of an answer", (code, reply))
    t.eq(other.command("echo fine"), "fine", "others go on")
    stopped = pid_of_agent(other)
    os.kill(stopped, 19)
    third = Box()
    began = time.monotonic()
    t.eq(third.command("echo quick"), "quick", "an agent that stands still holds up its own sandbox only")
    t.ok(time.monotonic() - began < 25, "and is not waited for")
    os.kill(stopped, 18)
    t.eq(other.command("echo again"), "again", "and goes on when it is let go")
    for b in (box, other, third):
        b.delete()


# ---- many ----

def test_soak(box):
    n = size("SOAK_COMMANDS", 1500)
    boxes = [box] + [Box() for _ in range(size("SOAK_SANDBOXES", 1) - 1)]
    child = lambda pattern: int(subprocess.check_output(["pgrep", "-P", sys.argv[2], "-f", pattern]).split()[0])
    pids = {"gateway": gateway(), "sandboxd": child("sandboxd.*daemon"), "broker": child("broker"), "dnsd": child("dnsd")}
    pids.update(("agent %d" % i, pid_of_agent(b)) for i, b in enumerate(boxes))
    lost = []

    def work(count, k):
        conn = Connection(60)
        for i in range(count):
            conn.request("POST", boxes[i % len(boxes)].path("/command"), json.dumps({"command": "echo %d.%d" % (k, i)}).encode())
            data = conn.getresponse().read()
            if b'"text":"%d.%d"' % (k, i) not in data or b"execution_complete" not in data:
                lost.append(data)

    def run(count):
        threads = [threading.Thread(target=work, args=(count // 8, k)) for k in range(8)]
        [x.start() for x in threads]
        [x.join() for x in threads]

    run(max(1200 * len(boxes), n // 10))  # the history of finished commands fills up
    before = {k: (n_fds(p), kib(p, "VmRSS")) for k, p in pids.items()}
    began = time.monotonic()
    run(n)
    spent = time.monotonic() - began
    time.sleep(0.5)
    after = {k: (n_fds(p), kib(p, "VmRSS")) for k, p in pids.items()}
    t.eq(lost, [], "%d commands, eight at a time, none lost (%.0f/s)" % (n, n / spent))
    for k in pids:
        t.ok(after[k][0] <= before[k][0] + 8 and after[k][1] <= before[k][1] + 1024,
             "%s has not grown: descriptors %d to %d, memory %d to %d KiB" % (k, before[k][0], after[k][0], before[k][1], after[k][1]))
    for b in boxes[1:]:
        b.delete()


box = Box(memory="2Gi")
box.command("mkdir -p /f")
only = os.environ.get("ONLY", "").split(",") if os.environ.get("ONLY") else None
t.run(globals(), box, only)
t.done()
