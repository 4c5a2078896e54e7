# SPDX-License-Identifier: Apache-2.0
"""Rows of the execd contract against a running daemon, as raw bytes: what is asked, what is answered.

usage: execd_rows.py API-SOCKET PORT.  In what came, times are T or W, ids ID, and how long something took is left out.
"""
import errno
import json
import re
import socket
import sys
import time

import execd_client
from execd_client import Box, Tap, request, until, wait_for

t = Tap()
box = Box(env={"BASE": "b ase", "DIR": "/usr", "MADE": "/made", "EXECD_ENVS": "/etc/the.env"})
ROOT = "/v1/sandboxes/%s/proxy/44772" % box.id


class Wire:
    """A connection: bytes out, answers in."""

    def __init__(self, port=None, host="127.0.0.1"):
        self.sock = socket.create_connection((host, port)) if port else socket.socket(socket.AF_UNIX)
        self.sock.settimeout(90)
        if not port:
            self.sock.connect(execd_client.SOCKET)
        self.buf = b""

    def send(self, data):
        self.sock.sendall(data)

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(self.buf)
        self.buf += data

    def upto(self, mark):
        while mark not in self.buf:
            self.more()
        got, self.buf = self.buf.split(mark, 1)
        return got

    def exactly(self, n):
        while len(self.buf) < n:
            self.more()
        got, self.buf = self.buf[:n], self.buf[n:]
        return got

    def chunk(self):
        n = int(self.upto(b"\r\n"), 16)
        data = self.exactly(n + 2)
        assert data[-2:] == b"\r\n", data
        return data[:-2]

    def head(self):
        """(status line, header lines without those that differ each time)"""
        lines = self.upto(b"\r\n\r\n").decode("latin-1").split("\r\n")
        return lines[0], [line for line in lines[1:] if not line.startswith(("Date: ", "X-Request-ID: "))]

    def answer(self, no_body=False):
        """(status, header lines, body, chunks or None)"""
        line, headers = self.head()
        status = int(line.split()[1])
        lower = [h.lower() for h in headers]
        chunks = None
        if no_body or status in (100, 204, 304):
            body = b""
        elif "transfer-encoding: chunked" in lower:
            chunks = list(iter(self.chunk, b""))
            body = b"".join(chunks)
        elif any(h.startswith("content-length: ") for h in lower):
            body = self.exactly(int(next(h for h in lower if h.startswith("content-length: "))[16:]))
        else:
            body = self.rest()
        return status, headers, body, chunks

    def rest(self):
        try:
            while True:
                self.more()
        except EOFError:
            got, self.buf = self.buf, b""
        return got


def masked(body):
    """Also without pings but the one that stands behind init: what takes longer than three seconds has more of them."""
    text = body.decode("utf-8", "surrogateescape")
    text = re.sub(r'"timestamp":\d{13}\b', '"timestamp":T', text)
    text = re.sub(r',"execution_time":\d+', "", text)
    text = re.sub(r'("type":"init","text":|"id":|"session_id":)"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}"', r'\1"ID"', text)
    ping = '{"type":"ping","text":"pong","timestamp":T}\n\n'
    first = len(INIT) if text.startswith(INIT) else 0
    text = text[:first] + text[first:].replace(ping, "")
    return re.sub(r'("(?:started|finished)_at":)"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d(?:\.\d{1,9})?Z"', r'\1"W"', text)


wire = Wire()


def say(method, path, body=b"", headers="", version="1.1"):
    """One request as bytes; the length is named unless @headers say how long it is."""
    body = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    text = "%s %s%s HTTP/%s\r\nHost: localhost\r\n%s" % (method, ROOT, path, version, headers)
    if (body or method != "GET") and "ength:" not in headers and "ransfer-Encoding:" not in headers:
        text += "Content-Length: %d\r\n" % len(body)
    return text.encode("latin-1") + b"\r\n" + body


def ask(method, path, body=b"", headers="", version="1.1"):
    """The answer on the connection that all share, or on a new one when it was closed."""
    global wire
    wire.send(say(method, path, body, headers, version))
    got = wire.answer(method == "HEAD")
    if "Connection: close" in got[1]:
        wire = Wire()
    return got


def event(**members):
    order = ("type", "text", "timestamp", "error")
    text = json.dumps({k: members.get(k, "T") for k in order if k in members or k == "timestamp"}, separators=(",", ":"), ensure_ascii=False)
    return text.replace('"timestamp":"T"', '"timestamp":T') + "\n\n"


INIT = event(type="init", text="ID") + event(type="ping", text="pong")
COMPLETE = event(type="execution_complete")
STREAM = ["Content-Type: text/event-stream", "Transfer-Encoding: chunked", "Cache-Control: no-cache", "X-Accel-Buffering: no",
          "Connection: keep-alive"]


def out(*lines):
    return "".join(event(type="stdout", text=line) for line in lines)


def err(*lines):
    return "".join(event(type="stderr", text=line) for line in lines)


def failed(value, text=None):
    return event(type="error", error={"ename": "CommandExecError", "evalue": str(value), "traceback": [text or "exit status %s" % value]})


def refusal(code, message):
    return json.dumps({"code": code, "message": message}, separators=(",", ":"), ensure_ascii=False) \
        .replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def bad(text):
    return 400, refusal("INVALID_REQUEST_BODY", text)


PARSE = "error parsing request, MAYBE invalid body format. "
INVALID = "invalid request, validation error "


def stream_is(got, want, name):
    status, headers, body, chunks = got
    whole = chunks is not None and all(c.endswith(b"\n\n") and c.count(b"\n\n") == 1 and c.count(b"\n") == 2 for c in chunks)
    t.ok(status == 200 and headers == STREAM and masked(body) == want and whole, name, {"got": got, "want": want})


def json_is(got, want, name):
    status, headers, body, _ = got
    head = ["Content-Type: application/json; charset=utf-8", "Content-Length: %d" % len(body)]
    t.ok((status, masked(body)) == want and headers == head, name, {"got": got, "want": want})


def is_row(row, got, want):
    """@want: text of a stream, or (status, JSON text)."""
    (json_is if isinstance(want, tuple) else stream_is)(got, want, row)


# ---- section 2: HTTP ----

EMPTY = (200, ["Content-Length: 0"], b"", None)
NOTHING = refusal("GENERAL::NOT_FOUND", "no such path or method").encode()


def test_http():
    global wire
    t.eq(ask("GET", "/ping"), EMPTY, "2.2 success without content: its length is 0 and it has no type")
    t.eq(ask("GET", "/ping", version="1.0"), (200, ["Content-Length: 0", "Connection: close"], b"", None), "2 HTTP/1.0 is closed")
    t.eq(ask("GET", "/ping", headers="Connection: keep-alive\r\n", version="1.0")[1], ["Content-Length: 0", "Connection: keep-alive"],
         "2 unless it asks to stay")
    for method in ("HEAD", "OPTIONS", "PUT", "get", "TRACE"):
        got = ask(method, "/ping")
        t.eq((got[0], got[2]), (404, b"" if method == "HEAD" else NOTHING), "2.1 %s /ping" % method)
    for path in ("", "/", "//ping", "/./ping", "/ping/x", "/nothing", "/command/status", "/command/status/", "/command//logs",
                 "/proxy", "/v1/isolated", "/" + "a" * 3000):
        t.eq(ask("GET", path)[:3:2], (404, NOTHING), "2.1 no such path: %s" % path[:40])
    t.eq(ask("GET", "/p%69ng"), EMPTY, "2.1 a path is decoded before it is looked up")
    t.eq(ask("GET", "/ping?x=%zz&&=&%00"), EMPTY, "2.1 a query that nobody reads may be anything")
    t.eq(ask("GET", "/ping/")[:2], (301, ["Content-Length: 0", "Location: ../ping"]), "2.1 a slash too much, GET")
    t.eq(ask("POST", "/command/", "{}")[:2], (307, ["Content-Length: 0", "Location: ../command"]), "2.1 a slash too much, POST")
    wire.send(say("GET", "/ping", headers="X-Request-ID: mine-1\r\n"))
    t.ok("X-Request-ID: mine-1" in wire.upto(b"\r\n\r\n").decode().split("\r\n"), "2.1 the id of the request comes back")

    ping = say("GET", "/ping")
    wire.send(ping * 3 + say("POST", "/command", '{"command":"echo 1; sleep 0.1"}') + say("POST", "/command", '{"command":"echo 2"}') + ping)
    got = [wire.answer() for _ in range(6)]
    t.eq([g[0] for g in got] + [masked(g[2]) for g in got[3:5]], [200] * 6 + [INIT + out(n) + COMPLETE for n in ("1", "2")],
         "2 pipelined requests are answered in order")
    body = b'{"command":"echo later"}'
    wire.send(say("POST", "/command", b"", "Expect: 100-continue\r\nContent-Length: %d\r\n" % len(body)))
    t.eq(wire.answer()[:2], (100, []), "1.2 Expect: 100-continue is answered")
    wire.send(body)
    t.eq(masked(wire.answer()[2]), INIT + out("later") + COMPLETE, "1.2 and the body is read then")
    pieces = b'7;x="y"\r\n{"comma\r\n1\r\nn\r\n0012\r\nd":"echo chunked"}\r\n0\r\nX-Trailer: 1\r\n\r\n'
    got = ask("POST", "/command", pieces, "Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n")
    t.eq(masked(got[2]), INIT + out("chunked") + COMPLETE, "2.2 a chunked body with extensions and trailers")
    t.eq(ask("GET", "/ping"), EMPTY, "2.2 and the next request")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "\u00fc", ""):
        got = ask("POST", "/command", '{"command":"echo typed"}', "Content-Type: %s\r\n" % kind)
        t.eq(masked(got[2]), INIT + out("typed") + COMPLETE, "2.2 content types are not looked at: %r" % kind)
    for why, headers in (("two lengths", "Content-Length: 2\r\nContent-Length: 2\r\n"),
                         ("a length and chunks", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
                         ("a length below 0", "Content-Length: -2\r\n"), ("a length with a sign", "Content-Length: +2\r\n"),
                         ("another coding", "Transfer-Encoding: gzip\r\n"), ("two hosts", "Host: b\r\nContent-Length: 2\r\n"),
                         ("a folded line", "X: y\r\n z\r\nContent-Length: 2\r\n"), ("another expectation", "Expect: x\r\nContent-Length: 2\r\n")):
        got = ask("POST", "/command", b"{}", headers)
        t.ok(got[0] == 400 and b'"code":"GENERAL::MALFORMED_REQUEST"' in got[2] and "Connection: close" in got[1], "2 refused: " + why, got)
    for why, data, mark in (("no host", b"GET /ping HTTP/1.1\r\n\r\n", b" 400 "), ("a bare line feed", b"GET /ping HTTP/1.1\nHost: a\n\n", b" 400 "),
                            ("HTTP/2.0", say("GET", "/ping", version="2.0"), b" 505 "),
                            ("a head of 70,000 bytes", say("GET", "/ping", headers="X: %s\r\n" % ("a" * 70000)), b" 431 ")):
        other = Wire()
        other.send(data)
        got = other.rest()
        t.ok(mark in got.split(b"\r\n")[0] and got.endswith(b"}"), "2 refused with a body: " + why, got)
    for why, data in (("a question", say("GET", "/files/info?path=/etc")), ("a change", say("POST", "/directories", '{"/made/half":{}}')),
                      ("a command", say("POST", "/command", '{"command":"sleep 0.3; echo half"}')),
                      ("a download", say("GET", "/files/download?path=/etc/passwd"))):
        other = Wire()
        other.send(data)
        other.sock.shutdown(socket.SHUT_WR)
        got = other.answer()
        t.ok(got[0] == 200 and other.rest() == b"", "2 a client that has said all and listens is answered: " + why, got)
    wire.sock.close()
    wire = Wire()


def test_token():
    """On a port, where nobody is known: everything asks for the token first."""
    key = open(execd_client.SOCKET.rsplit("/", 1)[0] + "/key").read().strip()
    status, reply = request("GET", "/v1/sandboxes/%s/endpoints/44772" % box.id)
    token = next(v for k, v in reply["headers"].items() if k.upper() == "X-EXECD-ACCESS-TOKEN")
    port = int(sys.argv[2])

    def code(method, path, headers=""):
        other = Wire(port)
        other.send(say(method, path, b"", headers))
        got = other.answer(method == "HEAD")
        other.sock.close()
        return got

    for method, path in (("GET", "/ping"), ("GET", "/nothing"), ("GET", "/proxy/44772/ping"), ("GET", "/ping/"), ("POST", "/command"),
                         ("GET", "/pty/x/ws"), ("GET", "/v1/isolated/capabilities")):
        got = code(method, path)
        t.ok(got[0] == 401 and set(json.loads(got[2])) >= {"code", "message"}, "2.1 no token: %s %s" % (method, path), got)
    for name in ("X-EXECD-ACCESS-TOKEN", "x-execd-access-token", "X-Execd-Access-Token"):
        t.eq(code("GET", "/ping", "%s: %s\r\n" % (name, token))[0], 200, "2.1 the token as %s" % name)
    for why, value in (("longer", token + "x"), ("shorter", token[:-1]), ("in other letters", token.swapcase()), ("empty", "")):
        t.eq(code("GET", "/ping", "X-EXECD-ACCESS-TOKEN: %s\r\n" % value)[0], 401, "2.1 the token, %s" % why)
    try:
        other = Wire(port, "::1")
        other.send(say("GET", "/ping", headers="X-EXECD-ACCESS-TOKEN: %s\r\n" % token))
        t.eq(other.answer()[0], 200, "15-29 over IPv6")
        other.sock.close()
    except OSError as e:
        if e.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH):
            raise
        t.skip("15-29 over IPv6", "no IPv6 here: %s" % e)
    t.eq(code("GET", "/proxy/44772/ping", "X-EXECD-ACCESS-TOKEN: %s\r\n" % token)[0], 200, "2.1 nested, with the token")
    t.ok(key and code("GET", "/ping", "OPEN-SANDBOX-API-KEY: %s\r\n" % key)[0] == 200, "2.1 the API's key will do")


# What a body says, for each call that takes one object: a name, the text, what comes of it.
def test_bodies():
    sid = json.loads(ask("POST", "/session", '{"cwd":"/made"}')[2])["session_id"]
    run = "/session/%s/run" % sid
    done = INIT + out("x") + COMPLETE
    made = (200, '{"session_id":"ID"}')
    rows = (
        ("behind the value", "/command", '{"command":"echo x"} trailing {', done),
        ("a NUL behind the value", "/command", b'{"command":"echo x"}\0', done),
        ("space in front", "/command", ' \r\n\t{"command":"echo x"}', done),
        ("names in other letters", "/command", '{"Command":"echo x","CWD":"/usr"}', done),
        ("unknown members", "/command", '{"command":"echo x","more":[{"a":1e5}],"":null}', done),
        ("null for everything else", "/command",
         '{"command":"echo x","cwd":null,"background":null,"timeout":null,"uid":null,"gid":null,"envs":null}', done),
        ("escapes", "/command", r'{"comm\u0061nd":"\u0065cho\u0020x"}', done),
        ("behind the value", "/session", '{"cwd":"/made"} trailing {', made),
        ("names in other letters", "/session", '{"CWD":"/made/upper"}', made),
        ("null", "/session", "null", made), ("an empty object", "/session", "{}", made), ("no body", "/session", "", made),
        ("null for a member", "/session", '{"cwd":null}', made),
        ("behind the value", run, '{"command":"echo x"}]', done),
        ("names in other letters", run, '{"COMMAND":"echo x","Timeout":60000}', done),
        ("behind the value", "/pty", '{"cwd":"/made"}]', (201, '{"session_id":"ID"}')),
        ("names in other letters", "/pty", '{"Cwd":"/made"}', (201, '{"session_id":"ID"}')),
        ("no body", "/pty", "", (201, '{"session_id":"ID"}')),
        ("behind the value", "/code/context", '{"language":"bash"}]', (200, '{"id":"ID","language":"bash"}')),
        ("names in other letters", "/code/context", '{"Language":"bash"}', (200, '{"id":"ID","language":"bash"}')),
        ("names in other letters", "/code", '{"CODE":"echo x"}]', done),
        ("names in other letters", "/code", '{"code":"echo $A","ENVS":{"A":"x"},"Timeout":60000}', done),
        ("an integer with a point", "/code", '{"code":"true","timeout":1000.0}', bad(INVALID + "'timeout' is not a number of milliseconds")),
        ("an integer with a point", "/command", '{"command":"true","timeout":1000.0}', bad(INVALID + "'timeout' is not a number of milliseconds")),
        ("an integer with an exponent", "/command", '{"command":"true","timeout":1e3}', bad(INVALID + "'timeout' is not a number of milliseconds")),
        ("an integer with a point", run, '{"command":"true","timeout":1000.0}', bad("invalid request. 'timeout' is not a number of milliseconds")),
        ("a user with a point", "/command", '{"command":"true","uid":0.0}', bad(INVALID + "'uid' is not a user or group number")),
        ("a member twice", "/command", '{"command":"a","command":"b"}', bad(PARSE + 'JSON: the member "command" occurs twice')),
        ("bytes that are no UTF-8", "/command", b'{"command":"\xff"}', bad(PARSE + "JSON: the text is not UTF-8 (byte 12)")),
        ("half a surrogate pair", "/command", r'{"command":"\ud800"}', bad(PARSE + "JSON: a string holds a lone surrogate (byte 18)")),
        ("a NUL in a string", "/command", r'{"command":"\u0000"}', bad(PARSE + "JSON: a string holds a NUL (byte 18)")),
        ("a byte order mark", "/command", "\ufeff{}", bad(PARSE + "JSON: no JSON value starts like this (byte 0)")),
        ("no body", run, "", bad("error parsing request. JSON: the body is empty")),
        ("a list", run, "[]", bad("error parsing request. the body is not an object")),
        ("a list", "/session", "[]", bad("error parsing request. the body is not an object")),
        ("a cut object", "/pty", "{", bad("error parsing request. JSON: the text ends too early (byte 1)")),
    )
    for why, path, body, want in rows:
        is_row("2.2 %s: %s" % (re.sub("/session/.*", "/session/{}/run", path), why), ask("POST", path, body), want)
    t.eq(box.command("ls -d /made/upper"), "/made/upper", "2.2 and a member in other letters means the same")
    body = b'{"command":"echo x #' + b"a" * 100000 + b'"}'
    stream_is(ask("POST", "/command", body), done, "5.1 a command of 100,000 bytes")
    json_is(ask("POST", "/command", '{"command":"%s"}' % ("#" * 140000)), bad(INVALID + "a string has 140000 bytes, the kernel takes 131071"),
            "5.1 one that the kernel does not take")
    json_is(ask("POST", "/command", json.dumps({"command": "true", "envs": {"N%d" % i: "" for i in range(9000)}})), bad(INVALID + "more than 8192 variables"),
            "5.1 more variables than may be")
    got = ask("POST", "/command", body, "Content-Length: 99999999999\r\n")
    t.ok(got[0] == 413 and b'"code"' in got[2], "2.2 a body that says it is larger than may be is refused at once", got)
    got = ask("GET", "/files/info?path=/no%C3%A9%3C%26%E2%80%A8%FF%01")
    json_is(got, (404, '{"code":"FILE_NOT_FOUND","message":"file not found. /no\u00e9\\u003c\\u0026\\u2028\\ufffd\\u0001"}'),
            "2.2 what is not ASCII stands in messages as it is; <, >, & and line separators are escaped")


# ---- sections 4 and 5: commands ----

COMMANDS = (
    # name, body, what comes
    ("5.1 no command", "{}", bad(INVALID + "'command' is required")),
    ("5.1 an empty command", '{"command":""}', bad(INVALID + "'command' is required")),
    ("5.1 null for the command", '{"command":null}', bad(INVALID + "'command' is required")),
    ("5.1 a number for the command", '{"command":5}', bad(PARSE + "'command' is number, not a string")),
    ("5.1 no body", "", bad(PARSE + "JSON: the body is empty")),
    ("5.1 a list", "[]", bad(PARSE + "the body is not an object")),
    ("5.1 a cut body", "{", bad(PARSE + "JSON: the text ends too early (byte 1)")),
    ("5.1 no cwd: the sandbox's own", '{"command":"pwd"}', INIT + out("/") + COMPLETE),
    ("5.1 an empty cwd likewise", '{"command":"pwd","cwd":""}', INIT + out("/") + COMPLETE),
    ("5.1 cwd ~", '{"command":"pwd","cwd":"~"}', INIT + out("/root") + COMPLETE),
    ("5.1 cwd ~/", '{"command":"pwd","cwd":"~/."}', INIT + out("/root") + COMPLETE),
    ("5.1 cwd $NAME", '{"command":"pwd","cwd":"$DIR"}', INIT + out("/usr") + COMPLETE),
    ("5.1 cwd ${NAME}", '{"command":"pwd","cwd":"${DIR}/bin"}', INIT + out("/usr/bin") + COMPLETE),
    ("5.1 cwd of envs alone", '{"command":"pwd","cwd":"$OF","envs":{"OF":"/etc"}}', INIT + out("/etc") + COMPLETE),
    ("5.1 cwd that is not there", '{"command":"pwd","cwd":"/none"}', bad("invalid request, validation error: working directory /none: No such file or directory")),
    ("5.1 cwd that is a file", '{"command":"pwd","cwd":"/etc/passwd"}', bad("invalid request, validation error: working directory /etc/passwd: Not a directory")),
    ("5.1 cwd that is not there, in the background", '{"command":"pwd","cwd":"/none","background":true}', bad("invalid request, validation error: working directory /none: No such file or directory")),
    ("5.1 a number for cwd", '{"command":"pwd","cwd":5}', bad(PARSE + "'cwd' is number, not a string")),
    ("5.1 a text for background", '{"command":"true","background":"yes"}', bad(PARSE + "'background' is not a boolean")),
    ("5.1 timeout 0 is none", '{"command":"true","timeout":0}', INIT + COMPLETE),
    ("5.1 a large timeout", '{"command":"true","timeout":99999999999999}', INIT + COMPLETE),
    ("5.1 a timeout below 0", '{"command":"true","timeout":-1}', bad(INVALID + "'timeout' is not a number of milliseconds")),
    ("5.1 a timeout of no number", '{"command":"true","timeout":"5"}', bad(INVALID + "'timeout' is not a number of milliseconds")),
    ("5.1 a timeout that no number holds", '{"command":"true","timeout":99999999999999999999}', bad(INVALID + "'timeout' is not a number of milliseconds")),
    ("5.1 gid without uid", '{"command":"true","gid":5}', bad(INVALID + "uid is required when gid is provided")),
    ("5.1 a uid below 0", '{"command":"true","uid":-1}', bad(INVALID + "'uid' is not a user or group number")),
    ("5.1 a uid of 2^32", '{"command":"true","uid":4294967296}', bad(INVALID + "'uid' is not a user or group number")),
    ("5.1 a uid that no sandbox has", '{"command":"true","uid":70000}', bad(INVALID + "'uid' is above 65535, the last one of a sandbox")),
    ("5.1 envs that are a list", '{"command":"true","envs":[]}', bad(PARSE + "'envs' is not an object")),
    ("5.1 a number in envs", '{"command":"true","envs":{"A":5}}', bad(PARSE + "a value of 'envs' is not a string")),
    ("5.1 a name with =", '{"command":"true","envs":{"A=B":"1"}}', bad(INVALID + "a name in 'envs' is empty or has a '='")),
    ("5.1 envs win", '{"command":"echo \\"$BASE|$NEW|$EMPTY|${NULL-none}\\"","envs":{"BASE":"q\\"$x\\t\u00fc","NEW":"n","EMPTY":"","NULL":null}}',
     INIT + out('q"$x\t\u00fc|n||none') + COMPLETE),
    ("5.1 and are this command's only", '{"command":"echo \\"$BASE|${NEW-none}\\""}', INIT + out("b ase|none") + COMPLETE),
    ("5.2 a shell of its own group, not a login shell, not interactive, its stdin empty",
     '{"command":"echo $0 $- $#; [ $$ = $(ps -o pgid= $$) ] && echo leads; shopt -q login_shell || echo no login; cat; readlink /proc/self/fd/0"}',
     INIT + out("bash hBc 0", "leads", "no login", "/dev/null") + COMPLETE),
    ("5.2 nobody's signals are ignored or blocked", '{"command":"grep -E ^Sig[BI] /proc/self/status; umask"}',
     INIT + out("SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "0022") + COMPLETE),
    ("5.2 PATH of the request does not choose the shell", '{"command":"echo found","envs":{"PATH":"/nowhere"}}', INIT + out("found") + COMPLETE),
    ("5.2 a user of the image: its groups", '{"command":"id -u; id -g; id -G; echo $HOME","uid":65534}', INIT + out("65534", "65534", "65534", "/root") + COMPLETE),
    ("5.2 a user that the image does not know: group 0", '{"command":"id -u; id -g; id -G","uid":12345}', INIT + out("12345", "0", "0") + COMPLETE),
    ("5.2 a group that is asked for wins", '{"command":"id -u; id -g","uid":12345,"gid":77}', INIT + out("12345", "77") + COMPLETE),
    ("5.2 exit 0", '{"command":"exit 0"}', INIT + COMPLETE),
    ("5.2 exit 3", '{"command":"exit 3"}', INIT + failed(3)),
    ("5.2 exit 300", '{"command":"exit 300"}', INIT + failed(44)),
    ("5.2 not found", '{"command":"nosuch"}', INIT + err("bash: line 1: nosuch: command not found") + failed(127)),
    ("5.2 not for reading", '{"command":"echo \\"open"}', INIT + err("bash: -c: line 1: unexpected EOF while looking for matching `\"'") + failed(2)),
    ("5.2 SIGKILL", '{"command":"kill -9 $$"}', INIT + failed(-1, "signal: killed")),
    ("5.2 SIGTERM", '{"command":"kill $$"}', INIT + failed(-1, "signal: terminated")),
    ("5.2 SIGSEGV", '{"command":"kill -SEGV $$"}', INIT + failed(-1, "signal: segmentation fault")),
    ("5.2 SIGINT", '{"command":"kill -INT $$"}', INIT + failed(-1, "signal: interrupt")),
    ("5.2 a signal without a name", '{"command":"kill -40 $$"}', INIT + failed(-1, "signal: signal 40")),
    ("5.2 a child's signal is the shell's code", '{"command":"exec 2>/dev/null; sh -c \'kill -9 $$\'; exit $?"}', INIT + failed(137)),
    ("5.2 a timeout ends it", '{"command":"sleep 600","timeout":200}', INIT + failed(-1, "signal: killed")),
    ("5.2 a timeout ends what ignores signals", '{"command":"trap \'\' TERM INT; sleep 600 & wait","timeout":200}', INIT + failed(-1, "signal: killed")),
    ("5.2 what stays behind does not keep the stream open", '{"command":"sleep 601 & echo done"}', INIT + out("done") + COMPLETE),
    ("5.3 all ends of lines", r'{"command":"printf \"a\\n\\nb\\r\\nc\\rd\""}', INIT + out("a", "\n", "b", "c", "d") + COMPLETE),
    ("5.3 empty lines", r'{"command":"printf \"\\r\\r\\n\\n\\n\\r\""}', INIT + out(*["\n"] * 5) + COMPLETE),
    ("5.3 \\r and \\n in two writes are one end", r'{"command":"printf \"a\\r\"; sleep 0.2; printf \"\\nb\""}', INIT + out("a", "b") + COMPLETE),
    ("5.3 an end at the end adds nothing", r'{"command":"printf \"a\\n\""}', INIT + out("a") + COMPLETE),
    ("5.3 a line in pieces is one", r'{"command":"printf a; sleep 0.2; printf b; sleep 0.2; printf \"c\\n\""}', INIT + out("abc") + COMPLETE),
    ("5.3 the rest of each stream comes before the end", '{"command":"printf o; printf e >&2; exit 1"}', INIT + out("o") + err("e") + failed(1)),
    ("4.2 characters in JSON", r'{"command":"printf \"<&>\\342\\200\\250\\001\\t\\b\\f\\033\\177\\000\\303\\274\\360\\237\\230\\200\\\"\""}',
     INIT + '{"type":"stdout","text":"\\u003c\\u0026\\u003e\\u2028\\u0001\\t\\b\\f\\u001b\x7f\\u0000\u00fc\U0001f600\\"","timestamp":T}\n\n' + COMPLETE),
    ("4.2 bytes that are no UTF-8", r'{"command":"printf \"x\\377\\355\\240\\200\\342\\202\\nx\\300\\200\""}', INIT + out("x" + "?" * 6, "x??").replace("?", "\\ufffd") + COMPLETE),
    ("4.2 no output, no event of it", '{"command":":"}', INIT + COMPLETE),
    ("5.5 in the background: init and complete at once", '{"command":"sleep 602","background":true}', INIT + COMPLETE),
)


def test_commands():
    for name, body, want in COMMANDS:
        is_row(name, ask("POST", "/command", body), want)
    wire.send(say("POST", "/command", '{"command":"echo old"}', version="1.0"))
    line, headers = wire.head()
    t.ok(line == "HTTP/1.1 200 OK" and headers == [STREAM[0]] + STREAM[2:4] + ["Connection: close"] and
         masked(wire.rest()) == INIT + out("old") + COMPLETE, "4.1 HTTP/1.0: the same bytes without chunks, to the end", headers)


def start(body):
    other = Wire()
    other.send(say("POST", "/command", json.dumps(body)))
    assert " 200 " in other.head()[0]
    return other, json.loads(other.chunk())["text"]


def logs(ident, query=""):
    status, headers, body, _ = ask("GET", "/command/%s/logs%s" % (ident, query))
    cursor = [h for h in headers if h.startswith("EXECD-COMMANDS-TAIL-CURSOR: ")]
    return status, int(cursor[0].split(": ")[1]) if cursor else None, body


def test_questions():
    global wire
    wire.sock.close()
    wire = Wire()
    text = r"printf 'a\n\r\377b'; printf e >&2; exit 3"
    other, ident = start({"command": text})
    other.sock.close()
    finished = r'{"id":"ID","content":%s,"running":false,"exit_code":%d,%s"started_at":"W","finished_at":"W"}'

    def over(ident):
        return until(lambda: b'"running":false' in ask("GET", "/command/status/" + ident)[2])

    over(ident)
    json_is(ask("GET", "/command/status/" + ident), (200, finished % (json.dumps(text).replace(">", "\\u003e").replace("&", "\\u0026"), 3, '"error":"exit status 3",')),
            "5.5 status of what has failed")
    other, long_one = start({"command": ": " + "\u00fc" * 2500})
    other.sock.close()
    over(long_one)
    content = json.loads(ask("GET", "/command/status/" + long_one)[2])["content"]
    t.eq(content, ": " + "\u00fc" * 2047, "5.5 status has the first 4096 bytes of a command")
    other, long_one = start({"command": ":  " + "\u00fc" * 2500})
    other.sock.close()
    over(long_one)
    content = json.loads(ask("GET", "/command/status/" + long_one)[2])["content"]
    t.eq(content, ":  " + "\u00fc" * 2046, "5.5 but no half of a character")
    whole = b"a\n\r\xffbe"
    for query, at, cursor in (("", 0, 6), ("?cursor=", 0, 6), ("?cursor=0", 0, 6), ("?cursor=2", 2, 6), ("?cursor=5", 5, 6), ("?cursor=6", 6, 6),
                              ("?cursor=99", 6, 99), ("?cursor=x", 0, 6), ("?cursor=1.5", 0, 6), ("?cursor=1&cursor=2", 1, 6), ("?CURSOR=3", 0, 6),
                              ("?cursor=%33", 3, 6), ("?cursor=99999999999999999999", 0, 6)):
        t.eq(logs(ident, query), (200, cursor, whole[at:]), "5.5 logs%s" % query)
    head = ask("GET", "/command/%s/logs" % ident)[1]
    t.ok("Content-Type: text/plain; charset=utf-8" in head, "5.5 logs are text", head)
    json_is(ask("GET", "/command/%s/logs?cursor=-1" % ident), bad("'cursor' is negative"), "5.5 a cursor below 0")
    for name in ("nope", "0" * 32, "a" * 200, "%E2%82%AC"):
        shown = {"%E2%82%AC": "\u20ac"}.get(name, name)[:64]
        json_is(ask("GET", "/command/status/" + name), (404, refusal("INVALID_REQUEST_BODY", "command not found: " + shown)), "5.5 status of no command: %.20s" % name)
        json_is(ask("GET", "/command/%s/logs" % name), bad("command not found: " + shown), "5.5 logs of no command: %.20s" % name)
    gone = (500, refusal("RUNTIME_ERROR", "error interruptting code context. no such session"))
    missing = (400, refusal("MISSING_QUERY", "missing query parameter 'id'"))
    for path in ("/command", "/code"):
        for query, want in (("", missing), ("?id=", missing), ("?id=nope", gone), ("?id=" + "0" * 32, gone), ("?ID=" + ident, missing),
                            ("?id=" + ident, (500, refusal("RUNTIME_ERROR", "command session %s is not running" % ident)))):
            json_is(ask("DELETE", path + query), want, "5.4 DELETE %s%s" % (path, query.replace(ident, "finished")))

    other, ident = start({"command": "echo up; sleep 603 & sleep 604"})
    while b'"up"' not in other.chunk():
        pass
    t.ok(re.fullmatch("[0-9a-f]{32}", ident), "5.2 an id of 32 hexadecimal digits", ident)
    json_is(ask("GET", "/command/status/" + ident), (200, '{"id":"ID","content":"echo up; sleep 603 \\u0026 sleep 604","running":true,"started_at":"W"}'),
            "5.5 status of what runs")
    t.eq(ask("DELETE", "/command?id=" + ident), EMPTY, "5.4 an interrupt")
    t.eq(box.command("pgrep -fc '[s]leep 60[34]' || true"), "0", "5.4 is answered when the group is gone")
    t.eq(masked(b"".join(iter(other.chunk, b""))), failed(-1, "signal: terminated"), "5.4 and its stream ends so")
    stubborn, ident = start({"command": "trap '' TERM; echo up; while :; do sleep 0.1; done"})
    while b'"up"' not in stubborn.chunk():
        pass
    began = time.monotonic()
    t.eq(ask("DELETE", "/command?id=" + ident), EMPTY, "5.4 of what ignores TERM")
    t.ok(time.monotonic() - began > 2.5, "5.4 after 3 s", time.monotonic() - began)
    t.eq(masked(b"".join(iter(stubborn.chunk, b""))), failed(-1, "signal: killed"), "5.4 by KILL")
    for sock in (other, stubborn):
        sock.sock.close()

    _, ident = start({"command": "echo out; echo err >&2; %s; echo last" % wait_for("/tmp/go"), "background": True})
    t.ok(ask("GET", "/command/status/" + ident)[0] == 200, "5.5 a background command is known as soon as its init is there")
    until(lambda: logs(ident)[1] == 8)
    t.eq(logs(ident), (200, 8, b"out\nerr\n"), "5.5 both outputs of a background command in one log")
    t.eq(logs(ident, "?cursor=8"), (200, 8, b""), "5.5 nothing new")
    box.command("touch /tmp/go")
    over(ident)
    t.eq(logs(ident, "?cursor=8"), (200, 13, b"last\n"), "5.5 what came since")
    for name, body, code, error in (("exits 0", {"command": "exit 0"}, 0, ""), ("exits 4", {"command": "sleep 605 & exit 4"}, 4, '"error":"exit status 4",'),
                                    ("runs out of time", {"command": "sleep 606", "timeout": 100}, -1, '"error":"signal: killed",')):
        _, ident = start(dict(body, background=True))
        over(ident)
        content = json.dumps(body["command"]).replace("&", "\\u0026")
        json_is(ask("GET", "/command/status/" + ident), (200, finished % (content, code, error)), "5.5 a background command that " + name)
    t.eq(box.command("pgrep -fc '[s]leep 60[15]' || true"), "2", "5.2 what commands left behind lives on")
    box.command("pkill -f '[s]leep 60[0-9]'")


# ---- 5.6: the file of variables ----

ENV_FILE = r"""
# comment
  #another
PLAIN=one
  SPACED = two words
QUOTED="q"
TWICE=first
TWICE=last
EXPANDED=${BASE}/$DIR/$NOT_THERE.
no equals sign
EMPTY=
HAS=a=b=c
PATH=/opt/of/file:$PATH
"""


def test_env_file():
    box.upload("/etc/the.env", write_local(ENV_FILE), 644)
    show = "echo \"$PLAIN|$QUOTED|$TWICE|$EXPANDED|${EMPTY-none}|$HAS|${PATH%%:*}|$BASE\"; env | grep -a '^SPACED'"
    lines = ['one|"q"|last|b ase//usr/.||a=b=c|/opt/of/file|b ase', "SPACED = two words"]
    stream_is(ask("POST", "/command", json.dumps({"command": show})), INIT + out(*lines) + COMPLETE, "5.6 the file's variables reach a command")
    stream_is(ask("POST", "/command", json.dumps({"command": "echo $PLAIN", "envs": {"PLAIN": "mine"}})), INIT + out("mine") + COMPLETE, "5.6 envs win over the file")
    sid = json.loads(ask("POST", "/session", "{}")[2])["session_id"]
    stream_is(ask("POST", "/session/%s/run" % sid, json.dumps({"command": show})), INIT + out(*lines) + COMPLETE, "5.6 a session")
    ctx = json.loads(ask("POST", "/code/context", '{"language":"bash"}')[2])["id"]
    got = masked(ask("POST", "/code", json.dumps({"code": "echo $PLAIN", "context": {"id": ctx}}))[2])
    t.ok(event(type="stdout", text="one\n") in got, "5.6 and a code context", got)
    ws = Ws(json.loads(ask("POST", "/pty", '{"command":"echo is:$PLAIN:$TERM"}')[2])["session_id"])
    t.ok(ws.until(lambda: b"is:one:xterm-256color\r\n" in ws.out()), "5.6 and a terminal, which has a TERM", ws.frames)
    box.upload("/etc/the.env", write_local("PLAIN=two\n"), 644)
    stream_is(ask("POST", "/command", json.dumps({"command": "echo $PLAIN$TWICE"})), INIT + out("two") + COMPLETE, "5.6 it is read for each command")
    box.command("rm /etc/the.env")
    stream_is(ask("POST", "/command", json.dumps({"command": "echo ${PLAIN-none}"})), INIT + out("none") + COMPLETE, "5.6 without it there are none")


def write_local(text):
    path = execd_client.SOCKET.rsplit("/", 2)[0] + "/upload"
    with open(path, "w") as f:
        f.write(text)
    return path


# ---- section 6: sessions ----

SESSION = (
    ("6 the directory of a session is made", '{"command":"pwd"}', out("/made/s 1") + COMPLETE),
    ("6 no command", "{}", bad("invalid request. 'command' is required")),
    ("6 a timeout below 0", '{"command":"true","timeout":-1}', bad("invalid request. 'timeout' is not a number of milliseconds")),
    ("6 a directory that is not there", '{"command":"pwd","cwd":"/none"}', bad("invalid request. working directory /none: No such file or directory")),
    ("6 timeout 0 is none", '{"command":"true","timeout":0}', COMPLETE),
    ("6 exports", r'{"command":"export A=\"x'"'"r'\\\"y\\$z\" B=$'"'"r'a\\nb'"'"r'"}', COMPLETE),
    ("6 are there as they were", '{"command":"printf %s \\"$A\\"; echo; printf %s \\"$B\\" | od -An -c; sh -c \'echo \\"$A\\"\'"}',
     out("x'\"y$z", "   a  \\n   b", "x'\"y$z") + COMPLETE),
    ("6 a directory for a run", '{"command":"pwd","cwd":"/usr"}', out("/usr") + COMPLETE),
    ("6 stays the session's", '{"command":"pwd"}', out("/usr") + COMPLETE),
    ("6 it is expanded", '{"command":"pwd","cwd":"$DIR/bin"}', out("/usr/bin") + COMPLETE),
    ("6 ~ too", '{"command":"pwd","cwd":"~"}', out("/root") + COMPLETE),
    ("6 both outputs are stdout", '{"command":"echo e >&2; echo o"}', out("e", "o") + COMPLETE),
    ("6 lines as of commands", r'{"command":"printf \"a\\n\\nb\\r\\nc\\rd\""}', out("a", "\n", "b", "c", "d") + COMPLETE),
    ("6 exit 7", '{"command":"exit 7"}', failed(7)),
    ("6 exec", '{"command":"exec echo other"}', out("other") + COMPLETE),
    ("6 a signal", '{"command":"kill -9 $$"}', failed(-1, "signal: killed")),
    ("6 a timeout", '{"command":"sleep 607 & sleep 608","timeout":200}', failed(-1, "timeout after 200ms")),
    ("6 what looks like a mark of ours is output", '{"command":"echo \'__SBX__\'; printf \'#OK\\\\n#S\\\\n\'"}', out("__SBX__", "#OK", "#S") + COMPLETE),
    ("6 the session lives", '{"command":"echo $A; pwd"}', out("x'\"y$z", "/root") + COMPLETE),
    ("6 nothing of it lies in /tmp", '{"command":"ls -A /tmp | grep -c -e execd -e sbx -e bash"}', out("0") + failed(1)),
)


def test_sessions():
    made = ask("POST", "/session", '{"cwd":"/made/s 1"}')
    json_is(made, (200, '{"session_id":"ID"}'), "6 a session is made")
    sid = json.loads(made[2])["session_id"]
    t.ok(re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sid), "6 its id is a UUID", sid)
    for name, body, want in SESSION:
        got = ask("POST", "/session/%s/run" % sid, body)
        is_row(name, got, want if isinstance(want, tuple) else INIT + want)
        if got[0] == 200:
            t.ok(('"type":"init","text":"%s"' % sid).encode() in got[2], name + ": the session's id is in init", got)
    t.eq(box.command("pgrep -fc '[s]leep 60[78]' || true"), "0", "6 a timeout ends all that the run started")
    gone = (500, refusal("RUNTIME_ERROR", "error running in session. context not found"))
    busy = json.loads(ask("POST", "/session", "{}")[2])["session_id"]
    first, *others = (Wire() for _ in range(4))
    first.send(say("POST", "/session/%s/run" % busy, '{"command":"echo up; sleep 609"}'))
    first.head()
    while b'"up"' not in first.chunk():
        pass
    for other in others:
        other.send(say("POST", "/session/%s/run" % busy, '{"command":"echo never"}'))
    t.eq(ask("DELETE", "/session/" + busy), EMPTY, "6 a session is deleted while runs wait for it")
    t.eq(masked(b"".join(iter(first.chunk, b""))), failed(-1, "signal: killed"), "6 what ran is killed")
    for other in others:
        json_is(other.answer(), gone, "6 what waited is told")
    for other in [first] + others:
        other.sock.close()
    json_is(ask("POST", "/session/nope/run", '{"command":"x"}'), gone, "6 a run in no session")
    json_is(ask("POST", "/session/nope/run", "{"), bad("error parsing request. JSON: the text ends too early (byte 1)"), "6 whose body is looked at first")
    json_is(ask("DELETE", "/session/nope"), (404, refusal("CONTEXT_NOT_FOUND", "session nope not found")), "6 no session to delete")
    t.eq(ask("DELETE", "/session/" + sid), EMPTY, "6 a session is deleted")
    json_is(ask("DELETE", "/session/" + sid), (404, refusal("CONTEXT_NOT_FOUND", "session %s not found" % sid)), "6 once")
    json_is(ask("POST", "/session/%s/run" % sid, '{"command":"x"}'), gone, "6 and no run finds it")
    json_is(ask("POST", "/session", '{"cwd":5}'), bad("error parsing request. 'cwd' is number, not a string"), "6 a directory that is a number")
    json_is(ask("POST", "/session", '{"cwd":"/etc/passwd/x"}'), (500, refusal("RUNTIME_ERROR", "error accessing file: /etc/passwd/x: Not a directory")), "6 one that cannot be made")
    sid = json.loads(ask("POST", "/session", '{"cwd":"${MADE}/$MADE/e"}')[2])["session_id"]
    is_row("6 the first directory is expanded", ask("POST", "/session/%s/run" % sid, '{"command":"pwd"}'), INIT + out("/made/made/e") + COMPLETE)


# ---- section 10: terminals ----

HANDSHAKE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Ws:
    """A terminal's socket; frames are (kind, payload)."""

    def __init__(self, ident, query="", headers=""):
        self.wire = Wire()
        self.wire.send(say("GET", "/pty/%s/ws%s" % (ident, query), headers=HANDSHAKE + headers))
        self.head = self.wire.head()
        self.frames = []

    def frame(self):
        op, n = self.wire.exactly(2)
        n &= 127
        n = int.from_bytes(self.wire.exactly(2), "big") if n == 126 else int.from_bytes(self.wire.exactly(8), "big") if n == 127 else n
        self.frames.append((op, self.wire.exactly(n)))
        return self.frames[-1]

    def until(self, true):
        try:
            while not true():
                self.frame()
        except (EOFError, OSError):
            pass
        return true()

    def out(self):
        return b"".join(data[1:] for op, data in self.frames if op == 0x82 and data[0] in (1, 2))

    def send(self, op, data, last=True, key=b"abcd"):
        n = len(data)
        size = bytes([0x80 | n]) if n < 126 else b"\xfe" + n.to_bytes(2, "big")
        self.wire.send(bytes([(0x80 if last else 0) | op]) + size + key + bytes(c ^ key[i & 3] for i, c in enumerate(data)))

    def say(self, text):
        self.send(1, text.encode())


def error_frame(text):
    return 0x81, ('{"type":"error","error":"%s","code":"INVALID_FRAME"}\n' % text).encode()


PONG = (0x81, b'{"type":"pong"}\n')
TALK = (  # what is said in pipe mode, what is answered before the next pong
    ('{"type":"ping"}', [PONG]), ('{"TYPE":"ping"}', [PONG]),
    ('{"type":"resize","cols":100,"rows":30}', []),
    ('{"type":"resize","cols":0,"rows":1}', [error_frame("cols and rows are numbers above 0")]),
    ('{"type":"resize","cols":"1","rows":1}', [error_frame("cols and rows are numbers above 0")]),
    ('{"type":"resize"}', [error_frame("cols and rows are numbers above 0")]),
    ('{"type":"signal"}', [error_frame("unknown signal")]), ('{"type":"signal","signal":"SIGUSR1"}', [error_frame("unknown signal")]),
    ('{"type":"dance"}', [error_frame("unknown type of message")]), ("{}", [error_frame("unknown type of message")]),
    ('{"type":"stdin"}', []), ("no JSON", []), ("", []),
)


def test_terminals():
    json_is(ask("POST", "/pty", '{"cwd":5}'), bad("'cwd' is not a string"), "10 a directory that is a number")
    json_is(ask("POST", "/pty", '{"cwd":"/etc/passwd/x"}'), (500, refusal("RUNTIME_ERROR", "error accessing file: /etc/passwd/x: Not a directory")),
            "10 one that cannot be made: one body")
    for method, path in (("GET", "/pty/nope"), ("DELETE", "/pty/nope"), ("GET", "/pty/nope/ws")):
        json_is(ask(method, path), (404, refusal("CONTEXT_NOT_FOUND", "no terminal session nope")), "10 no session: %s %s" % (method, path))
    ident = json.loads(ask("POST", "/pty", '{"cwd":"$MADE/t 1"}')[2])["session_id"]
    state = '{"session_id":"ID","running":%s,"output_offset":%d}'
    json_is(ask("GET", "/pty/" + ident), (200, state % ("false", 0)), "10 nothing is started yet")
    json_is(ask("GET", "/pty/%s/ws" % ident), bad("this path takes a WebSocket upgrade request of version 13"), "10 not an upgrade")
    json_is(ask("GET", "/pty/%s/ws" % ident, headers=HANDSHAKE.replace("13", "12")), bad("this path takes a WebSocket upgrade request of version 13"), "10 another version")
    ws = Ws(ident, "?pty=0", "Origin: http://localhost\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Extensions: permessage-deflate\r\n")
    t.eq(ws.head, ("HTTP/1.1 101 Switching Protocols", ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
         "10 the handshake: no protocol, no compression")
    t.eq(ws.frame(), (0x81, ('{"type":"connected","session_id":"%s","mode":"pipe"}\n' % ident).encode()), "10 pipe mode says so")
    for text, want in TALK:
        del ws.frames[:]
        ws.say(text)
        ws.say('{"type":"ping"}')
        ws.until(lambda: len(ws.frames) > len(want))
        t.eq(ws.frames, want + [PONG], "10 told: %s" % text)
    ws.send(9, b"keep")
    t.eq(ws.frame(), (0x8a, b"keep"), "10 a ping of the protocol")
    ws.send(2, b"\5other kinds are nobody's")
    ws.send(2, b"\0echo o; pw", last=False)
    ws.send(0, b"d; tty\n")
    ws.until(lambda: b"not a tty\n" in ws.out())
    t.eq(ws.out(), b"o\n/made/t 1\nnot a tty\n", "10 input in pieces; the session's directory; pipes")
    ws.say('{"type":"stdin","data":"echo e >&2\\n"}')
    t.ok(ws.until(lambda: (0x82, b"\2e\n") in ws.frames), "10 errors come apart in pipe mode", ws.frames)
    json_is(ask("GET", "/pty/" + ident), (200, state % ("true", 24)), "10 the offset counts both")
    taken = refusal("ALREADY_CONNECTED", "another client holds this terminal")
    for why, query, headers in (("a second socket", "", HANDSHAKE), ("a takeover without an upgrade", "?takeover=1", ""), ("not an upgrade", "", "")):
        json_is(ask("GET", "/pty/%s/ws%s" % (ident, query), headers=headers), (409, taken), "10 held: " + why)
    second = Ws(ident, "?takeover=1&since=2")
    second.until(lambda: len(second.frames) == 2)
    t.eq(second.frames, [(0x82, b"\3\0\0\0\0\0\0\0\2/made/t 1\nnot a tty\ne\n"), (0x81, ('{"type":"connected","session_id":"%s","mode":"pipe"}\n' % ident).encode())],
         "10 a takeover: what was missed, then who is connected")
    del ws.frames[:]
    t.eq((ws.frame(), ws.wire.rest()), ((0x88, (4001).to_bytes(2, "big") + b"TAKEN_OVER"), b""), "10 the one before is told, and closed")
    second.say('{"type":"eof"}')
    second.until(lambda: len(second.frames) == 4)
    t.eq(second.frames[2:], [(0x81, b'{"type":"exit","exit_code":0}\n'), (0x88, (1000).to_bytes(2, "big") + b"process exited")], "10 the end of the shell")
    third = Ws(ident, "?since=99")
    third.send(2, b"\0PS1=; stty -echo; stty size; tty; kill -9 $$\n")
    third.until(lambda: third.frames[-1:] and third.frames[-1][0] == 0x88)
    t.ok(third.frames[0] == (0x81, ('{"type":"connected","session_id":"%s","mode":"pty"}\n' % ident).encode()) and b"24 80\r\n/dev/pts/" in third.out(),
         "10 the next socket starts a new shell, of 24 by 80; beyond the end nothing is missed", third.frames)
    t.eq(third.frames[-2:], [(0x81, b'{"type":"exit","exit_code":-1,"signal":9}\n'), (0x88, (1000).to_bytes(2, "big") + b"process exited")], "10 a signal is -1")
    held = Ws(ident, "?pty=0")
    held.until(lambda: held.frames)
    held.say('{"type":"stdin","data":"#%s"}' % ("x" * 65000))
    held.send(1, b"x" * 2000, last=False)
    held.send(0, b"y" * 63900)
    held.until(lambda: len(held.frames) > 1 and b"error" in held.frames[-1][1])
    t.eq(held.frames[-1], error_frame("the message is too long"), "10 a text beyond 64 KiB")
    held.wire.sock.close()
    until(lambda: ask("GET", "/pty/%s/ws" % ident)[0] == 400)
    for why, frame, code in (("a frame beyond 1 MiB", b"\x82\xff" + (1 << 40).to_bytes(8, "big") + b"abcd", 1009), ("not masked", b"\x82\x02\0x", 1002), ("a bit that is nobody's", b"\xc2\x82abcd\0\0", 1002), ("an unknown kind", b"\x83\x80abcd", 1002),
                             ("a close", b"\x88\x82abcd" + bytes([0x03 ^ 0x61, 0xe8 ^ 0x62]), 1000)):
        held = Ws(ident)
        held.until(lambda: held.frames)
        held.wire.send(frame)
        held.until(lambda: held.frames[-1][0] == 0x88)
        t.eq(int.from_bytes(held.frames[-1][1][:2], "big"), code, "10 closed with %d: %s" % (code, why))
        until(lambda: ask("GET", "/pty/%s/ws" % ident)[0] == 400)
    t.eq(ask("DELETE", "/pty/" + ident), EMPTY, "10 deleted")
    json_is(ask("DELETE", "/pty/" + ident), (404, refusal("CONTEXT_NOT_FOUND", "no terminal session " + ident)), "10 once")
    ident = json.loads(ask("POST", "/pty", '{"cwd":"/made/gone"}')[2])["session_id"]
    box.command("rmdir /made/gone")
    ws = Ws(ident)
    ws.until(lambda: ws.frames[-1:] and ws.frames[-1][0] == 0x88)
    t.eq([f for f in ws.frames if b"connected" not in f[1]],
         [(0x81, b'{"type":"error","error":"working directory /made/gone: No such file or directory","code":"START_FAILED"}\n'), (0x88, (1011).to_bytes(2, "big") + b"the shell is gone")],
         "10 a shell that cannot be started")


def test_history():
    """What clients forget to delete is forgotten: the session that was not used for longest, the first terminal in which nothing runs."""
    kept, first = (json.loads(ask("POST", "/session", "{}")[2])["session_id"] for _ in range(2))
    ask("POST", "/session/%s/run" % first, '{"command":"a=1"}')
    ask("POST", "/session/%s/run" % kept, '{"command":"a=kept"}')
    made = [ask("POST", "/session", "{}")[0] for _ in range(63)]
    t.eq((set(made), ask("DELETE", "/session/" + first)[0]), ({200}, 404), "15-23 of 65 sessions the one that was not used for longest is gone")
    stream_is(ask("POST", "/session/%s/run" % kept, '{"command":"echo $a"}'), INIT + out("kept") + COMPLETE, "15-23 and one that was used is there")
    idle, busy = (json.loads(ask("POST", "/pty", '{"command":"exec cat"}')[2])["session_id"] for _ in range(2))
    ws = Ws(busy)
    ws.until(lambda: ws.frames)
    made = [ask("POST", "/pty", "{}")[0] for _ in range(16)]
    t.eq((set(made), ask("GET", "/pty/" + idle)[0], ask("GET", "/pty/" + busy)[0]), ({201}, 404, 200), "15-23 of 18 terminals the first is gone, not the one that runs")
    ws.wire.sock.close()


def test_slow_terminal():
    ident = json.loads(ask("POST", "/pty", '{"command":"yes"}')[2])["session_id"]

    def offset():
        return json.loads(ask("GET", "/pty/" + ident)[2])["output_offset"]

    def stands():
        before = offset()
        time.sleep(0.3)
        return before and before == offset()

    ws = Ws(ident)
    t.ok(until(stands), "10 a client that does not read stalls its terminal")
    t.eq(box.command("echo beside"), "beside", "10 and nobody else's")
    at = offset()
    ws.until(lambda: len(ws.frames) % 50 == 0 and offset() > at)
    t.ok(offset() > at, "10 which goes on when it does")
    t.eq(ask("DELETE", "/pty/" + ident), EMPTY, "10 and can be ended")
    ws.wire.sock.close()


# ---- sections 11 and 12 ----

SERVICE = r"""
import os, socket, time
def wait(path):
    for _ in range(2400):
        if os.path.exists(path): return
        time.sleep(0.05)
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 8100))
s.listen(16)
open("/tmp/serving", "w")
while True:
    c, _ = s.accept()
    got = b""
    while b"\r\n\r\n" not in got:
        got += c.recv(65536)
    head, body = got.split(b"\r\n\r\n", 1)
    path = head.split()[1].split(b"?")[0]
    if path == b"/stream":
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n")
        wait("/tmp/next")
        c.sendall(b"7\r\nsecond\n\r\n0\r\n\r\n")
    elif path == b"/both":
        c.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not body.endswith(b"0\r\n\r\n"):
            if body:
                text = body.split(b"\r\n")[1]
                c.sendall(b"%x\r\n%s\r\n" % (len(text), text))
            body = c.recv(65536)
        c.sendall(b"0\r\n\r\n")
    elif path == b"/old":
        c.sendall(b"HTTP/1.0 203 Own\r\nX-A: 1\r\nX-A: 2\r\nKeep-Alive: x\r\n\r\nto the end")
    elif path == b"/none":
        c.sendall(b"HTTP/1.1 204 None\r\nX-A: 1\r\n\r\n")
    else:
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(head), b"" if head.startswith(b"HEAD") else head))
    c.close()
"""


def test_service():
    if box.command("command -v python3") == "":
        return t.skip("11 a service inside", "no python3 in the image")
    box.upload("/tmp/service.py", write_local(SERVICE), 644)
    server, _ = start({"command": "python3 /tmp/service.py"})
    box.command(wait_for("/tmp/serving"))
    for way in ("/proxy/8100", "/proxy/44772/proxy/8100"):
        wire.send(say("GET", way + "/stream"))
        status = wire.head()[0]
        t.eq((status.split()[1], wire.chunk()), ("200", b"first\n"), "11 what a service streams comes when it is written, by %s" % way)
        box.command("touch /tmp/next")
        t.eq((wire.chunk(), wire.chunk()), (b"second\n", b""), "11 to its end, by %s" % way)
        box.command("rm /tmp/next")
    both = Wire()
    both.send(say("POST", "/proxy/8100/both", b"3\r\none\r\n", "Transfer-Encoding: chunked\r\n"))
    t.eq((both.head()[0].split()[1], both.chunk()), ("200", b"one"), "11 an answer may begin before its request has ended")
    both.send(b"3\r\ntwo\r\n")
    t.eq(both.chunk(), b"two", "11 and both go on")
    both.send(b"0\r\n\r\n")
    t.eq(both.chunk(), b"", "11 to the end")
    got = ask("GET", "/proxy/8100/old")
    t.eq((got[0], [h for h in got[1] if h[:2] == "X-"], got[2]), (203, ["X-A: 1", "X-A: 2"], b"to the end"), "11 HTTP/1.0, a status and headers of its own")
    t.ok(not any(h.startswith("Keep-Alive") for h in got[1]), "11 headers for one hop stay behind", got[1])
    got = ask("GET", "/proxy/8100/none")
    t.ok(got[0] == 204 and "X-A: 1" in got[1] and not any("ength" in h for h in got[1]), "11 an answer without a body", got)
    got = ask("HEAD", "/proxy/8100/any")
    t.ok(got[0] == 200 and any(h.startswith("Content-Length: ") for h in got[1]), "11 HEAD", got)
    for path in ("/a%2Fb//c;d/%e2%82%ac/~x?q=%20+&&r=%zz", "/" + "p" * 3000 + "?" + "q" * 3000):
        got = ask("GET", "/proxy/8100" + path)
        t.eq(got[2].split(b"\r\n")[0].decode(), "GET %s HTTP/1.1" % path, "11 path and query as they were: %.30s" % path)
    for way in ("/proxy/8100", "/proxy/8100/", "/proxy/8100?x"):
        got = ask("GET", way)
        t.eq(got[2].split()[1].decode(), "/" + ("?x" if "?" in way else ""), "11 GET %s" % way)
    got = ask("OPTIONS", "/proxy/8100/x", headers="X-Two: 1\r\nX-Two: 2\r\nTE: trailers\r\nConnection: X-Own\r\nX-Own: 1\r\nX-EXECD-ACCESS-TOKEN: none\r\n")
    lines = got[2].decode().lower().split("\r\n")
    t.ok(lines[0] == "options /x http/1.1" and "x-two: 1" in lines and "x-two: 2" in lines and
         not [x for x in lines if x.startswith(("te:", "x-own", "x-execd"))], "11 any method; headers but those for one hop and our token", lines)
    t.eq(ask("GET", "/ping"), EMPTY, "11 the connection is as before")
    server.sock.close()
    box.command("pkill -f '[s]ervice.py'")
    until(lambda: ask("GET", "/proxy/8100/")[0] == 502)
    got = ask("GET", "/proxy/8100/")
    t.ok(got[0] == 502 and set(json.loads(got[2])) == {"code", "message"}, "11 nobody there: 502", got)


def test_ports():
    t.eq(ask("GET", "/proxy/44772/ping"), EMPTY, "11 our own port, within itself")
    t.eq(ask("GET", "/proxy/44772/proxy/44772/proxy/44772/ping"), EMPTY, "11 again and again")
    stream_is(ask("POST", "/proxy/44772/command", '{"command":"echo nested"}'), INIT + out("nested") + COMPLETE, "11 a stream there, each event at once")
    for path, status, code in (("/proxy/", 400, "INVALID_PORT"), ("/proxy//x", 400, "INVALID_PORT"), ("/proxy/abc/x", 400, "INVALID_PORT"),
                               ("/proxy/0/", 400, "INVALID_PORT"), ("/proxy/65536/", 400, "INVALID_PORT"), ("/proxy/-1/", 400, "INVALID_PORT"),
                               ("/proxy/9/", 502, "GENERAL"), ("/proxy", 404, "NOT_FOUND")):
        got = ask("GET", path)
        t.ok(got[0] == status and code in json.loads(got[2])["code"], "11 GET %s" % path, got)
    want = '{"available":false,"isolator":"none","version":"%s","message":"isolated sessions are not offered by this server",' \
        '"setpriv_available":false,"userns_available":false,"commit_supported":false,"diff_supported":false}'
    got = ask("GET", "/v1/isolated/capabilities")
    json_is(got, (200, want % json.loads(got[2])["version"]), "12 capabilities: not available, and why")
    no = (503, refusal("ISOLATION_UNAVAILABLE", "isolated sessions are not offered by this server"))
    for method, path in (("POST", "/v1/isolated/session"), ("GET", "/v1/isolated/sessions"), ("GET", "/v1/isolated/session/x"),
                         ("DELETE", "/v1/isolated/session/x"), ("POST", "/v1/isolated/session/x/run"), ("GET", "/v1/isolated/session/x/diff"),
                         ("POST", "/v1/isolated/session/x/commit"), ("GET", "/v1/isolated/session/x/files/info?path=/"),
                         ("POST", "/v1/isolated/capabilities")):
        json_is(ask(method, path), no, "12 %s %s" % (method, path))


def new_wire():
    global wire
    wire = Wire()


t.run(globals(), failed=new_wire)
box.delete()
t.done()
