# SPDX-License-Identifier: Apache-2.0
# What sandbox-dnsd talks to, played by tests: name servers that can be told to lie, a broker that opens addresses, a sandboxd
# that sets policies and reads events, and sandboxes that ask.  In a network namespace of its own; no packet leaves it.
import array, fcntl, os, random, select, socket, struct, subprocess, sys, tempfile, threading, time

from tap_lib import done, ok, skip, tap, until

build = os.environ.get("top_builddir", ".")
LISTEN = "169.254.1.1"
PORT = 5300
R1, R2 = "198.51.100.53", "198.51.100.54"
OK, OTH = "198.51.100.10", "198.51.100.11"
HOST6 = "2001:db8:53::1"
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
A, NS, CNAME, SOA, NULL, TXT, AAAA, HTTPS, AXFR, ANY = 1, 2, 5, 6, 10, 16, 28, 65, 252, 255


def own_namespace(script):
    """starts the script again inside of a fresh network namespace with the addresses of the tests"""
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root")
        sys.exit(0)
    if "DNSD_TEST_INSIDE" not in os.environ:
        os.environ["DNSD_TEST_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", "--", sys.executable, os.path.abspath(script)] + sys.argv[1:])
    subprocess.check_call(["ip", "link", "set", "lo", "up"])
    for a in (R1, R2, LISTEN, "203.0.113.99", "10.213.0.2", "10.213.0.3", "10.213.0.4", "10.213.0.5", "10.213.0.6", "10.213.0.7"):
        subprocess.check_call(["ip", "addr", "add", a + "/32", "dev", "lo"])
    for a in (HOST6, "2001:db8:53::99", "fd53:4258:0:d5::ad5:2", "fd53:4258:0:d5::ad5:6"):
        subprocess.check_call(["ip", "addr", "add", a + "/128", "dev", "lo"])


# ---- messages ----


def wire(name):
    return b"".join(bytes([len(l)]) + l.encode() for l in name.split(".") if l) + b"\0"


def opt(size=1232, version=0, options=b""):
    return b"\0" + struct.pack("!HHBBHH", 41, size, 0, version, 0, len(options)) + options


def question(name, qtype=A, qid=None, edns=None, qclass=1, flags=0x0100):
    extra = b"" if edns is None else edns if isinstance(edns, bytes) else opt(edns)
    qid = random.randrange(65536) if qid is None else qid
    return struct.pack("!HHHHHH", qid, flags, 1, 0, 0, 1 if extra else 0) + wire(name) + struct.pack("!HH", qtype, qclass) + extra


def ip4(text):
    return struct.unpack("!I", socket.inet_aton(text))[0]


def rr(owner, qtype, data, ttl=60, qclass=1):
    return owner + struct.pack("!HHIH", qtype, qclass, ttl, len(data)) + data


def a_rr(addr, ttl=60, owner=b"\xc0\x0c"):
    return rr(owner, A, socket.inet_aton(addr), ttl)


def read_name(m, at):
    out, jumped = [], None
    while True:
        n = m[at]
        if n & 0xC0:
            jumped = at + 2 if jumped is None else jumped
            at = (n & 0x3F) << 8 | m[at + 1]
        elif n:
            out.append(m[at + 1:at + 1 + n].decode("latin1"))
            at += n + 1
        else:
            return ".".join(out), at + 1 if jumped is None else jumped


class Message:
    """an answer, read"""

    def __init__(self, raw):
        self.raw = raw
        self.qid, flags, qd, *counts = struct.unpack("!HHHHHH", raw[:12])
        self.rcode, self.tc, self.ra, self.aa, self.ad = flags & 15, bool(flags & 0x200), bool(flags & 0x80), bool(flags & 0x400), bool(flags & 0x20)
        at, self.qname = 12, None
        for _ in range(qd):
            self.qname, at = read_name(raw, at)
            at += 4
        self.sections = []
        for n in counts:
            self.sections.append([])
            for _ in range(n):
                owner, at = read_name(raw, at)
                qtype, qclass, ttl, length = struct.unpack("!HHIH", raw[at:at + 10])
                self.sections[-1].append((owner, qtype, ttl, raw[at + 10:at + 10 + length]))
                at += 10 + length
        self.answers, self.authority, self.additional = self.sections
        self.opt = [r for r in self.additional if r[1] == 41]
        self.ede = None
        if self.opt and len(self.opt[0][3]) >= 6 and self.opt[0][3][:2] == b"\0\x0f":
            self.ede = struct.unpack("!H", self.opt[0][3][4:6])[0]
        if self.opt:
            self.rcode |= (self.opt[0][2] >> 24) << 4

    def addrs6(self):
        return [socket.inet_ntop(socket.AF_INET6, r[3]) for r in self.answers if r[1] == AAAA]

    def addrs(self):
        return [socket.inet_ntoa(r[3]) for r in self.answers if r[1] == A]

    def ttls(self):
        return [r[2] for r in self.answers]


# ---- name servers ----


class Query:
    def __init__(self, raw):
        self.raw = raw
        self.name, end = read_name(raw, 12)
        self.end = end + 4
        self.type = struct.unpack("!H", raw[end:end + 2])[0]
        self.lower = self.name.lower()

    def answer(self, answers=b"", n=None, rcode=0, tc=False, authority=b"", n_authority=0, additional=b"", n_additional=0, qid=None, name=None):
        n = (1 if answers else 0) if n is None else n
        q = self.raw[12:self.end] if name is None else name + self.raw[self.end - 4:self.end]
        head = struct.pack("!HHHHH", 0x8180 | rcode | (0x200 if tc else 0), 1, n, n_authority, n_additional)
        return (self.raw[:2] if qid is None else struct.pack("!H", qid)) + head + q + answers + authority + additional


class Upstream(threading.Thread):
    """behaviour(query, over_tcp) gives a list of messages, or of (seconds to wait, message)"""

    def __init__(self, addr, behaviour):
        super().__init__(daemon=True)
        self.behaviour, self.addr, self.seen, self.silent = behaviour, addr, [], False
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.udp.bind((addr, 53))
        self.tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((addr, 53))
        self.tcp.listen(64)
        self.start()
        threading.Thread(target=self.serve_tcp, daemon=True).start()

    def names(self):
        return [q.lower for q, _, _ in self.seen]

    def bytes_of(self, suffix):
        return sum(len(q.raw) for q, _, _ in self.seen if q.lower.endswith(suffix))

    def run(self):
        while True:
            data, peer = self.udp.recvfrom(4096)
            q = Query(data)
            self.seen.append((q, peer[1], time.monotonic()))
            if self.silent:
                continue
            for m in self.behaviour(q, False):
                if isinstance(m, tuple):
                    threading.Timer(m[0], self.udp.sendto, (m[1], peer)).start()
                else:
                    self.udp.sendto(m, peer)

    def serve_tcp(self):
        while True:
            conn, peer = self.tcp.accept()
            threading.Thread(target=self.one_tcp, args=(conn, peer), daemon=True).start()

    def one_tcp(self, conn, peer):
        length = conn.recv(2)
        if len(length) < 2:
            return
        q = Query(conn.recv(struct.unpack("!H", length)[0]))
        self.seen.append((q, peer[1], time.monotonic()))
        for m in [] if self.silent else self.behaviour(q, True):
            if isinstance(m, tuple):
                time.sleep(m[0])
                m = m[1]
            conn.sendall(struct.pack("!H", len(m)) + m)
        conn.close()


# ---- broker ----

HEAD = "=IIQII"
BROKER_MAGIC, EGRESS_MAGIC = 0x314B5242, 0x31524745
PIN, UNPIN = 18, 19


def reply(magic, op, tag, body):
    return struct.pack(HEAD, magic, op, tag, 24 + len(body), 0) + body


def ip6_text(two):
    """an address as the messages have it: two numbers of 64 bits"""
    return socket.inet_ntop(socket.AF_INET6, struct.pack("!QQ", *struct.unpack("=QQ", two)))


class Broker(threading.Thread):
    """status and delay of PIN and UNPIN can be set; pins holds what is open as {(slot, address, ports): (lease_ms, when)}"""

    def __init__(self, run, port=PORT, addr="0.0.0.0", version=0, with_gate=False):
        super().__init__(daemon=True)
        self.run_dir, self.port, self.addr = run, port, addr
        self.pin_status, self.pin_delay, self.unpin_delay, self.hold, self.ipv6 = 0, 0, 0, False, False
        self.dies_at_unpin, self.not_done = False, []  # once, before it has done it
        self.late = None  # what is waited for, once, before anything behind the sockets is read
        self.version, self.hellos = version, 0  # version 0: that of who asks
        self.with_gate, self.gate, self.gate_up = with_gate, None, threading.Event()
        self.pins, self.log, self.held, self.flows = {}, [], [], []  # flows: (slot, generation, address as a number)
        self.asked_flows = 0
        self.ready = threading.Event()
        self.log_socket, self.log_peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = run + "/broker.sock"
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(4)
        self.conn = None
        self.start()

    def sockets6(self):
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        for s in udp, tcp:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if s is udp:
                s.setsockopt(socket.IPPROTO_IPV6, 49, 1)  # IPV6_RECVPKTINFO
            s.bind(("::", self.port))
        tcp.listen(64)
        return udp, tcp

    def sockets(self):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        udp.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.setsockopt(socket.SOL_SOCKET, 33, 1 << 21)  # SO_RCVBUFFORCE
        udp.bind((self.addr, self.port))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        tcp.bind((self.addr, self.port))
        tcp.listen(64)
        return udp, tcp

    def run(self):
        while True:
            try:
                self.conn, _ = self.listener.accept()
            except OSError:
                return
            while True:
                try:
                    m = self.conn.recv(4096)
                except OSError:
                    m = b""
                if not m:
                    break
                self.message(m)

    def send(self, m, fds=()):
        try:
            self.conn.sendmsg([m], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        except OSError:
            pass

    def message(self, m):
        magic, op, tag, size, _ = struct.unpack(HEAD, m[:24])
        good = struct.pack("=ii", 0, 0) + bytes(240)
        if op == 1:
            self.hellos += 1
            version = self.version or struct.unpack("=I", m[24:28])[0]
            self.send(reply(magic, op, tag, struct.pack("=iI", 0, version) + bytes(16 + 32 + 32 + 240)))
        elif op == 16:
            all = self.sockets() + (self.sockets6() if self.ipv6 else ())
            self.send(reply(magic, op, tag, good), [s.fileno() for s in all])
            late, self.late = self.late, None
            if late:
                late()
            self.ready.set()
        elif op == 20:
            self.send(reply(magic, op, tag, good), (self.log_peer.fileno(),))
        elif op == 29 and self.with_gate:
            self.gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            self.gate.setblocking(True)
            self.gate.settimeout(20)
            self.send(reply(magic, op, tag, good), (theirs.fileno(),))
            theirs.close()
            self.gate_up.set()
        elif op == 21:
            self.asked_flows += 1
            body = b"".join(struct.pack("=IIII16x", *f, 0) for f in self.flows)
            self.send(reply(magic, op, tag, struct.pack("=iiII", 0, 0, len(self.flows), 1) + body.ljust(64 * 32, b"\0")))
        elif op in (PIN, UNPIN):
            slot, gen, n, n_ports, lease, six = struct.unpack("=IIIIII", m[24:48])
            if six:
                addrs = [ip6_text(m[48 + 16 * i:64 + 16 * i]) for i in range(n)]
            else:
                addrs = [socket.inet_ntoa(struct.pack("!I", x)) for x in struct.unpack(f"={n}I", m[48:48 + 4 * n])]
            ports = struct.unpack(f"={n_ports}H", m[304:304 + 2 * n_ports])
            good_form = size == 336 == len(m) and six <= 1 and 1 <= n <= (16 if six else 64) and n_ports <= 16
            if op == UNPIN and self.dies_at_unpin:
                self.dies_at_unpin, self.not_done = False, [(slot, a, ports) for a in addrs]
                self.ready.clear()
                self.conn.shutdown(socket.SHUT_RDWR)
                return
            self.log.append((op, slot, addrs, ports, lease, time.monotonic(), good_form))
            status = self.pin_status if op == PIN else 0
            if not status:
                for a in addrs:
                    if op == PIN:
                        self.pins[slot, a, ports] = (lease, time.monotonic())
                    else:
                        self.pins.pop((slot, a, ports), None)
            answer = reply(magic, op, tag, struct.pack("=ii", status, 0) + bytes(240))
            wait = self.pin_delay if op == PIN else self.unpin_delay
            if self.hold:
                self.held.append(answer)
            elif wait:
                threading.Timer(wait, self.send, (answer,)).start()
            else:
                self.send(answer)

    def release(self):
        self.hold = False
        for m in self.held:
            self.send(m)
        self.held = []

    def open_for(self, slot):
        return {a for s, a, _ in self.pins if s == slot}

    def pinned(self, addr):
        return [l for l in self.log if l[0] == PIN and addr in l[2]]

    def die(self):
        for s in self.listener, self.conn:
            try:
                s.shutdown(socket.SHUT_RDWR)  # a close() alone waits for who reads
            except (OSError, AttributeError):
                pass
        self.listener.close()
        if self.conn:
            self.conn.close()


# ---- sandboxd ----

KINDS = ["none", "dns_allowed", "dns_denied", "dns_failed", "ip_denied", "rebind", "tunnel", "rate_limited", "sni_denied", "sni_unmatched"]
REASONS = ["none", "rule", "default", "metadata", "host", "sandbox", "private", "port", "dot", "doh", "quic", "protocol", "no_lease",
           "qtype", "limit", "upstream", "no_sni", "not_tls", "bad_hello"]
EVENT = struct.Struct("=IIQIIII16sqIIIIIHBBHHI8IQ256s120s")


class Event:
    def __init__(self, m):
        f = EVENT.unpack(m)
        self.slot, self.generation, self.id = f[5], f[6], f[7]
        self.kind, self.reason, self.rule, self.count = KINDS[f[9]], REASONS[f[10]], f[11], f[12]
        self.addr, self.port, self.protocol = socket.inet_ntoa(struct.pack("!I", f[13])), f[14], f[15]
        self.qtype, self.rcode = f[17], f[18]
        self.addrs6 = [ip6_text(struct.pack("=8I", *f[20:28])[16 * i:16 * i + 16]) for i in range(2)]
        self.addrs = [socket.inet_ntoa(struct.pack("!I", x)) for x in f[20:20 + min(f[19], 8)]]
        self.policy, self.name, self.text = f[28], f[29].split(b"\0")[0].decode(), f[30].split(b"\0")[0].decode()
        self.when = time.monotonic()

    def __repr__(self):
        return f"<{self.kind} {self.reason} slot {self.slot} {self.name!r} x{self.count} rule {self.rule} {self.text}>"


def rule(text):
    """+name, -*.name, +10.0.0.0/8, with :port or :first-last,... behind it"""
    target, _, ports = text[1:].partition(":")
    flags = 1 if text[0] == "+" else 0
    if text.count(":") > 1:
        target = text[1:]
        return struct.pack("=BBBB", 4, flags, 0, 128) + socket.inet_pton(socket.AF_INET6, target) + bytes([len(target)]) + target.encode()
    pairs = [tuple(int(x) for x in (p.split("-") * 2)[:2]) for p in ports.split(",") if p]
    head = b""
    if target[0].isdigit():
        addr, _, bits = target.partition("/")
        body = struct.pack("=BBBB", 3, flags, len(pairs), int(bits or 32)) + socket.inet_aton(addr)
    else:
        name = target.lower().rstrip(".").encode("idna").decode()
        kind = 2 if name.startswith("*.") else 1
        name = name[2:] if kind == 2 else name
        body = struct.pack("=BBBBB", kind, flags, len(pairs), 0, len(name)) + name.encode()
    for p in pairs:
        body += struct.pack("=HH", *p)
    text = target.encode()
    return head + body + bytes([len(text)]) + text


class Sandboxd(threading.Thread):
    def __init__(self, run):
        super().__init__(daemon=True)
        path = run + "/policy.sock"
        if os.path.exists(path):
            os.unlink(path)
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        os.chmod(path, 0o666)
        self.listener.listen(4)
        self.conn, self.tag, self.events, self.replies = None, 0, [], {}
        self.changed, self.up, self.hello = threading.Condition(), threading.Event(), None
        self.generation = 0
        self.reading = True
        self.start()

    def run(self):
        while True:
            try:
                self.conn, _ = self.listener.accept()
            except OSError:
                return
            self.hello = self.conn.recv(4096)
            magic, kind, tag, size, _ = struct.unpack(HEAD, self.hello[:24])
            self.conn.send(reply(magic, 2, tag, struct.pack("=II", 1, 0)))
            self.up.set()
            while True:
                while not self.reading:
                    time.sleep(0.01)
                try:
                    m = self.conn.recv(65536)
                except OSError:
                    m = b""
                if not m:
                    break
                kind, tag = struct.unpack("=IQ", m[4:16])
                with self.changed:
                    if kind == 7:
                        self.events.append(Event(m))
                    else:
                        self.replies[tag] = m
                    self.changed.notify_all()
            self.up.clear()

    def send(self, kind, body, fds=()):
        self.tag += 1
        m = reply(EGRESS_MAGIC, kind, self.tag, body)
        self.conn.sendmsg([m], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
        return self.tag

    def wait(self, tag, seconds=30):
        with self.changed:
            self.changed.wait_for(lambda: tag in self.replies, seconds)
            return self.replies.pop(tag, None)

    def begin_set(self, slot, policy, addr=None, generation=1):
        """policy: "D +ok.test -x.test" """
        words = policy.split()
        rules = [rule(w) for w in words[1:]]
        body = b"".join(rules)
        flags = (1 if words[0] == "A" else 0) | (2 if words == ["A"] else 0)
        self.generation += 1
        fds = []
        if body:
            fd = os.memfd_create("rules", os.MFD_ALLOW_SEALING)
            os.write(fd, body)
            fcntl.fcntl(fd, 1033, 0x1 | 0x2 | 0x4 | 0x8)  # F_ADD_SEALS
            fds.append(fd)
        addr = addr or f"10.213.0.{slot}"
        tag = self.send(3, struct.pack("=II16sIIIIQ", slot, generation, bytes([slot]) * 16, ip4(addr), flags, len(rules), len(body), self.generation),
                        fds)
        for fd in fds:
            os.close(fd)
        return tag

    def set(self, slot, policy, **more):
        m = self.wait(self.begin_set(slot, policy, **more))
        return struct.unpack("=i", m[24:28])[0] if m else None

    def synced(self):
        self.send(5, b"")

    def drop(self, slot, generation=1):
        return self.wait(self.send(4, struct.pack("=II", slot, generation)))

    def counts(self):
        m = self.wait(self.send(10, b""))
        names = ("questions answered denied failed rate_limited forged pins pin_failures rebind_stripped tunnel_suspected packets_denied "
                 "cached leases upstream_usec_sum upstream_count events_lost events_held sni_allowed sni_denied sni_unmatched").split()
        return dict(zip(names, struct.unpack("=20Q", m[24:]))) if m else {}

    def pins_of(self, slot, name="", addr="0.0.0.0", generation=1):
        m = self.wait(self.send(8, struct.pack("=IIII256s16x", slot, generation, ip4(addr), 0, name.encode())))
        if not m:
            return None
        status, n = struct.unpack("=iI", m[24:32])
        out = []
        for i in range(n):
            a, lease, who = struct.unpack("=II256s", m[32 + i * 280:32 + i * 280 + 264])
            six = m[32 + i * 280 + 264:32 + (i + 1) * 280]
            out.append((socket.inet_ntoa(struct.pack("!I", a)) if a else ip6_text(six), lease, who.split(b"\0")[0].decode()))
        return out

    def find(self, seconds=20, **want):
        def match(e):
            return all(getattr(e, k) == v for k, v in want.items())

        with self.changed:
            self.changed.wait_for(lambda: any(match(e) for e in self.events), seconds)
            return [e for e in self.events if match(e)]

    def die(self):
        self.listener.close()
        if self.conn:
            self.conn.shutdown(socket.SHUT_RDWR)
            self.conn.close()
        os.unlink(self.path)


# ---- sandboxes ----


def sock_of(slot):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    s.bind((f"10.213.0.{slot}", 0))
    return s


def ask_raw(slot, msg, wait=20, to=LISTEN, source=None):
    s = sock_of(slot)
    s.settimeout(wait)
    s.sendto(msg, (to, PORT))
    try:
        data, peer = s.recvfrom(65536)
        if source is not None:
            source.append(peer[0])
        return data
    except socket.timeout:
        return b""
    finally:
        s.close()


def ask(slot, name, qtype=A, wait=20, **more):
    m = ask_raw(slot, question(name, qtype, **more), wait)
    return Message(m) if m else None


def tcp_ask(slot, messages, pieces=None, wait=20):
    s = socket.socket()
    s.bind((f"10.213.0.{slot}", 0))
    s.settimeout(wait)
    s.connect((LISTEN, PORT))
    data = b"".join(struct.pack("!H", len(m)) + m for m in messages)
    step = pieces or len(data)
    for i in range(0, len(data), step):
        s.sendall(data[i:i + step])
        if pieces:
            time.sleep(0.002)
    got, buf = [], b""
    try:
        while len(got) < len(messages):
            part = s.recv(65536)
            if not part:
                break
            buf += part
            while len(buf) >= 2 and len(buf) >= 2 + struct.unpack("!H", buf[:2])[0]:
                n = struct.unpack("!H", buf[:2])[0]
                got.append(Message(buf[2:2 + n]))
                buf = buf[2 + n:]
    except (socket.timeout, ConnectionError):
        pass
    s.close()
    return got


class Dnsd:
    def __init__(self, run, more=""):
        self.run = run
        self.config = run + "/sandboxd.toml"
        with open(self.config, "w") as f:
            f.write(f'[network]\nsubnet = "10.213.0.0/16"\n[dns]\nupstreams = ["{R1}", "{R2}"]\n{more}\n[isolation]\ndnsd_uid = 1899000123\n')
        os.chmod(self.config, 0o644)
        self.start()

    def start(self):
        self.log = open(self.run + "/log", "a")
        self.child = subprocess.Popen([build + "/sandbox-dnsd", "--config", self.config, "--run-dir", self.run], stderr=self.log)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        self.child.terminate()
        return self.child.wait(30)

    def cpu(self):
        f = open(f"/proc/{self.child.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def run_dir():
    d = tempfile.mkdtemp(prefix="dnsd.")
    os.chmod(d, 0o755)
    return d
