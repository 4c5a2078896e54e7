# SPDX-License-Identifier: Apache-2.0
# A hostile service inside a sandbox: one port for each way to answer badly, from 9000 on in the order of `ways`.
import os, socket, threading, time

OK = b"HTTP/1.1 200 OK\r\n"


def forever(c, first, data):
    c.sendall(first)
    while True:
        c.sendall(data)


ways = [
    ("small chunks", lambda c: forever(c, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 8000)),
    ("interim answers", lambda c: forever(c, b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)),
    ("endless head", lambda c: forever(c, OK, b"X: " + b"y" * 8000 + b"\r\n")),
    ("endless line", lambda c: forever(c, OK + b"X: ", b"y" * 65536)),
    ("bare CR", lambda c: c.sendall(OK + b"X-A: b\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n")),
    ("two framings", lambda c: c.sendall(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ("second answer", lambda c: c.sendall(OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nEVIL")),
    ("unasked upgrade", lambda c: c.sendall(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n")),
    ("noise", lambda c: c.sendall(os.urandom(4096))),
    ("version", lambda c: c.sendall(b"HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n")),
    ("status", lambda c: c.sendall(b"HTTP/1.1 99999 OK\r\nContent-Length: 0\r\n\r\n")),
    ("huge chunk", lambda c: c.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc")),
    ("origin", lambda c: c.sendall(OK + b"Set-Cookie: a=b; Domain=x; Path=/\r\nClear-Site-Data: \"*\"\r\nStrict-Transport-Security: max-age=9\r\n"
                                   b"Alt-Svc: h3=\":1\"\r\nAccess-Control-Allow-Origin: *\r\nService-Worker-Allowed: /\r\nContent-Length: 0\r\n\r\n")),
    ("echo", None),
]


def echo(c, head):
    c.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(head) + head)


def serve(c, way):
    try:
        head = c.recv(65536)
        way(c) if way else echo(c, head)
        time.sleep(0.2)
    except OSError:
        pass
    c.close()


def listen(port, way):
    s = socket.create_server(("0.0.0.0", port), backlog=128)
    while True:
        threading.Thread(target=serve, args=(s.accept()[0], way), daemon=True).start()


for i, (_, way) in enumerate(ways):
    threading.Thread(target=listen, args=(9000 + i, way), daemon=True).start()
time.sleep(3600)
