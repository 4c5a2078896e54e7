# SPDX-License-Identifier: Apache-2.0
"""Code contexts of a Jupyter server: a fake one that misbehaves, Debian's, and none although there is one."""
import base64
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading

from execd_client import Box, Connection, Context, Tap, once, short, until, when_free

t = Tap()
OUT, ERR = "stdout", "stderr"
PORT = 44771
TOKEN = "t0ken-of-the-server"
HERE = os.path.dirname(os.path.abspath(__file__))
DIED = "KernelDied"


def env(**more):
    return {"JUPYTER_HOST": "http://127.0.0.1:%d" % PORT, "JUPYTER_TOKEN": TOKEN, **more}


def text(value):
    return ("result", {"text": value, "text/plain": value})


def background(box, command):
    status, _ = box.stream("/command", {"command": command, "background": True})
    return status


def gateway():
    return int(re.findall(r"monitor: gateway started, pid (\d+)", open(sys.argv[3]).read())[-1])


def peak_kib():
    return int(re.search(r"VmHWM:\s+(\d+)", open("/proc/%d/status" % gateway()).read()).group(1))


def put_fake(box):
    data = base64.b64encode(open(os.path.join(HERE, "jupyter_fake.py"), "rb").read()).decode()
    box.command("echo %s | base64 -d > /tmp/fake.py" % data)


def start_fake(box):
    background(box, "exec /usr/bin/python3 /tmp/fake.py %d %s > /tmp/fake.out 2>&1" % (PORT, TOKEN))


def wait_fake(box):
    return until(lambda: "listening" in box.command("cat /tmp/fake.out"))


def refusal(box, language):
    status, reply = box.call("POST", "/code/context", {"language": language})
    return status, reply.get("message", reply)


# ---- a server that misbehaves ----

NOTE = "[a message of the Jupyter server "
CELLS = [
    ("ok", [(OUT, "hello\n"), (ERR, "oops\n"),
            ("result", {"application/json": "{\"a\":[1,null,true,\"\\u003c\"]}", "image/png": "iVBORw==", "text": "4", "text/plain": "4"})]),
    ("idle first", [(OUT, "x")]),
    ("others", [(OUT, "mine")]),
    ("odd text", [(OUT, "a\ufffdb\ufffdc\ufffdd\U0001f600e\\u0000")]),
    ("pieces", [(OUT, "in pieces")]),
    ("error", [("error", ("NameError", "no x"))]),
    ("display", [("result", {"image/png": "iVBORw==", "text": "[\"\\u003cFigure\\u003e\"]", "text/plain": "[\"\\u003cFigure\\u003e\"]"})]),
    ("aborted", [("error", ("Aborted", ""))]),
    ("a text", [(OUT, "a text")]),
]
DEADLY = ["close", "close frame", "cut", "masked", "reserved bit", "restart", "dead"]
STARTS = [("status", "does not start a kernel (status 500)"), ("nonsense", "makes no sense"), ("short", "broke the connection off"),
          ("long", "answers more than it may"), ("forever", "does not speak HTTP"), ("path", "makes no sense"),
          ("handshake", "does not open the kernel's socket"), ("hangup", "broke the connection off"),
          ("closes", "closes each connection"), ("elvish", "has no kernel of the language elvish")]


def fake():
    # a listener of the gateway's own namespace at the same port: whoever connects there has left the sandbox's
    trap = socket.socket()
    trap.bind(("127.0.0.1", PORT))
    trap.listen()
    trap.settimeout(0)
    box = Box(env=env())
    put_fake(box)
    # the server is still booting when the context is asked for
    begun = []
    waits = threading.Thread(target=lambda: begun.append(Context(box, "R", "/w/dir")))
    waits.start()
    until(lambda: box.command("test -d /w/dir && echo made") == "made")
    start_fake(box)
    if not t.ok(wait_fake(box), "a fake server in a sandbox"):
        return print("#", box.command("cat /tmp/fake.out"))
    waits.join()
    c = begun[0]
    if not t.eq(c.status, 200, "a context waits for a server that boots"):
        return print("#", c.reply)
    t.eq(box.call("GET", "/code/contexts/" + c.id), (200, {"id": c.id, "language": "R"}), "it is there")
    for i, (code, want) in enumerate(CELLS):
        t.eq(c.run(code), want, "fake: %s" % code)
        t.eq(c.count, i + 1, "fake: %s: the count" % code)
    got = c.run("nonsense")
    t.ok(got and got[0][1].count(NOTE) >= 3 and all(g[0] in (ERR, "result") for g in got),
         "fake: messages that are none are told", got)
    t.eq(c.run("huge"), [(ERR, NOTE + "is too large and was left out: %d bytes]\n" % huge_bytes()), (OUT, "after")],
         "fake: a message that is too large is left out")
    size = [0]

    def measure(event):
        size[0] += len(event.get("text", "")) if event["type"] == OUT else 0

    status, events = c.stream("flood", measure)
    t.eq((size[0], events[-1]["type"]), (32 << 20, "execution_complete"), "fake: 32 MiB of output")
    with open("/proc/%d/clear_refs" % gateway(), "w") as f:
        f.write("5")  # its peak counts from here
    before = peak_kib()
    t.eq(c.run("pings"), [], "fake: 400,000 pings")
    t.ok(peak_kib() - before < 16384, "fake: whose answers nobody reads are not kept", (before, peak_kib()))
    got = c.run("wait", once(OUT, lambda: t.eq(c.interrupt(), 200, "fake: interrupt") and None))
    t.eq(got, [(OUT, "up"), ("error", ("KeyboardInterrupt", ""))], "fake: ends the run")
    for code in DEADLY:
        c = Context(box, "r")
        got = c.run(code)
        t.ok(got and got[-1][0] == "error" and got[-1][1][0] == DIED, "fake: %s: the run ends and says so" % code, got)
        t.eq(c.run("again"), [(OUT, "again")], "fake: %s: the next one has a new kernel" % code)
        c.delete()
    # each waits for a bound of ours: side by side
    slow = [("no idle", [(OUT, "x")]), ("no reply", [(OUT, "x")]), ("deaf", None), ("endless frame", None)]
    contexts = [Context(box, "r") for _ in slow]
    ends = {}

    def run_slow(c, code):
        ends[code] = c.run(code, once(OUT, lambda: c.interrupt() and None) if code in ("deaf", "endless frame") else None)

    threads = [threading.Thread(target=run_slow, args=(c, code)) for c, (code, _) in zip(contexts, slow)]
    [th.start() for th in threads]
    status, reply = box.stream("/code", {"code": "ok", "context": {"language": "chunked"}})
    t.ok(status == 200 and reply[-1]["type"] == "execution_complete", "fake: a default context, an answer in chunks", reply)
    status, reply = box.stream("/code", {"code": "ok", "context": {"language": "late"}})
    t.ok(status == 200 and reply[-1]["type"] == "execution_complete", "fake: a kernel whose output is heard late", reply)
    for language, why in STARTS:
        status, reply = refusal(box, language)
        t.ok(status == 500 and why in reply, "fake: %s" % language, reply)
    t.eq(Context(box, "python").run("import sys; 'jupyter' in str(sys.modules)"), [text("False")], "fake: python is ours")
    # a server that never answers costs a bounded number of descriptors
    mute = Context(box, "mute")
    before, most = len(os.listdir("/proc/%d/fd" % gateway())), 0
    holds = threading.Thread(target=lambda: mute.run("deaf", once(OUT, lambda: "leave")))
    holds.start()
    holds.join()
    for _ in range(40):
        mute.interrupt()
        most = max(most, len(os.listdir("/proc/%d/fd" % gateway())))
    t.ok(most - before < 40, "fake: interrupts that nobody answers are bounded", (before, most))
    mute.delete()
    many = [Context(box, "r") for _ in range(4)]
    halves = []
    waits = [threading.Thread(target=lambda c=c: halves.append(c.run("half"))) for c in many]
    [th.start() for th in waits]
    until(lambda: any("too large" in str(e) for e in halves))
    [c.delete() for c in many]
    [th.join() for th in waits]
    t.ok(any("too large" in str(e) for e in halves), "fake: unfinished messages of several contexts are bounded together", halves)
    [th.join() for th in threads]
    for c, (code, want) in zip(contexts, slow):
        got = ends[code]
        t.ok(got == want if want else got[-1][0] == "error" and got[-1][1][0] == DIED and "did not end at an interrupt" in got[-1][1][1],
             "fake: %s" % code, got)
        t.eq(c.run("again"), [(OUT, "again")], "fake: %s: the next run" % code)
    before = box.command("grep -c DELETE /tmp/fake.log")
    t.eq(contexts[0].delete()[0], 200, "fake: delete")
    t.ok(until(lambda: box.command("grep -c DELETE /tmp/fake.log") != before), "fake: ends the session as well")
    log = box.command("cat /tmp/fake.log")
    t.ok("UNMASKED" not in log and "PONG are you there" in log, "fake: frames of ours are masked, a ping is answered", log[-500:])
    # a client that leaves while its kernel starts leaves a session, which the next start finds
    def listed():
        lines = box.command("curl -s -H 'Authorization: token %s' http://127.0.0.1:%d/api/sessions" % (TOKEN, PORT))
        return {s["id"] for s in json.loads(lines) if isinstance(s, dict) and "id" in s}

    before = listed()
    leaves = Connection(60)
    leaves.request("POST", box.path("/code/context"), json.dumps({"language": "slow"}).encode(), {"Content-Type": "application/json"})
    t.ok(until(lambda: listed() - before), "fake: a kernel that starts")
    left = listed() - before
    leaves.close()

    def gone():
        Context(box, "r").delete()  # eight at most are ended at once, and earlier rows have left some
        return not left & listed()

    t.ok(until(gone), "fake: is ended when its client has left", (left, listed()))
    t.eq([c.run("again") for c in (contexts[1], contexts[2])], [[(OUT, "again")]] * 2, "fake: those of others are not")
    t.ok("DELETE /api/sessions/somebodys" not in box.command("cat /tmp/fake.log"), "fake: nor sessions of somebody inside")
    # the server goes: all its contexts say so, the others do not notice
    c = contexts[1]
    native = Context(box, "python")
    box.command("kill -9 $(sed -n 's/listening //p' /tmp/fake.out)")
    got = until(lambda: [e for e in [c.run("x")] if e[0][0] != OUT])
    t.ok(got and got[0][0][0] in ("error", "status"), "fake: a server that is gone", got)
    t.eq(native.run("1"), [text("1")], "fake: a driver's context goes on")
    try:
        trap.accept()
        t.ok(False, "fake: the gateway stays out of its own network")
    except BlockingIOError:
        t.ok(True, "fake: the gateway stays out of its own network")
    trap.close()
    box.delete()


def huge_bytes():
    """Of the message in jupyter_fake.py; its ids have a fixed length."""
    fields = {"header": {"msg_id": "0" * 32, "msg_type": "stream"}, "msg_type": "stream", "channel": "iopub", "buffers": [],
              "parent_header": {"msg_id": "0" * 32}, "metadata": {}, "content": {"name": "stdout", "text": "y" * (7 << 20)}}
    return len(json.dumps(fields))


def policies():
    rows = [
        ("a host elsewhere", env(JUPYTER_HOST="http://192.0.2.1:80"), "JUPYTER_HOST is not inside the sandbox"),
        ("a name that only begins well", env(JUPYTER_HOST="http://localhost.example:80"), "JUPYTER_HOST is not inside the sandbox"),
        ("https", env(JUPYTER_HOST="https://127.0.0.1:80"), "JUPYTER_HOST does not begin with http://"),
        ("no port", env(JUPYTER_HOST="http://127.0.0.1:99999"), "JUPYTER_HOST has no port"),
        ("a path", env(JUPYTER_HOST="http://127.0.0.1:1/a b"), "the path in JUPYTER_HOST makes no sense"),
        ("a token that breaks the head", env(JUPYTER_TOKEN="a\r\nX: y"), "cannot be read"),
        ("a token with a blank", env(JUPYTER_TOKEN="a b"), "JUPYTER_TOKEN holds what no header may"),
        ("a long token", env(JUPYTER_TOKEN="a" * 600), "JUPYTER_TOKEN is too long"),
        ("a word that is none", env(EXECD_CODE_BACKEND="both"), "EXECD_CODE_BACKEND is not auto, native or jupyter"),
        ("native", env(EXECD_CODE_BACKEND="native"), "unknown language: r"),
        ("no server said", {}, "unknown language: r"),
        ("no token", env(JUPYTER_TOKEN=""), "unknown language: r"),
        ("a server wanted and none said", {"EXECD_CODE_BACKEND": "jupyter"}, "do not say which"),
    ]
    for why, variables, want in rows:
        box = Box(env=variables)
        status, reply = refusal(box, "r")
        t.ok(status == 500 and want in reply, "policy: %s" % why, reply)
        box.delete()
    box = Box(env=env(JUPYTER_TOKEN="another", EXECD_CODE_BACKEND="jupyter"))
    put_fake(box)
    start_fake(box)
    wait_fake(box)
    status, reply = refusal(box, "python")
    t.ok(status == 500 and "refuses the token" in reply, "policy: another token", reply)
    t.eq(box.call("POST", "/code/context", {"language": "sql"})[0], 501, "policy: sql is not a kernel's either")
    box.delete()


# ---- Debian's ----

REAL = [
    ("2 + 2", [text("4")]),
    ("print('a')\nimport sys\nprint('e', file=sys.stderr)", [(OUT, "a\n"), (ERR, "e\n")]),
    ("x = 5", []),
    ("x * 2", [text("10")]),
    ("no_such", [("error", ("NameError", "name 'no_such' is not defined"))]),
    ("%%bash\necho a magic", [(OUT, "a magic\n")]),
    ("from IPython.display import HTML\nHTML('<b>h</b>')",
     [("result", {"text": "<IPython.core.display.HTML object>", "text/html": "<b>h</b>", "text/plain": "<IPython.core.display.HTML object>"})]),
    ("display(1)\nawait __import__('asyncio').sleep(0.01)", [text("1")]),
    ("print('\\0')", [(OUT, "\ufffd\n")]),
    ("import os; os.getcwd()", [text("'/w/real'")]),
]


def real():
    """Its packages are Debian's, so it is the host image's own."""
    for module, package in (("jupyter_server", "jupyter-server"), ("ipykernel", "python3-ipykernel")):
        if subprocess.run(["/usr/bin/python3", "-c", "import " + module], capture_output=True).returncode:
            return t.skip("a real Jupyter server", "no " + package)
    box = Box(memory="2Gi", env=env(EXECD_CODE_BACKEND="jupyter"))
    background(box, "exec /usr/bin/python3 -m jupyter_server --allow-root --no-browser --ip=127.0.0.1 --port=%d --port-retries=0 "
               "--ServerApp.token=%s --ServerApp.root_dir=/ --ServerApp.iopub_data_rate_limit=1e12 > /tmp/real.out 2>&1" % (PORT, TOKEN))
    c = Context(box, "python", "/w/real")
    if not t.eq(c.status, 200, "real: a context"):
        return print("#", c.reply, box.command("cat /tmp/real.out"))
    for i, (code, want) in enumerate(REAL):
        t.eq(c.run(code), want, "real: %s" % code[:40].replace("\n", " | "))
        t.eq(c.count, i + 1, "real: the count")
    other = Context(box, "python")
    t.eq(other.run("x")[0][1][0], "NameError", "real: contexts are apart")
    got = c.run("import time\nprint('up', flush=True)\ntime.sleep(300)", once(OUT, lambda: t.eq(c.interrupt(), 200, "real: interrupt") and None))
    t.ok(got[-1][0] == "error" and got[-1][1][0] == "KeyboardInterrupt", "real: an interrupt ends the run", got)
    t.eq(c.run("x"), [text("5")], "real: and the context goes on")
    c.stream("import time\nprint('up', flush=True)\ntime.sleep(1)\ny = 7", once(OUT, lambda: "leave"))
    t.eq(when_free(c, "y"), [text("7")], "real: a client that leaves does not end the run")
    got = c.run("os.kill(os.getpid(), 9)")
    t.ok(got and got[-1][0] == "error" and got[-1][1][0] == DIED, "real: a kernel that is killed", got)
    t.eq(c.run("1 + 1"), [text("2")], "real: the next run has a new one")
    t.eq(c.run("x")[0][1][0], "NameError", "real: which remembers nothing")
    size = [0]

    def measure(event):
        size[0] += len(event.get("text", "")) if event["type"] == OUT else 0

    status, events = c.stream("for _ in range(64): print('z' * 65535)", measure)
    t.ok(size[0] == 4 << 20, "real: 4 MiB of output", (size, short([e for e in events if e["type"] != OUT])))
    ask = "curl -s -H 'Authorization: token %s' http://127.0.0.1:%d/api/sessions | /usr/bin/python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'"
    count = lambda: box.command(ask % (TOKEN, PORT))  # noqa: E731
    t.eq(count(), "2", "real: two sessions at the server")
    t.eq(other.delete()[0], 200, "real: delete")
    t.ok(until(lambda: count() == "1"), "real: ends its session")
    t.eq(box.call("DELETE", "/code/contexts?language=python")[0], 200, "real: delete by language")
    t.ok(until(lambda: count() == "0"), "real: ends the others")
    t.eq((Context(box, "python").status, count()), (200, "1"), "real: one more")
    was = gateway()
    os.kill(was, 9)

    def back():
        try:
            return gateway() != was and box.call("GET", "/ping")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    t.ok(until(back), "real: the gateway is killed and comes back")
    again = Context(box, "python")
    t.eq(again.run("6 * 7"), [text("42")], "real: behind a restart of the gateway")
    t.ok(until(lambda: count() == "1"), "real: the kernel of the gateway before is ended", count())
    box.delete()


def native():
    box = Box(env=env(EXECD_CODE_BACKEND="jupyter"))
    t.eq(Context(box, "python").run("2 + 2"), [text("4")], "operator: python is a driver's, whatever the sandbox says")
    t.eq(refusal(box, "r"), (500, "error running codes unknown language: r"), "operator: no other language")
    t.eq(short(box.stream("/code", {"code": "1", "context": {"language": "python"}})[1])[-1][0], "execution_complete", "operator: a default context")
    box.delete()


if sys.argv[2] == "servers":
    fake()
    policies()
    real()
else:
    native()
t.done()
