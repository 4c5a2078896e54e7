# SPDX-License-Identifier: Apache-2.0
"""A Jupyter server that misbehaves on request, for jupyter.py; runs inside a sandbox, standard library only.

The language of a context and the code of a cell say what is done.  Every request is noted in /tmp/fake.log.
"""
import asyncio
import base64
import hashlib
import json
import os
import struct
import sys
import uuid

PORT, TOKEN = int(sys.argv[1]), sys.argv[2]
LOG = open("/tmp/fake.log", "a", buffering=1)
sessions = {}  # session id -> Kernel
LANGUAGES = ["r", "status", "nonsense", "short", "long", "forever", "path", "handshake", "closes", "hangup", "chunked", "late", "mute", "slow"]


class Kernel:
    def __init__(self, language):
        self.language, self.id, self.writer, self.interrupted = language, str(uuid.uuid4()), None, asyncio.Event()
        self.count = self.asked = 0


def frame(payload, opcode=1, fin=True, mask=False, length=None):
    length = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    bit = 0x80 if mask else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", length)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", length)
    return head + (b"\0\0\0\0" if mask else b"") + payload


def message(parent, kind, content, channel="iopub", raw=None):
    text = json.dumps({"header": {"msg_id": uuid.uuid4().hex, "msg_type": kind}, "msg_type": kind, "channel": channel, "buffers": [],
                       "parent_header": {"msg_id": parent}, "metadata": {}, "content": content})
    return frame((raw or text).encode())


def stream(parent, text, name="stdout"):
    return message(parent, "stream", {"name": name, "text": text})


def idle(parent):
    return message(parent, "status", {"execution_state": "idle"})


def reply(parent, kernel, **more):
    return message(parent, "execute_reply", {"status": "ok", "execution_count": kernel.count, **more}, "shell")


async def run(kernel, writer, parent, code):
    """Send what the cell asks for; True: go on."""
    def say(*parts):
        writer.write(b"".join(parts))

    end = reply(parent, kernel), idle(parent)
    kernel.count += 1
    say(message(parent, "status", {"execution_state": "busy"}), message(parent, "execute_input", {"code": code}))
    if code == "ok":
        say(stream(parent, "hello\n"), stream(parent, "oops\n", "stderr"), message(parent, "execute_result", {
            "execution_count": kernel.count, "metadata": {},
            "data": {"text/plain": "4", "application/json": {"a": [1, None, True, "<"]}, "image/png": "iVBORw=="}}), *end)
    elif code == "count":
        say(stream(parent, str(kernel.count)), *end)
    elif code == "idle first":
        say(stream(parent, "x"), end[1], end[0])
    elif code == "no idle":
        say(stream(parent, "x"), end[0])
    elif code == "no reply":
        say(stream(parent, "x"), end[1])
    elif code == "others":
        say(stream("f" * 32, "not mine"), idle("f" * 32), stream("", "nobody's"), message(parent, "stream", {"text": "control"}, "control"),
            message(parent, "comm_open", {"x": 1}), stream(parent, "mine"), *end)
    elif code == "nonsense":
        say(frame(b"{not json"), frame(b"[1]"), frame(b"\"text\""), message(parent, "stream", {"text": {"a": 1}}),
            message(parent, "execute_result", {"data": [1, 2]}), message(parent, "execute_result", {"data": None}),
            message(parent, "error", {"traceback": "no list"}) if False else b"", frame(b'{"a":' * 5000), frame(b"\xff\xfe", 1), *end)
    elif code == "odd text":
        say(message(parent, "", {}, raw='{"header":{"msg_type":"stream"},"channel":"iopub","parent_header":{"msg_id":"%s"},"content":{"text":'
                    '"a\\u0000b\\ud800c\\ude00d\\ud83d\\ude00e\\\\u0000"}}' % parent), *end)
    elif code == "huge":
        say(stream(parent, "y" * (7 << 20)), stream(parent, "after"), *end)
    elif code == "pieces":
        data = message(parent, "stream", {"name": "stdout", "text": "in pieces"})
        body = data[4:] if data[1] == 126 else data[2:]
        say(frame(body[:5], fin=False), frame(b"are you there", 9), frame(body[5:9], 0, fin=False), frame(b"", 0, fin=False),
            frame(body[9:], 0), frame(b"\x01binary", 2), *end)
    elif code == "flood":
        for _ in range(512):
            say(stream(parent, "z" * 65536))
            await writer.drain()
        say(*end)
    elif code == "pings":
        # asks 400,000 times whether somebody is there, and listens to no answer
        writer.transport.pause_reading()
        for _ in range(400):
            say(frame(b"p" * 125, 9) * 1000)
            await writer.drain()
        say(*end)
        await writer.drain()
        writer.transport.resume_reading()
    elif code == "error":
        what = {"ename": "NameError", "evalue": "no x", "traceback": ["line one", "line two", 3]}
        say(message(parent, "error", what), message(parent, "execute_reply", {"status": "error", **what}, "shell"), end[1])
    elif code == "display":
        say(message(parent, "display_data", {"data": {"image/png": "iVBORw==", "text/plain": ["<Figure>"]}}), *end)
    elif code == "aborted":
        say(message(parent, "execute_reply", {"status": "aborted"}, "shell"), end[1])
    elif code == "wait":
        say(stream(parent, "up"))
        await kernel.interrupted.wait()
        kernel.interrupted.clear()
        say(message(parent, "error", {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}), *end)
    elif code == "deaf":
        say(stream(parent, "up"))  # and no interrupt helps
    elif code == "endless frame":
        say(stream(parent, "up"), frame(b"{", length=1 << 62))
    elif code == "half":
        say(stream(parent, "up"), frame(b"{" * (3 << 20), length=5 << 20))
    elif code == "close":
        writer.close()
    elif code == "close frame":
        say(frame(b"\x03\xe8bye", 8))
    elif code == "cut":
        say(stream(parent, "x" * 1000)[:500])
        await writer.drain()
        writer.close()
    elif code == "masked":
        say(frame(b"{}", mask=True))
    elif code == "reserved bit":
        say(b"\xc1\x02{}")
    elif code == "restart":
        say(message("", "status", {"execution_state": "restarting"}))
    elif code == "dead":
        say(message("", "status", {"execution_state": "dead"}))
    else:
        say(stream(parent, code), *end)
    await writer.drain()


async def channels(kernel, reader, writer):
    kernel.writer = writer
    tasks = set()
    while True:
        head = await reader.readexactly(2)
        n = head[1] & 127
        if n == 126:
            n = struct.unpack(">H", await reader.readexactly(2))[0]
        elif n == 127:
            n = struct.unpack(">Q", await reader.readexactly(8))[0]
        if not head[1] & 128:
            LOG.write("UNMASKED\n")
        mask = await reader.readexactly(4)
        data = bytes(b ^ mask[i % 4] for i, b in enumerate(await reader.readexactly(n)))
        if head[0] & 15 == 10:
            LOG.write("PONG %s\n" % data.decode())
        if head[0] & 15 != 1:
            continue
        request = json.loads(data)
        parent = request["header"]["msg_id"]
        if request["header"]["msg_type"] == "kernel_info_request":
            # some kernels tell of no status here; what hears output late is asked again
            writer.write(message(parent, "kernel_info_reply", {"status": "ok"}, "shell"))
            kernel.asked += 1
            if kernel.asked > 1 or kernel.language != "late":
                writer.write(idle(parent))
        elif request["header"]["msg_type"] == "execute_request":
            task = asyncio.ensure_future(run(kernel, writer, parent, request["content"]["code"]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


def answer(writer, status, body=b"", more="", length=None):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    writer.write(("HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n" % (status, len(body) if length is None else length, more)).encode() + body)


async def session(writer, body):
    asked = json.loads(body)
    kernel = Kernel(asked["kernel"]["name"].split(".")[-1])
    kernel.name = asked["name"]
    sid = str(uuid.uuid4())
    sessions[sid] = kernel
    if kernel.language == "slow":
        await asyncio.sleep(2)
    good = {"id": sid, "kernel": {"id": kernel.id}}
    language = kernel.language
    if language == "status":
        answer(writer, 500, {"message": "no"})
    elif language == "nonsense":
        answer(writer, 201, b"{\"id\": \"a")
    elif language == "short":
        answer(writer, 201, good, length=100000)
        await writer.drain()
        writer.close()
    elif language == "long":
        answer(writer, 201, b" " * (2 << 20))
    elif language == "path":
        answer(writer, 201, {"id": sid, "kernel": {"id": "../../evil"}})
    elif language == "hangup":
        writer.close()
    elif language == "forever":
        writer.write(b"HTTP/1.1 201 X\r\n" + b"A: b\r\n" * 20000)
    elif language == "chunked":
        text = json.dumps(good).encode()
        writer.write(b"HTTP/1.1 201 X\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(text) + text + b"\r\n0\r\n\r\n")
    elif language == "closes":
        answer(writer, 201, good, "Connection: close\r\n")
        await writer.drain()
        writer.close()
    else:
        answer(writer, 201, good)


async def client(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            method, path = lines[0].split(" ")[:2]
            fields = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:] if line)}
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            LOG.write("%s %s\n" % (method, path))
            if fields.get("authorization") != "token " + TOKEN:
                answer(writer, 403, {"message": "Forbidden"})
            elif path == "/api/kernelspecs":
                specs = {"python3": {"name": "python3", "spec": {"language": "python"}},
                         "bad name/x": {"spec": {"language": "r"}}, "odd": {"spec": 1}, "number": 5}
                specs.update({"k." + name: {"spec": {"language": name.upper()}} for name in LANGUAGES})
                answer(writer, 200, {"default": "python3", "kernelspecs": specs})
            elif path == "/api/sessions" and method == "GET":
                mine = [{"id": sid, "name": k.name, "path": k.name, "kernel": {"id": k.id}} for sid, k in sessions.items()]
                somebodys = [{"id": "somebodys", "name": "Untitled.ipynb"}, {"id": "odd", "name": 5}, "odd", {"name": "sandboxd-"}]
                answer(writer, 200, somebodys + mine)
            elif path == "/api/sessions" and method == "POST":
                await session(writer, body)
            elif path.startswith("/api/sessions/") and method == "DELETE":
                sessions.pop(path.split("/")[-1], None)
                writer.write(b"HTTP/1.1 204 X\r\n\r\n")
            elif path.endswith("/interrupt"):
                kernel = [k for k in sessions.values() if k.id in path][0]
                kernel.interrupted.set()
                if kernel.language == "mute":
                    await asyncio.sleep(3600)
                writer.write(b"HTTP/1.1 204 X\r\n\r\n")
            elif "/channels" in path:
                kernel = [k for k in sessions.values() if k.id in path][0]
                key = fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
                if kernel.language == "handshake":
                    accept = accept[::-1]
                writer.write(("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n" % accept).encode())
                return await channels(kernel, reader, writer)
            else:
                answer(writer, 404, {"message": "Not Found"})
            await writer.drain()
    except (EOFError, OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(client, "127.0.0.1", PORT, limit=1 << 24)
    print("listening", os.getpid(), flush=True)
    async with server:
        await server.serve_forever()

asyncio.run(main())
