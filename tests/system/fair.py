#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""fair.py SOCKET HOSTILE-ID OTHER-ID KIND STREAMS: what answers /ping of one sandbox while another floods the gateway.

KIND: none; lines (endless short lines, read as fast as they come); bytes (NULs without an end of line, read); unread (the same, and
nobody reads).  Prints "p50 p99 max" of the other's answers in microseconds.
"""
import json
import socket
import sys
import threading
import time

path, hostile, other, kind, streams = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])
commands = {"lines": "yes", "bytes": "cat /dev/zero", "unread": "cat /dev/zero"}


def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return s


def flood():
    body = json.dumps({"command": commands[kind]}).encode()
    s = connect()
    s.sendall(b"POST /v1/sandboxes/%s/proxy/44772/command HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n" % (hostile.encode(), len(body)) + body)
    s.recv(4096)
    floods.append(s)
    if kind == "unread":
        return
    buf = bytearray(1 << 20)
    try:
        while s.recv_into(buf):
            pass
    except OSError:
        pass


floods = []
threads = []
if kind != "none":
    for _ in range(streams):
        t = threading.Thread(target=flood, daemon=True)
        t.start()
        threads.append(t)
    end = time.monotonic() + 20
    while len(floods) < streams and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
s = connect()
request = b"GET /v1/sandboxes/%s/proxy/44772/ping HTTP/1.1\r\nHost: localhost\r\n\r\n" % other.encode()
took = []
for _ in range(150):
    start = time.monotonic()
    s.sendall(request)
    if not s.recv(65536).startswith(b"HTTP/1.1 200"):
        sys.exit("no answer")
    took.append(time.monotonic() - start)
    time.sleep(0.004)
took.sort()
print(*(int(1e6 * x) for x in (took[len(took) // 2], took[len(took) * 99 // 100], took[-1])), len(floods))
sys.stdout.flush()
import os
os._exit(0)
