# SPDX-License-Identifier: Apache-2.0
# See egress_holes.sh.
import os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import egress_lib as lib
from dnsd_lib import wire
from egress_lib import *

# One line for each packet that arrives: source, target, protocol, its bytes as hex.
LISTEN = r"""
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
out = open(sys.argv[1], "a", buffering=1)
print("up", flush=True)
while True:
    p, where = s.recvfrom(65536)
    if where[0] == "lo" or where[2] == 4:
        continue
    if where[1] == 0x800:
        out.write(f"{socket.inet_ntoa(p[12:16])} {socket.inet_ntoa(p[16:20])} {p[9]} {p.hex()}\n")
    else:
        out.write(f"- - {where[1]:#x} {p.hex()}\n")
"""

# In the network namespace of a sandbox: each line of hex on stdin is a frame without its addresses.
FRAMES = r"""
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 3))
for line in sys.stdin:
    kind, data = line.split()
    try:
        s.send(b"\x02\x53\x42\x58\x00\x01" + s.getsockname()[4] + bytes.fromhex(kind) + bytes.fromhex(data))
    except OSError as e:
        print(line[:40], e)
"""


def listener(namespace, name):
    path = f"{run}/arrived-{name}"
    p = subprocess.Popen([*namespace, sys.executable, "-c", LISTEN, path], stdout=subprocess.PIPE)
    p.stdout.readline()
    return p, path


def arrived(path, what):
    """lines of packets that hold @what, a text in their bytes, or whose fields match the function"""
    with open(path) as f:
        lines = [l.split() for l in f if l.endswith("\n")]
    return [l for l in lines if (what(l) if callable(what) else what.encode().hex() in l[3])]


# ---- packets ----

def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(src, dst, proto, body, frag=0, options=b"", ident=1, ttl=64):
    options += bytes(-len(options) % 4)
    head = struct.pack("!BBHHHBBH4s4s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(body), ident, frag, ttl, proto, 0, socket.inet_aton(src),
                       socket.inet_aton(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def udp(src, dst, sport, dport, data):
    body = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!HH", 17, len(body))
    return body[:6] + struct.pack("!H", checksum(pseudo + body) or 0xFFFF) + body[8:]


def tcp(src, dst, sport, dport, flags, data=b"", seq=1, ack=0):
    body = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 65535, 0, 0) + data
    pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!HH", 6, len(body))
    return body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]


def icmp(kind, code, rest, data):
    body = struct.pack("!BBH", kind, code, 0) + rest + data
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


class Sandbox:
    def __init__(self, policy):
        self.id = create(policy)
        self.addr = sh(self.id, "ip -o -4 addr show dev eth0 | awk '{sub(\"/.*\", \"\", $4); print $4}'").strip()
        self.ns = net_of(self.addr)

    def send(self, frames):
        """@frames: (ethertype, bytes) each sent twice, as what is lost once may be luck"""
        text = "".join(f"{kind:04x} {data.hex()}\n" for kind, data in frames) * 2
        done = subprocess.run([*self.ns, sys.executable, "-c", FRAMES], input=text, capture_output=True, text=True, timeout=60)
        if done.stdout or done.stderr:
            print("# frames:", (done.stdout + done.stderr)[:300])


marker = 0


def settled(box, path):
    """until a packet that may pass has arrived: those that were sent before it would be there too"""
    global marker
    marker += 1
    text = f"MARK{marker:06}"

    def there():
        box.send([(0x800, ip(box.addr, OK, 17, udp(box.addr, OK, 40000 + marker, 9000, text.encode())))])
        return until(lambda: arrived(path, text), 2)

    return until(there, 40)


# ---- the suite ----

def frames_out(a, free, world_log):
    """what must not be seen outside, by its name; each carries the name"""
    rows = []

    def row(name, data, kind=0x800):
        rows.append((name, kind, data))

    def to(name, dst, **kw):
        row(name, ip(a.addr, dst, 17, udp(a.addr, dst, 41000, 9000, name.encode()), **kw))

    to("closed address", OTH)
    for what, dst in (("this-network", "0.0.0.0"), ("broadcast", "255.255.255.255"), ("net-broadcast", "198.51.100.255"), ("multicast", "224.0.0.251"),
                      ("ssdp", "239.255.255.250"), ("reserved", "240.0.0.1"), ("6to4-relay", "192.88.99.1"), ("cgnat", "100.64.1.1"),
                      ("metadata", "169.254.169.254"), ("private", "10.9.0.5"), ("private-192", "192.168.7.7"), ("benchmark-net", "198.18.0.1"), ("loopback", "127.0.0.1"),
                      ("the-host", "198.51.100.1")):
        to(what, dst)
    # Options and fragments, towards what is open too: an option may name another hop, a fragment has no ports.
    lsrr = b"\x83\x07\x04" + socket.inet_aton(OTH)
    ssrr = b"\x89\x07\x04" + socket.inet_aton(OTH)
    for what, options in (("loose-route", lsrr), ("strict-route", ssrr), ("record-route", b"\x07\x07\x04" + bytes(4)), ("timestamp", b"\x44\x08\x05\0" + bytes(4)),
                          ("router-alert", b"\x94\x04\0\0"), ("unknown-option", b"\x99\x04\0\0"), ("end-of-list", b"\0\0\0\0")):
        to("option " + what, OK, options=options)
    whole = udp(a.addr, OK, 41000, 9000, b"fragmented " * 4)
    for what, pieces in (("first-only", ((0, 0x2000, whole[:24]),)), ("in-order", ((0, 0x2000, whole[:24]), (3, 0, whole[24:]))),
                         ("backwards", ((3, 0, whole[24:]), (0, 0x2000, whole[:24]))), ("overlapping", ((0, 0x2000, whole[:24]), (1, 0x2000, whole[:16]), (3, 0, whole[24:]))),
                         ("tiny", ((0, 0x2000, whole[:8]), (1, 0, whole[8:])))):
        for offset, more, data in pieces:
            row("fragmented ", ip(a.addr, OK, 17, data, frag=more | offset, ident=700 + len(rows)))
    for proto in (0, 2, 4, 41, 47, 50, 51, 33, 88, 89, 94, 103, 112, 115, 132, 136, 137, 253, 255):
        for dst in (OK, OTH):
            name = f"protocol {proto:03}"
            row(name, ip(a.addr, dst, proto, (b"\0\0\0\0" + name.encode()) * 2))
    for src in (free.addr, OK, OTH, "127.0.0.1", "0.0.0.0", "169.254.1.1", "198.51.100.1", "255.255.255.255", "224.0.0.1"):
        name = "source " + src
        row(name, ip(src, OK, 17, udp(src, OK, 41000, 9000, name.encode())))
    for sport, dport in ((0, 9000), (41000, 0), (0, 0)):
        name = f"ports {sport} {dport}"
        row(name, ip(a.addr, OTH, 17, udp(a.addr, OTH, sport, dport, name.encode())))
        row(name, ip(a.addr, OTH, 6, tcp(a.addr, OTH, sport, dport, 2, name.encode())))
    for flags in (0, 1, 4, 0x10, 0x12, 0x14, 0x18, 0x29, 0x3F, 0x06, 0xC2):
        name = f"tcp flags {flags:02x}"
        row(name, ip(a.addr, OTH, 6, tcp(a.addr, OTH, 41001, 80, flags, name.encode())))
    for kind, code in ((0, 0), (3, 1), (3, 4), (4, 0), (5, 1), (9, 0), (10, 0), (11, 0), (12, 0), (13, 0), (15, 0), (17, 0), (30, 0), (40, 0), (42, 0)):
        name = f"icmp {kind} {code}"
        inner = ip(OTH, a.addr, 17, udp(OTH, a.addr, 9000, 41000, name.encode()))
        row(name, ip(a.addr, OK, 1, icmp(kind, code, b"\0\0\2\x40", inner)))
        row(name, ip(a.addr, OTH, 1, icmp(kind, code, b"\0\0\2\x40", inner)))
    to("no hops left", OTH, ttl=1)
    bad = ip(a.addr, OK, 17, udp(a.addr, OK, 41000, 9000, b"header sum wrong"))
    row("header sum wrong", bad[:10] + b"\xde\xad" + bad[12:])
    row("length lies", ip(a.addr, OTH, 17, struct.pack("!HHHH", 41000, 9000, 9, 0) + b"length lies"))
    six = bytes.fromhex("60000000") + struct.pack("!HBB", 20, 17, 64) + socket.inet_pton(socket.AF_INET6, "fe80::1") + socket.inet_pton(socket.AF_INET6, "ff02::1")
    row("ipv6 frame", six + struct.pack("!HHHH", 1, 9000, 20, 0) + b"ipv6 frame..", 0x86DD)
    tagged = ip(a.addr, OK, 17, udp(a.addr, OK, 41000, 9000, b"tagged frame"))
    row("tagged frame", b"\0\1\x08\0" + tagged, 0x8100)
    row("tagged frame", b"\0\1\x08\0" + tagged, 0x88A8)
    row("odd ethertype", b"odd ethertype" * 4, 0x9000)
    row("mpls frame", b"\0\1\1\x40" + ip(a.addr, OK, 17, udp(a.addr, OK, 41000, 9000, b"mpls frame")), 0x8847)
    a.send([(kind, data) for _, kind, data in rows])
    # A sandbox that may reach everybody may not by other protocols either.
    free.send([(0x800, ip(free.addr, OK, p, b"open protocol %03d" % p)) for p in (2, 4, 41, 47, 50, 132, 136)])
    ok(settled(a, world_log), "an allowed packet gets out behind them all")
    for name in sorted({r[0] for r in rows}):
        got = arrived(world_log, name)
        ok(not got, f"not outside: {name.strip()}", got[:2])
    got = arrived(world_log, "open protocol")
    ok(not got, "not outside: other protocols, with all addresses open", got[:2])
    got = arrived(world_log, lambda l: l[2].startswith("0x") and l[2] not in ("0x806", "0x86dd"))
    ok(not got, "nothing outside that is no IP", got[:2])


def arp_games(a, b, free):
    """nobody listens to what a sandbox says about others' addresses"""
    neighbours = sh(b.id, "ip neigh"), sh(free.id, "ip neigh")
    victim = listener(free.ns, "victim")
    for sender in (b.addr, free.addr, "169.254.1.1", OK):
        for op, target in ((1, free.addr), (2, free.addr), (1, sender), (2, "169.254.1.1")):
            a.send([(0x806, struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, op, b"\2\0\0\0\0\7", socket.inet_aton(sender), b"\xff" * 6, socket.inet_aton(target)) + bytes(18))])
    a.send([(0x800, ip(a.addr, free.addr, 17, udp(a.addr, free.addr, 41000, 9000, b"to a neighbour"))),
            (0x800, ip(a.addr, free.addr, 1, icmp(8, 0, b"\0\1\0\1", b"to a neighbour"))),
            (0x800, ip(a.addr, free.addr, 6, tcp(a.addr, free.addr, 41000, 44772, 2, b"to a neighbour")))])
    out = sh(free.id, "bash -c 'exec 3<>/dev/tcp/198.51.100.10/80 && echo GET >&3 && head -c 12 <&3'")
    ok("HTTP/1.0 200" in out, "a neighbour is reached and reaches as before", out)
    got = arrived(victim[1], "to a neighbour")
    ok(not got, "not at a neighbour: UDP, a ping, a connection", got[:2])
    got = arrived(victim[1], lambda l: l[2] == "0x806")
    ok(not got, "not at a neighbour: ARP", got[:2])
    ok((sh(b.id, "ip neigh"), sh(free.id, "ip neigh")) == neighbours, "no table of neighbours has changed", neighbours)
    victim[0].kill()


def others_errors(a, free, world_log):
    """An ICMP error is let through with the flow that it is about.  Whose flow that is, and who says so, must be one."""
    sh(free.id, f"python3 -c \"import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 42001)); s.connect(('{OK}', 9000)); s.send(b'first'); s.recv(10)\"")
    sh(a.id, "getent ahostsv4 ok.test >/dev/null")
    # of its own flow, to another address than the flow's
    a.send([(0x800, ip(a.addr, OK, 17, udp(a.addr, OK, 42002, 9000, b"own flow")))])
    until(lambda: arrived(world_log, "own flow"))
    rows = [("own flow, elsewhere", a, ip(a.addr, OTH, 1, icmp(3, 1, bytes(4), ip(OK, a.addr, 17, udp(OK, a.addr, 9000, 42002, b"own flow, elsewhere"))))),
            ("flow of another", a, ip(a.addr, OK, 1, icmp(3, 1, bytes(4), ip(OK, free.addr, 17, udp(OK, free.addr, 9000, 42001, b"flow of another"))))),
            ("flow of another, too big", a, ip(a.addr, OK, 1, icmp(3, 4, b"\0\0\2\x40", ip(OK, free.addr, 17, udp(OK, free.addr, 9000, 42001, b"flow of another, too big"))))),
            ("at the neighbour", a, ip(a.addr, free.addr, 1, icmp(3, 4, b"\0\0\2\x40", ip(free.addr, OK, 17, udp(free.addr, OK, 42001, 9000, b"at the neighbour")))))]
    victim = listener(free.ns, "victim2")
    for _, box, data in rows:
        box.send([(0x800, data)])
    ok(settled(a, world_log), "an allowed packet gets out behind them")
    for name, _, _ in rows:
        got = arrived(world_log, name) + arrived(victim[1], name)
        ok(not got, f"an ICMP error gets nowhere: {name}", got[:1])

    def own_error():
        # the flow again, which may have been forgotten on a slow machine
        a.send([(0x800, ip(a.addr, OK, 17, udp(a.addr, OK, 42002, 9000, b"own flow"))),
                (0x800, ip(a.addr, OK, 1, icmp(3, 1, bytes(4), ip(OK, a.addr, 17, udp(OK, a.addr, 9000, 42002, b"own error")))))])
        return arrived(world_log, "own error")
    ok(until(own_error, 20), "one about a flow of its own reaches that flow's end")
    victim[0].kill()


# As any tenant may: what it reached is printed.
TENANT = r"""
import errno, os, socket, struct, sys
OK, OTH, OTHER = sys.argv[1:4]
def reach(name, dst, family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0, prepare=None, port=80):
    try:
        s = socket.socket(family, kind, proto)
        s.settimeout(1)
        if prepare: prepare(s)
        s.connect((dst, port))
        if kind == socket.SOCK_DGRAM:
            s.send(b"tenant " + name.encode())
            s.recv(100)
        print("reached", name, flush=True)
    except OSError as e:
        print("not", name, errno.errorcode.get(e.errno, e), flush=True)
D = socket.SOCK_DGRAM
reach("tcp", OTH)
for text in ("198.51.25611", "3325256715", "0306.063.0144.013", "0xc633640b", "198.51.100.011"):
    reach("spelled " + text, text)
reach("udp", OTH, kind=D, port=9000)
reach("mptcp", OTH, proto=262)
for proto, kind in ((132, socket.SOCK_STREAM), (132, socket.SOCK_SEQPACKET), (33, 6), (136, D), (47, 3), (50, 3), (1, 3), (255, 3)):
    reach(f"protocol {proto} {kind}", OK, kind=kind, proto=proto)
lsrr = b"\x83\x07\x04" + socket.inet_aton(OTH) + b"\0"
reach("source route", OK, prepare=lambda s: s.setsockopt(0, 4, lsrr))
reach("source route by udp", OK, kind=D, port=9000, prepare=lambda s: s.setsockopt(0, 4, lsrr))
reach("free bind", OK, kind=D, port=9000, prepare=lambda s: (s.setsockopt(0, 15, 1), s.bind((OTHER, 0))))
reach("transparent", OK, kind=D, port=9000, prepare=lambda s: (s.setsockopt(0, 19, 1), s.bind((OTHER, 0))))
reach("mark", OTH, prepare=lambda s: s.setsockopt(1, 36, 1))
reach("mark by udp", OTH, kind=D, port=9000, prepare=lambda s: s.setsockopt(1, 36, 2))
reach("priority", OTH, prepare=lambda s: s.setsockopt(1, 12, 6))
reach("tos", OTH, prepare=lambda s: s.setsockopt(0, 1, 0xff))
reach("broadcast", "255.255.255.255", kind=D, port=9000, prepare=lambda s: s.setsockopt(1, 6, 1))
reach("broadcast of the net", "198.51.100.255", kind=D, port=9000, prepare=lambda s: s.setsockopt(1, 6, 1))
reach("multicast", "224.0.0.251", kind=D, port=5353, prepare=lambda s: s.setsockopt(0, 35, struct.pack("4s4si", socket.inet_aton("224.0.0.251"), bytes(4), 0)))
reach("fast open", OTH, prepare=lambda s: s.sendto(b"tenant fast open", 0x20000000, (OTH, 80)))
reach("port 0", OTH, kind=D, port=0)
for dst in ("169.254.169.254", "10.9.0.5", "192.168.7.7", "100.64.1.1", "198.51.100.1", OTHER, "169.254.1.1", "0.0.0.1", "127.1.2.3"):
    reach("to " + dst, dst)
    reach("udp to " + dst, dst, kind=D, port=9000)
for dst in ("::ffff:" + OTH, "64:ff9b::" + OTH, "2002:c633:640b::1", "2001:0:c633:640b::1", "::" + OTH, "fe80::1", "ff02::1"):
    reach("ipv6 " + dst, dst, family=socket.AF_INET6)
# both ends open at once: the world does the same from its port 80
s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("", 43000)); s.settimeout(2)
try:
    s.connect((OTH, 43001)); print("reached simultaneous open")
except OSError as e: print("not simultaneous open", e)
# from the name server's port, and answers to questions that nobody asked
for sport in (53, 67, 123, 853):
    try:
        s = socket.socket(2, D); s.bind(("", sport)); s.settimeout(1); s.sendto(b"tenant source port", (OTH, 9000)); s.recv(10); print("reached from port", sport)
    except OSError as e: print("not from port", sport, e)
print("end", flush=True)
"""


# As uid 0 of a sandbox: what it may do to its own network is nothing.  Prints what it can.
POWERS = r"""
import ctypes, fcntl, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(f, *args):
    r = f(*args)
    if r < 0: raise OSError(ctypes.get_errno(), "")
    return r
def attempt(name, f):
    try:
        f()
        print("can", name, flush=True)
    except OSError: pass
def family(f, kind, proto):
    attempt(f"make a socket {f} {kind} {proto}", lambda: socket.socket(f, kind, proto))
for f, kind, proto in ((17, 3, 0x300), (17, 2, 0x300), (2, 10, 0), (40, 1, 0), (44, 3, 0), (15, 3, 2), (24, 2, 0), (29, 3, 1), (30, 5, 0), (38, 5, 0), (43, 1, 0), (28, 3, 0),
                       (16, 3, 4), (16, 3, 6), (16, 3, 12), (16, 3, 16), (2, 3, 6), (2, 3, 17), (10, 3, 58)):
    family(f, kind, proto)
for name, flags in (("network", 0x40000000), ("user", 0x10000000), ("user and network", 0x50000000)):
    attempt("a namespace of its own: " + name, lambda: call(libc.unshare, flags))
for pid in ("1", "self"):
    attempt("enter the network namespace of " + pid, lambda: call(libc.setns, os.open(f"/proc/{pid}/ns/net", os.O_RDONLY), 0))
def netlink(kind, flags, body):
    s = socket.socket(16, 3, 0)
    s.settimeout(5)
    s.send(struct.pack("=IHHII", 16 + len(body), kind, flags | 5, 1, 0) + body)
    code = struct.unpack("=i", s.recv(4096)[16:20])[0]
    if code: raise OSError(-code, "")
eth0 = socket.if_nametoindex("eth0")
def attr(kind, data): return struct.pack("=HH", 4 + len(data), kind) + data
attempt("add a route", lambda: netlink(24, 0x600, struct.pack("=8BI", 2, 32, 0, 0, 254, 4, 253, 1, 0) + attr(1, bytes([198, 51, 100, 11])) + attr(4, struct.pack("=I", eth0))))
attempt("add an address", lambda: netlink(20, 0x600, struct.pack("=4BI", 2, 32, 0, 0, eth0) + attr(2, bytes([198, 51, 100, 11])) + attr(1, bytes([198, 51, 100, 11]))))
attempt("add a neighbour", lambda: netlink(28, 0x600, struct.pack("=BBHiHBB", 2, 0, 0, eth0, 0x80, 0, 0) + attr(1, bytes([169, 254, 1, 9])) + attr(2, b"\2\0\0\0\0\1")))
attempt("add a link", lambda: netlink(16, 0x600, struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0) + attr(18, attr(1, b"veth"))))
attempt("add a rule", lambda: netlink(32, 0x600, struct.pack("=12B", 2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0)))
s = socket.socket()
addr = struct.pack("=HH4s8x", 2, 0, bytes([198, 51, 100, 11]))
attempt("set its address", lambda: fcntl.ioctl(s, 0x8916, b"eth0".ljust(16, b"\0") + addr))
attempt("set its hardware address", lambda: fcntl.ioctl(s, 0x8924, b"eth0".ljust(16, b"\0") + struct.pack("=H6s8x", 1, b"\2\0\0\0\0\1")))
attempt("take its interface down", lambda: fcntl.ioctl(s, 0x8914, b"eth0".ljust(16, b"\0") + struct.pack("=H", 0) + bytes(14)))
for key in ("conf/all/route_localnet", "conf/eth0/accept_source_route", "ip_forward", "conf/all/arp_accept", "ip_nonlocal_bind", "ip_unprivileged_port_start"):
    attempt("write " + key, lambda: open("/proc/sys/net/ipv4/" + key, "w").write("1"))
for name, option, value in (("SO_MARK", (1, 36), 83), ("IP_TRANSPARENT", (0, 19), 1), ("SO_RCVBUFFORCE", (1, 33), 1 << 24), ("SO_PRIORITY 7", (1, 12), 7), ("TCP_REPAIR", (6, 19), 1)):
    attempt("set " + name, lambda: s.setsockopt(*option, value))
attempt("make an io_uring", lambda: call(libc.syscall, 425, 8, ctypes.create_string_buffer(120)))
program, licence = ctypes.create_string_buffer(struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)), ctypes.create_string_buffer(b"GPL")
load = ctypes.create_string_buffer(struct.pack("=IIQQ", 1, 2, ctypes.addressof(program), ctypes.addressof(licence)) + bytes(100))
attempt("load a BPF program", lambda: call(libc.syscall, 321, 5, load, 72))
group = struct.pack("4s4s", bytes([239, 1, 2, 3]), bytes(4))
try: socket.socket(2, 2).setsockopt(0, 35, group)
except OSError: pass
lo = socket.socket(); lo.settimeout(1)
def by_lo():
    lo.setsockopt(1, 25, b"lo\0"); lo.connect(("198.51.100.11", 80))
attempt("reach the closed address by lo", by_lo)
print("end as", os.getuid())
"""


def as_root(a, b, world_log):
    out = sh(a.id, f"python3 - <<'END'\n{POWERS}\nEND", timeout=60).strip().split("\n")
    ok(out == ["end as 0"], "uid 0 inside makes no raw, packet, vsock or netfilter socket, no namespace, route, address, link or BPF program", out)
    got = arrived(world_log, lambda l: l[2] == "2" and "ef010203" in l[3])
    ok(not got, "that it joined a group is not seen outside", got)
    listen = "import socket\ns = socket.socket(1); s.bind(b'\\0egress-hole'); s.listen(); print('up', flush=True)\nwhile True: s.accept()[0].send(b'here')"
    ask = "import socket\ns = socket.socket(1); s.settimeout(5)\ntry: s.connect(b'\\0egress-hole'); print(s.recv(9))\nexcept OSError as e: print(type(e).__name__)"
    sh(b.id, f"setsid timeout 120 python3 -c \"{listen}\" >/tmp/up 2>&1 </dev/null & for i in $(seq 200); do grep -q up /tmp/up && break; sleep 0.05; done")
    got = [sh(box.id, f'python3 -c "{ask}"').strip() for box in (b, a)]
    ok(got == ["b'here'", "ConnectionRefusedError"], "an abstract Unix socket of one sandbox is not there for another", got)


def as_tenant(a, free, world_log):
    opener = subprocess.Popen(["nsenter", "-t", world, "-n", "--", sys.executable, "-c", f"""
import socket, time
for _ in range(100):
    s = socket.socket(); s.setsockopt(1, 2, 1); s.bind(("{OTH}", 43001)); s.setblocking(False)
    try: s.connect(("198.51.100.1", 43000))
    except OSError: pass
    time.sleep(0.05); s.close()
"""])
    out = sh(a.id, f"python3 - {OK} {OTH} {free.addr} <<'END'\n{TENANT}\nEND", timeout=120)
    opener.kill()
    lines = out.split("\n")
    ok(any(l.startswith("end") for l in lines), "a tenant has tried all", out[-300:])
    reached = [l for l in lines if l.startswith("reached")]
    # UDP-Lite, SCTP and DCCP sockets may be made where the kernel has them; they reach nobody.
    ok(not reached, "and reached nobody", reached)
    got = arrived(world_log, lambda l: l[1] == OTH and l[0] == "198.51.100.1" and "74656e616e74" in l[3])
    ok(not got, "nothing of it is seen outside", got[:2])


# ---- names ----

flips = []


def zone(name, qtype):
    """ADDRESS-with-dashes.z.test has that address; c- before it leads there by a CNAME, and e- answers so out of its own zone"""
    if not name.endswith(".z.test"):
        return None
    label = name.split(".")[0]
    if qtype != 1:
        return []
    if label == "flip":
        flips.append(1)
        return [(b"", 1, 0, socket.inet_aton(OK if len(flips) == 1 else "169.254.169.254"))]
    if label == "extra":  # what was not asked for: another name's address, and a second question's answer
        return [(b"", 1, 60, socket.inet_aton(OK)), (wire("bank.test"), 1, 60, socket.inet_aton(OTH)), (wire("z.test"), 1, 60, socket.inet_aton(OTH))]
    kind, _, addr = label.rpartition("_")
    addr = socket.inet_aton(addr.replace("-", "."))
    if kind == "c":
        return [(b"", 5, 0, wire("a.elsewhere.test")), (wire("a.elsewhere.test"), 1, 0, addr)]
    if kind == "e":
        return [(b"", 5, 0, wire("ok.test")), (wire("ok.test"), 1, 86400, addr)]
    return [(b"", 1, 0, addr)]


REBIND = r"""
import socket, sys
for name in sys.argv[1:]:
    try:
        got = sorted({x[4][0] for x in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)})
    except OSError:
        got = []
    print("leads", name, *got, flush=True)
    for addr in got or [name.split(".")[0].rpartition("_")[2].replace("-", ".")]:
        for kind, port in ((socket.SOCK_STREAM, 80), (socket.SOCK_DGRAM, 9000)):
            s = socket.socket(socket.AF_INET, kind)
            s.settimeout(0.5)
            try:
                s.connect((addr, port)); s.send(b"GET rebound"); print("reached" if s.recv(10) else "closed", addr, flush=True)
            except OSError as e:
                pass
print("end", flush=True)
"""


def rebinding(free):
    c = Sandbox(D("+*.z.test"))
    inner = ["10.9.0.5", "169.254.169.254", "169.254.1.1", "192.168.7.7", "172.16.0.1", "100.64.1.1", "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "255.255.255.255",
             "224.0.0.251", "240.0.0.1", "198.18.0.1", "192.0.0.170", "198.51.100.1", free.addr, c.addr]
    names = [f"{kind}_{addr.replace('.', '-')}.z.test" for addr in inner for kind in ("a", "c", "e")]
    out = sh(c.id, f"python3 - {' '.join(names)} <<'END'\n{REBIND}\nEND", timeout=200)
    lines = out.split("\n")
    led = [l for l in lines if l.startswith("leads") and len(l.split()) > 2]
    ok("end" in lines and not led, f"{len(names)} answers that lead to addresses inside are taken out, by CNAME and with TTL 0 too", led or out[-300:])
    ok(not [l for l in lines if l.startswith("reached")], "and open nothing", [l for l in lines if l.startswith("reached")])
    out = sh(c.id, f"python3 - flip.z.test flip.z.test extra.z.test <<'END'\n{REBIND}\nEND", timeout=60)
    first, second, extra = [l.split()[2:] for l in out.split("\n") if l.startswith("leads")]
    ok(first == [OK] and second in ([OK], []) and "reached 169.254.169.254" not in out, "a name that changes its mind to a metadata service is followed once", out)
    ok(extra == [OK] and not connects(c.id, OTH), "addresses of names that were not asked for open nothing", (extra, out))
    out = sh(c.id, "getent ahostsv4 ok.test; getent ahostsv4 bank.test; echo end")
    ok(out.strip() == "end", "and are not known by those names", out)
    # Whom an answer names beside may not be what others get under that name.
    b = Sandbox(D("+ok.test", "+bank.test"))
    ok(sh(b.id, "getent ahostsv4 ok.test | awk 'NR == 1 {print $1}'").strip() == OK, "another sandbox gets ok.test from its own look-up")


# Questions as no resolver asks them, and answers nobody asked for.
ODD = r"""
import socket, struct, sys
def ask(labels, kind=1, tail=b"", flags=0x0100, count=1):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(("169.254.1.1", 53)); s.settimeout(0.3)
    s.send(struct.pack("!HHHHHH", 7, flags, count, 0, 0, 0) + b"".join(bytes([len(l)]) + l for l in labels) + b"\0" + struct.pack("!HH", kind, 1) + tail)
    try: return s.recv(2000)[3] & 15
    except OSError: return None
T = b"test"
for labels in ([b"ok\0", T], [b"\0ok", T], [b"ok.test"], [b"ok\\", T], [b"ok ", T], [b" ok", T], [b"ok\t", T], [b"ok", T, b"\0"], [b"ok", b"test\0", b"evil"],
               [b"\xd0\xbek", T], [b"xn--k-0tb", T], [b"ok\n", T], [b"o\x1b[31mk", T], [b"\x9b31m", T], [b"a\"},{\"x\":\"", T], [b"%s%n$(id)", T], [b"<b>", T], [b"\xff" * 63, T],
               [b"a" * 63] * 3 + [b"b" * 61], [b"_ok", T], [b"-ok", T], [b"ok-", T], [b"0x7f000001"], [b"ok", T, b"evil", T], [b"*", T], [b"\x7f\x00\x00\x01"], [b"\r\nok", T],
               [b"\xe2\x80\xae", T], [b"\xef\xbb\xbfok", T], [b"o\xc2\xadk", T]):
    print(ask(labels), flush=True)
ask([b"ok", T], flags=0x8180)                                             # an answer
ask([b"evil", T], tail=b"\xc0\x0c\0\1\0\1\0\1\0\0\0\4\1\2\3\4")     # with a record behind
ask([b"ok", T], count=2, tail=b"\4evil\4test\0\0\1\0\1")                  # two questions
ask([b"ok", T], flags=0x2800); ask([b"ok", T], flags=0x2000); ask([b"ok", T], kind=252); ask([b"ok", T], kind=255); ask([b"ok", T], kind=10); ask([b"evil", T], kind=41)
answer = struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0) + b"\2ok\4test\0\0\1\0\1\xc0\x0c\0\1\0\1\0\1\0\0\0\4" + socket.inet_aton(sys.argv[1])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 53))
for i in range(300):
    try: s.sendto(struct.pack("!H", i * 211) + answer[2:], ("169.254.1.1", 53))
    except OSError: pass
print("end", flush=True)
"""


def odd_names():
    c = Sandbox(D("+ok.test"))
    before = len(asked)
    out = sh(c.id, f"python3 - {OTH} <<'END'\n{ODD}\nEND", timeout=120).split()
    ok(out[-1:] == ["end"] and "0" not in out[:-1], "names that only look like the allowed one are none", out)
    ok(set(asked[before:]) <= {"ok.test"}, "nothing else went to the name server outside", set(asked[before:]))
    ok(sh(c.id, "getent ahostsv4 ok.test | awk 'NR == 1 {print $1}'").strip() == OK, "300 answers that nobody asked for change none")
    sh(c.id, "getent ahostsv4 last.test")

    def told():
        return [e for e in json.loads(call("GET", f"/v1/sandboxes/{c.id}/egress/events")[2])["items"] if e.get("name") == "last.test"]

    ok(until(told), "the journal can be read behind them")
    text = call("GET", f"/v1/sandboxes/{c.id}/egress/events")[2]
    raw = [t for t in text if ord(t) < 32 or 127 <= ord(t) < 160 or ord(t) in (0x202E, 0xFEFF)]
    ok(not raw, "no control character in it", raw[:10])
    inside = sh(c.id, "cat /run/sandbox/denied.jsonl")
    ok(until(lambda: "last.test" in sh(c.id, "cat /run/sandbox/denied.jsonl")) and all(json.loads(l)["kind"] for l in inside.split("\n") if l.strip()),
       "what the sandbox reads is one object a line", inside[:300])
    watch = subprocess.Popen([build + "/sandboxctl", "--socket", run + "/run/api.sock", "egress", "watch", c.id], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    seen = b""
    end = time.monotonic() + 30
    os.set_blocking(watch.stdout.fileno(), False)
    while b"last.test" not in seen and time.monotonic() < end:
        seen += watch.stdout.read() or b""
        sh(c.id, "getent ahostsv4 last.test")
    watch.kill()
    ok(b"last.test" in seen and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f-\x9f]", seen.replace(b"\xe2\x86\x92", b"")), "nor in what sandboxctl egress watch shows", seen[:600])


def suite(daemon):
    lib.records = zone
    world_watch, world_log = listener(["nsenter", "-t", world, "-n", "--"], "world")
    a, b, free = Sandbox(D("+ok.test")), Sandbox(D("+ok.test")), Sandbox("none")
    if not ok(a.ns and b.ns and free.ns and a.addr != free.addr, "three sandboxes, two with a policy", (a.addr, b.addr, free.addr)):
        return
    got = sh(b.id, f"timeout 5 bash -c 'exec 3<>/dev/tcp/{OK}/80' 2>&1; echo code $?")
    ok(connects(a.id, "ok.test") and "code 0" not in got, "what one has looked up is closed for the other", got)
    frames_out(a, free, world_log)
    others_errors(a, free, world_log)
    arp_games(a, b, free)
    as_tenant(a, free, world_log)
    as_root(a, b, world_log)
    rebinding(free)
    odd_names()
    world_watch.kill()


run_suite(suite)
