# SPDX-License-Identifier: Apache-2.0
# HTTP attacks on the gateway: "good NAME" or "bad NAME WHAT".  Arguments: keyless|service PORT ENDPOINT_PORT A B KEY TOKEN_OF_B
import socket, sys, time

what, port, direct, a, b, key, token = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:8]
exec_a = "/sandboxes/%s/proxy/44772" % a


def tell(good, name, text=""):
    print("%s %s %s" % ("good" if good else "bad", name, "" if good else text), flush=True)


def raw(data, to=None, wait=5):
    s = socket.create_connection(("127.0.0.1", to or port), 5)
    s.settimeout(wait)
    out = b""
    try:
        s.sendall(data)
        while True:
            more = s.recv(65536)
            if not more:
                return out
            out += more
            if len(out) > 1 << 20:
                return out
    except OSError:
        return out
    finally:
        s.close()


def ask(target, headers="", to=None, method="GET", version="1.1"):
    host = "127.0.0.1:%d" % (to or port)
    return raw(("%s %s HTTP/%s\r\nHost: %s\r\nConnection: close\r\n%s\r\n" % (method, target, version, host, headers)).encode("latin-1"), to)


def status(answer):
    return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "none"


def refused(name, answer):
    tell(status(answer)[0] in "45", name, answer[:60])


def keyless():
    tricks = ["/ping", "//ping", "/./ping", "/../44772/ping", "/%2e%2e/44772/ping", "%2fping", "/ping;x", "/ping?open-sandbox-api-key=" + key,
              "/proxy/44772/ping", "/proxy/44772/proxy/44772/ping", "/proxy/44772" * 20 + "/ping", "/proxy/18080/policy", "", "/"]
    for trick in tricks:
        refused("44772 without a key: %s" % trick[:40], ask(exec_a + trick))
    for number in ("044772", "+44772", "110308", "4295012068", "%34%34772", "44772x", "-20764", "0xaee4"):
        refused("44772 written %s" % number, ask("/sandboxes/%s/proxy/%s/ping" % (a, number)))
    for target in ("/v1/sandboxes", "//v1/sandboxes", "/V1/sandboxes", "/v1/sandboxes/", "/health/../v1/sandboxes", "/health/%2e%2e/v1/sandboxes",
                   "/v1/sandboxes?x=/health", "/v1/sandboxes/%s" % a, "/v1/sandboxes/%s/endpoints/44772" % a, "/sandboxes/%s/logs" % a,
                   "http://127.0.0.1:%d%s/ping" % (port, exec_a), "*"):
        refused("API without a key: %s" % target[:44].replace(a, "A"), ask(target))
    for target in ("/%s/44772/ping", "/%s/44772/proxy/44772/files/info", "/%s/18080/policy", "//%s/44772/ping", "/sandboxes/%s/proxy/44772/ping"):
        refused("second listener: %s" % target, ask(target % a, to=direct))
    for name, header in (("an empty key", "OPEN-SANDBOX-API-KEY: "), ("a prefix of the key", "OPEN-SANDBOX-API-KEY: " + key[:-1]),
                         ("a folded key", "OPEN-SANDBOX-API-KEY:\r\n " + key), ("a key after a space", "OPEN-SANDBOX-API-KEY : " + key),
                         ("a key as bearer", "Authorization: Bearer " + key), ("another sandbox's token", "X-EXECD-ACCESS-TOKEN: " + token),
                         ("an empty token", "X-EXECD-ACCESS-TOKEN: "), ("a local address", "X-Forwarded-For: 127.0.0.1"),
                         ("another target", "X-Original-URL: /health"),
                         ("WebSocket", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")):
        refused("44772 with " + name, ask(exec_a + "/ping", header + "\r\n"))
    tell(status(ask("/sandboxes/%s/proxy/44772/ping" % b, "X-EXECD-ACCESS-TOKEN: %s\r\n" % token)) == "200", "(the token opens its own sandbox)")
    for name, data in (("bare LF", "GET /health HTTP/1.1\nHost: localhost\n\n"), ("two hosts", "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: x\r\n\r\n"),
                       ("length and chunks", "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
                       ("two lengths", "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
                       ("a signed length", "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx"),
                       ("a list of codings", "POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity, chunked\r\n\r\n"),
                       ("no version", "GET /health\r\n\r\n"), ("a rebound name", "GET /health HTTP/1.1\r\nHost: localhost.evil\r\n\r\n"),
                       ("a user in Host", "GET /health HTTP/1.1\r\nHost: localhost@evil\r\n\r\n")):
        refused("malformed: " + name, raw(data.encode()))


def latency(seconds, streams, way):
    """Median of pings to B in ms while A answers `streams` requests in its way."""
    held, times = [], []
    for _ in range(streams):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"GET /sandboxes/%s/proxy/%d/ HTTP/1.1\r\nHost: localhost\r\n\r\n" % (a.encode(), 9000 + way))
        s.setblocking(False)
        held.append(s)
    c = socket.create_connection(("127.0.0.1", port), 20)
    end = time.time() + seconds
    while time.time() < end:
        t = time.time()
        c.sendall(b"GET /sandboxes/%s/proxy/44772/ping HTTP/1.1\r\nHost: localhost\r\nOPEN-SANDBOX-API-KEY: %s\r\n\r\n" % (b.encode(), key.encode()))
        c.recv(65536)
        times.append((time.time() - t) * 1000)
        for s in held:
            try:
                s.recv(1 << 18)
            except OSError:
                pass
        time.sleep(0.01)
    return sorted(times)[len(times) // 2]


def service():
    def answer(way, headers="", to=None):
        return ask("/%s/%d/" % (a, 9000 + way) if to else "/sandboxes/%s/proxy/%d/" % (a, 9000 + way), headers, to)

    for way, name in ((2, "endless head"), (3, "endless line"), (4, "bare CR"), (5, "two framings"), (7, "unasked upgrade"), (8, "noise"),
                      (9, "version"), (10, "status")):
        tell(status(answer(way)) == "502", "a service's " + name, answer(way)[:80])
    tell(not answer(11).endswith(b"0\r\n\r\n"), "a chunk of 2^64 is no whole answer")
    got = answer(6)
    tell(got.endswith(b"ok") and b"EVIL" not in got, "a second answer goes nowhere", got)
    got = answer(12).lower()
    for name in (b"clear-site-data", b"strict-transport-security", b"alt-svc", b"access-control-allow-origin", b"service-worker-allowed", b"domain="):
        tell(name not in got and b"content-security-policy: sandbox" in got, "the API's origin is not touched by " + name.decode(), got)
    secrets = "OPEN-SANDBOX-API-KEY: %s\r\nX-EXECD-ACCESS-TOKEN: %s\r\nAuthorization: x\r\nCookie: c=1\r\n" % (key, token)
    got = answer(13, secrets).lower()
    tell(b"get /" in got and not any(s in got for s in (key.encode().lower(), token.encode().lower(), b"authorization", b"cookie")),
         "no secret reaches a service", got)
    got = answer(13, secrets, direct).lower()
    tell(b"get /" in got and not any(s in got for s in (key.encode().lower(), token.encode().lower())), "nor by the second listener", got)
    got = ask("/sandboxes/%s/proxy/9013/a%%0d%%0aX-Evil:%%201?q=%%0d%%0a" % a)
    tell(b"\nX-Evil" not in got and b"GET /a%0d%0aX-Evil" in got, "escaped line ends stay escaped", got)
    for way, name in ((0, "chunks of one byte"), (1, "endless interim answers")):
        ms = latency(2, 20, way)
        tell(ms < 150, "with 20 streams of %s another sandbox answers" % name, "median %d ms" % ms)


keyless() if what == "keyless" else service()
