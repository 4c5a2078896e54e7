#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# sandbox-dnsd against a broker and name servers that this test plays: forwarding, truncation, several servers, forged answers,
# a flooding neighbour, a restarted broker.  Everything in a network namespace of its own.
import array, os, socket, struct, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from dnsd_lib import Sandboxd, question
from tap_lib import done, ok, tap

if os.geteuid() != 0:
    print("1..0 # SKIP needs root")
    sys.exit(0)
if "DNSD_TEST_INSIDE" not in os.environ:
    os.environ["DNSD_TEST_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "-n", "--", sys.executable, os.path.abspath(__file__)])
subprocess.check_call(["ip", "link", "set", "lo", "up"])
build = os.environ.get("top_builddir", ".")


def a_records(n, first=1):
    return b"".join(b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + bytes([192, 0, 2, (first + i) & 255]) for i in range(n))


def split(query):
    end = query.index(b"\0", 12) + 5
    return query[:2], query[12:end]


def answer(query, n=1, rcode=0, tc=False):
    qid, q = split(query)
    flags = 0x8180 | rcode | (0x0200 if tc else 0)
    return qid + struct.pack("!HHHHH", flags, 1, n, 0, 0) + q + a_records(n)


class Upstream(threading.Thread):
    """behaviour: function(query, over_tcp) -> list of messages to send"""

    def __init__(self, addr, behaviour):
        super().__init__(daemon=True)
        self.behaviour, self.asked, self.ports, self.ids = behaviour, 0, set(), set()
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((addr, 53))
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.bind((addr, 53))
        self.tcp.listen(16)
        self.start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def run(self):
        while True:
            data, peer = self.udp.recvfrom(2048)
            self.asked += 1
            self.ports.add(peer[1])
            self.ids.add(data[:2])
            for m in self.behaviour(data, False):
                self.udp.sendto(m, peer)

    def serve_tcp(self):
        while True:
            conn, _ = self.tcp.accept()
            n = struct.unpack("!H", conn.recv(2))[0]
            for m in self.behaviour(conn.recv(n), True):
                conn.sendall(struct.pack("!H", len(m)) + m)
            conn.close()


def first(query, tcp):
    q = split(query)[1].lower()
    if b"silent" in q or b"dead" in q:
        return []
    if b"servfail" in q:
        return [answer(query, 0, 2)]
    if b"nx" in q:
        return [answer(query, 0, 3)]
    if b"big" in q:
        return [answer(query, 60)] if tcp else [answer(query, 0, tc=True)]
    if b"medium" in q:
        return [answer(query, 50)]
    if b"forged" in q:
        wrong_id = bytes([query[0] ^ 1, query[1]]) + query[2:]
        wrong_name = query[:13] + b"X" + query[14:]
        return [answer(wrong_id, 9), answer(wrong_name, 9), b"junk", answer(query, 1)]
    if b"broken" in q:
        return [answer(query, 1)[:-3]]
    return [answer(query, 1)]


def second(query, tcp):
    """well where the first is not, else like it"""
    return [answer(query, 2)] if any(w in split(query)[1].lower() for w in (b"silent", b"servfail", b"broken")) else first(query, tcp)


up1, up2 = Upstream("127.0.1.1", first), Upstream("127.0.1.2", second)

HEAD = "=IIQII"
RUN = tempfile.mkdtemp()
os.chmod(RUN, 0o755)


class Broker:
    def __init__(self, port):
        path = RUN + "/broker.sock"
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(4)
        self.port, self.conn, self.peer = port, None, None

    def serve(self):
        self.conn, _ = self.listener.accept()
        self.peer = struct.unpack("3i", self.conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        hello = self.conn.recv(4096)
        magic, op, tag, size, _ = struct.unpack(HEAD, hello[:24])
        ok((magic, op, size) == (0x314B5242, 1, len(hello)), "hello is the first message", hello)
        # broker_hello_reply: status, version (the one that was asked with), boot id, eight numbers, image key, text
        body = struct.pack("=i", 0) + hello[24:28] + bytes(16) + bytes(4 * 8) + bytes(32) + bytes(240)
        self.conn.send(struct.pack(HEAD, magic, 1, tag, 24 + len(body), 0) + body)
        ask = self.conn.recv(4096)
        magic, op, tag, size, _ = struct.unpack(HEAD, ask[:24])
        ok(op == 16 and size == len(ask) == 32, "then it asks for the sockets", ask)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        udp.bind(("127.0.0.1", self.port))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(("127.0.0.1", self.port))
        tcp.listen(16)
        body = struct.pack("=ii", 0, 0) + bytes(240)
        self.conn.sendmsg([struct.pack(HEAD, magic, 16, tag, 24 + len(body), 0) + body],
                          [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [udp.fileno(), tcp.fileno()]))])

        ask = self.conn.recv(4096)
        magic, op, tag, size, _ = struct.unpack(HEAD, ask[:24])
        ok(op == 20 and size == len(ask) == 32, "and then for the log of refused packets", ask)
        body = struct.pack("=ii", 1, 0) + bytes(240)
        self.conn.send(struct.pack(HEAD, magic, 20, tag, 24 + len(body), 0) + body)

    def die(self):
        self.conn.close()
        self.listener.close()


def ask(msg, port=5300, source="127.0.0.1", wait=30):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((source, 0))
    s.settimeout(wait)
    s.sendto(msg, ("127.0.0.1", port))
    try:
        return s.recv(65536)
    except socket.timeout:
        return b""


def show(m):
    """(rcode, answers, tc) of a message"""
    return (m[3] & 15, struct.unpack("!H", m[6:8])[0], bool(m[2] & 2)) if len(m) >= 12 else None


def tcp_ask(messages, port=5300):
    s = socket.create_connection(("127.0.0.1", port))
    s.settimeout(30)
    s.sendall(b"".join(struct.pack("!H", len(m)) + m for m in messages))
    got, buf = [], b""
    while len(got) < len(messages):
        part = s.recv(65536)
        if not part:
            break
        buf += part
        while len(buf) >= 2 and len(buf) >= 2 + struct.unpack("!H", buf[:2])[0]:
            n = struct.unpack("!H", buf[:2])[0]
            got.append(buf[2:2 + n])
            buf = buf[2 + n:]
    return got


config = RUN + "/sandboxd.toml"
with open(config, "w") as f:
    f.write('[dns]\nupstreams = ["127.0.1.1", "127.0.1.2"]\n[isolation]\ndnsd_uid = 1899000123\n')
os.chmod(config, 0o644)
broker = Broker(5300)
control = Sandboxd(RUN)
child = subprocess.Popen([build + "/sandbox-dnsd", "--config", config, "--run-dir", RUN], stderr=open(RUN + "/log", "w"))
try:
    broker.serve()
    control.up.wait(30)
    ok(show(ask(question("plain.test"))) == (2, 0, False), "who has no policy gets SERVFAIL")
    for slot, addr in enumerate(("127.0.0.1", "127.0.0.66", "127.0.0.77")):
        control.set(slot, "A", addr=addr)
    control.synced()
    ok(broker.peer[1] == 1899000123, "it connects with its own uid", broker.peer)
    status = dict(l.split(":", 1) for l in open(f"/proc/{child.pid}/status").read().splitlines())
    ok(all(int(status["Cap" + k], 16) == 0 for k in ("Inh", "Prm", "Eff", "Bnd", "Amb")), "no capability in any set", status)
    ok(status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2" and status["Groups"].strip() == "",
       "no_new_privs, filtered, no groups")

    ok(show(ask(question("plain.test"))) == (0, 1, False), "a question is answered")
    m = ask(question("PlAiN.test", qid=7))
    ok(m[:2] == b"\0\x07" and b"PlAiN" in m, "with the asker's id and spelling")
    ok(show(ask(question("nx.test"))) == (3, 0, False), "NXDOMAIN passes")
    for i in range(20):
        ask(question(f"n{i}.test"))
    ok(len(up1.ports) > 12 and len(up1.ids) > 15, "each question has its own port and id", (len(up1.ports), len(up1.ids)))
    ok(show(ask(question("servfail.test"))) == (0, 2, False), "SERVFAIL: the second server is asked")
    ok(show(ask(question("plain.test"))) is not None, "and goes on")
    start = time.monotonic()
    ok(show(ask(question("silent.test"))) == (0, 2, False), "a silent server: the second is asked")
    ok(show(ask(question("dead.test"))) == (2, 0, False), "all silent: SERVFAIL")
    ok(time.monotonic() - start < 25, "before anybody gives up", time.monotonic() - start)
    m = ask(question("forged.test"))
    ok(show(m) == (0, 1, False), "wrong id, wrong name and junk are not believed", m)
    ok(show(ask(question("broken.test"))) == (0, 2, False), "a broken answer: the other server is asked")
    ok(show(ask(b"\x12\x34\x01\0\0\2\0\0\0\0\0\0")) == (1, 0, False), "two questions: FORMERR")
    ok(show(ask(question("x.test", qtype=252))) == (5, 0, False), "a transfer is refused")
    ok(ask(answer(question("x.test")), wait=0.5) == b"", "an answer is not answered")
    ok(ask(b"\0", wait=0.5) == b"", "nor a single byte")

    got = tcp_ask([question("one.test", qid=1), question("two.test", qid=2), question("three.test", qid=3)])
    ok([m[:2] for m in got] == [b"\0\1", b"\0\2", b"\0\3"], "three questions in one TCP connection are answered in turn", got)
    ok(tcp_ask([b"\x12\x34\x01\0\0\2\0\0\0\0\0\0"])[0][3] & 15 == 1, "FORMERR over TCP")
    ok(show(ask(question("big.test"))) == (0, 0, True), "60 addresses do not fit into 512 bytes: TC")
    ok(show(ask(question("medium.test", edns=1232))) == (0, 50, False), "50 fit into the 1232 of EDNS")
    ok(show(ask(question("medium.test"))) == (0, 0, True), "and not into 512 without it")
    ok([show(m) for m in tcp_ask([question("big.test")])] == [(0, 60, False)], "over TCP all 60 come, fetched over TCP")

    # one source floods: another one is served
    flood = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    for s in flood:
        s.bind(("127.0.0.66", 0))
    stop = time.monotonic() + 2

    def pour(s):
        while time.monotonic() < stop:
            s.sendto(question("flood.test"), ("127.0.0.1", 5300))
            time.sleep(0.0005)

    asked = up1.asked + up2.asked
    threads = [threading.Thread(target=pour, args=(s,)) for s in flood]
    [t.start() for t in threads]
    lost = sum(show(ask(question("calm.test"), source="127.0.0.77")) is None for _ in range(30))
    [t.join() for t in threads]
    ok(lost == 0, "beside a flood of another source nothing is lost", lost)
    ok(up1.asked + up2.asked - asked < 1000 + 2 * 200 + 200, "and the flood is not passed on", up1.asked + up2.asked - asked)

    # 60 idle connections of one source
    idle = []
    for _ in range(60):
        s = socket.socket()
        s.bind(("127.0.0.66", 0))
        s.connect(("127.0.0.1", 5300))
        idle.append(s)
    ok(len(tcp_ask([question("after.test")])) == 1, "60 idle TCP connections of another source do no harm")
    [s.close() for s in idle]

    # the broker dies: serving goes on; the next one gives new sockets
    broker.die()
    ok(show(ask(question("meanwhile.test"))) is not None, "without a broker it serves on")
    broker = Broker(5301)
    begin = time.monotonic()
    broker.serve()
    ok(time.monotonic() - begin < 20, "the next broker is found", time.monotonic() - begin)
    for _ in range(50):
        m = ask(question("new.test"), port=5301, wait=0.3)
        if m:
            break
    ok(show(m) is not None, "and its sockets are served")
    ok(child.poll() is None, "dnsd lives")
    child.terminate()
    ok(child.wait(30) == 0, "SIGTERM ends it")
finally:
    if child.poll() is None:
        child.kill()
    if tap.failed:
        print("# " + open(RUN + "/log").read().replace("\n", "\n# "))
    subprocess.call(["rm", "-rf", RUN])
done()
