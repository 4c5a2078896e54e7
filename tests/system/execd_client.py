# SPDX-License-Identifier: Apache-2.0
"""A client of the execd API for tests of sessions and code: events with the time at which they came, and TAP."""
import http.client
import json
import os
import socket
import sys
import threading
import time
import traceback

SOCKET = sys.argv[1] if len(sys.argv) > 1 else "/run/sandboxd/0/api.sock"


class Connection(http.client.HTTPConnection):
    def __init__(self, timeout):
        super().__init__("localhost")
        self.wait = timeout

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.wait)
        self.sock.connect(SOCKET)


def request(method, path, body=None, timeout=120):
    conn = Connection(timeout)
    text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    conn.request(method, path, text, {"Content-Type": "application/json"})
    reply = conn.getresponse()
    data = reply.read()
    conn.close()
    try:
        return reply.status, json.loads(data)
    except ValueError:
        return reply.status, data.decode("utf-8", "replace")


class Box:
    """A sandbox of the host image, or of another one."""

    def __init__(self, image="host", memory="1Gi", env=None, cpu="2"):
        body = {"image": {"uri": image}, "entrypoint": ["sleep", "infinity"], "timeout": 3600,
                "resourceLimits": {"cpu": cpu, "memory": memory}, "env": env or {}}
        status, reply = request("POST", "/v1/sandboxes", body)
        if status != 202:
            raise RuntimeError((status, reply))
        self.id = reply["id"]

    def path(self, path):
        return "/v1/sandboxes/%s/proxy/44772%s" % (self.id, path)

    def call(self, method, path, body=None):
        return request(method, self.path(path), body)

    def stream(self, path, body, seen=None, timeout=120):
        """Return (status, events), or (status, body) when it is no stream."""
        conn = Connection(timeout)
        conn.request("POST", self.path(path), json.dumps(body).encode())
        reply = conn.getresponse()
        if reply.status != 200:
            data = reply.read().decode()
            conn.close()
            return reply.status, json.loads(data)
        events = []
        for line in reply:
            if not line.strip():
                continue
            event = json.loads(line)
            event["at"] = time.monotonic()
            events.append(event)
            if seen and seen(event) == "leave":
                break
        conn.close()
        return 200, events

    def command(self, text):
        """What a command prints, as one text."""
        _, events = self.stream("/command", {"command": text})
        return "\n".join(e["text"] for e in events if e["type"] in ("stdout", "stderr"))

    def upload(self, path, local, mode):
        """The file @local, in pieces."""
        head = ("--B\r\nContent-Disposition: form-data; name=\"metadata\"; filename=\"metadata\"\r\nContent-Type: application/json\r\n\r\n%s\r\n"
                "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" % json.dumps({"path": path, "mode": mode})).encode()
        tail = b"\r\n--B--\r\n"

        def pieces():
            yield head
            with open(local, "rb") as f:
                yield from iter(lambda: f.read(1 << 20), b"")
            yield tail

        conn = Connection(120)
        size = len(head) + os.path.getsize(local) + len(tail)
        conn.request("POST", self.path("/files/upload"), pieces(), {"Content-Type": "multipart/form-data; boundary=B", "Content-Length": str(size)})
        reply = conn.getresponse()
        data = reply.read().decode()
        conn.close()
        return reply.status, data

    def delete(self):
        return request("DELETE", "/v1/sandboxes/" + self.id)


def short(events):
    """The events without times and pings, as tuples; output of one kind that follows itself is joined."""
    out = []
    for event in events:
        kind = event["type"]
        if kind == "ping":
            continue
        rest = {k: v for k, v in event.items() if k not in ("type", "timestamp", "at", "execution_time")}
        value = list(rest.values())[0] if len(rest) == 1 else rest or None
        if kind == "error":
            value = (value["ename"], value["evalue"])
        out.append((kind, value))
    return out


# A shell command that waits for a file, which a test makes when it has seen what came before; 9 when it never comes.
def wait_for(path):
    return "n=0; until [ -e %s ]; do n=$((n+1)); [ $n != 1200 ] || exit 9; sleep 0.05; done" % path


def joined(events, kind="stdout"):
    return "".join(e.get("text", "") for e in events if e["type"] == kind)


def once(kind, call):
    """For stream(): @call when the first event of @kind is there; what it returns is what stream() gets."""
    calls = [call]

    def seen(event):
        return calls.pop()() if event["type"] == kind and calls else None

    return seen


def until(ask, seconds=60):
    """Ask again until it is true or too long has passed; what was said last."""
    end = time.monotonic() + seconds
    while True:
        got = ask()
        if got or time.monotonic() > end:
            return got
        time.sleep(0.05)


class Context:
    """A code context of a sandbox."""

    def __init__(self, box, language, cwd=None):
        self.box, self.language = box, language
        status, reply = box.call("POST", "/code/context", dict(language=language, **({"cwd": cwd} if cwd else {})))
        self.status, self.reply = status, reply
        self.id = reply.get("id")

    def stream(self, code, seen=None, timeout=120):
        return self.box.stream("/code", {"code": code, "context": {"id": self.id}}, seen, timeout)

    def run(self, code, seen=None):
        """Events without count, init and pings; output of one kind that follows itself is one."""
        status, events = self.stream(code, seen)
        if status != 200:
            return [("status", status, events)]
        if events[0]["type"] != "init" or events[0]["text"] != self.id:
            return [("no init", events)]
        out = []
        for kind, value in short(events)[1:]:
            if kind == "execution_count":
                self.count = value
            elif out and out[-1][0] == kind and kind in ("stdout", "stderr"):
                out[-1] = (kind, out[-1][1] + value)
            else:
                out.append((kind, value))
        if not out or out[-1] != ("execution_complete", None):
            out.append(("no complete",))
        else:
            out.pop()
        return out

    def delete(self):
        return self.box.call("DELETE", "/code/contexts/" + self.id)

    def interrupt(self):
        return self.box.call("DELETE", "/code?id=" + self.id)[0]


BUSY = [("error", ("RUNTIME_ERROR", "session is busy")), ("no complete",)]


def when_free(c, code):
    """What @code gives when the run before it has ended."""
    got = []

    def ask():
        got[:] = c.run(code)
        return got[-2:] != BUSY

    until(ask, 120)
    return got


class Tap:
    count = failed = 0
    lock = threading.RLock()

    def ok(self, good, name, more=None):
        with self.lock:
            return self.say(good, name, more)

    def say(self, good, name, more):
        self.count += 1
        if not good:
            self.failed += 1
        print("%sok %d - %s" % ("" if good else "not ", self.count, name.replace("#", "")))
        if not good and more is not None:
            print("# " + repr(more)[:2000])
        sys.stdout.flush()
        return good

    def eq(self, got, want, name):
        return self.ok(got == want, name, {"got": got, "want": want})

    def skip(self, name, why):
        self.count += 1
        print("ok %d - %s # SKIP %s" % (self.count, name, why))

    def run(self, names, box=None, only=None, failed=None):
        """Each test_* of a module's @names, in their order, with @box where one is taken; what one raises is a failed check, and @failed is called."""
        for name, test in list(names.items()):
            if not name.startswith("test_") or (only and name[5:] not in only):
                continue
            try:
                test(*([box] if test.__code__.co_argcount else []))
            except Exception as e:  # the rest still counts
                self.ok(False, "%s: %r" % (name, e))
                traceback.print_exc()
                if failed:
                    failed()

    def done(self):
        print("1..%d" % self.count)
        sys.exit(1 if self.failed else 0)
