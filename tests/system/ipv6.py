#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# The far end of ipv6.sh: a name server, servers that say which address they are and whom they see, and a listener that writes
# down each IPv6 packet that arrives.  And (with "frame") raw frames as no program in a sandbox could send them.
import socket, struct, sys, threading

WEB = ["2001:db8:99::2", "2001:db8:100::10", "2001:db8:100::11", "2001:db8:100::20", "2001:db8:100::30", "fd12:3456::5", "fd00:ec2::254", "64:ff9b::a09:5"]
ZONE = {"lan.test": ["2001:db8:99::2"], "ok.test": ["2001:db8:100::10"], "oth.test": ["2001:db8:100::11"], "pool.test": ["2001:db8:100::20"], "ula.test": ["fd12:3456::5"],
        "nat.test": ["64:ff9b::a09:5"], "mapped.test": ["::ffff:10.9.0.5"]}
FOUR = {"ok.test": "198.51.100.10"}


def serve(c, addr, peer):
    try:
        while c.recv(1000):
            c.sendall(f"{addr} sees {peer}\n".encode())
    except OSError:
        pass
    c.close()


def web(addr):
    s = socket.socket(socket.AF_INET6)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((addr, 80))
    s.listen(64)
    while True:
        c, peer = s.accept()
        threading.Thread(target=serve, args=(c, addr, peer[0]), daemon=True).start()


def names(log):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("198.51.100.53", 53))
    while True:
        q, peer = u.recvfrom(2000)
        at, labels = 12, []
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode("latin1").lower())
            at += q[at] + 1
        name, end = ".".join(labels), at + 5
        kind = q[at + 2]
        with open(log, "a") as f:
            f.write(f"{name} {kind}\n")
        if kind == 28:
            got = [socket.inet_pton(socket.AF_INET6, a) for a in ZONE.get(name, [])]
        else:
            got = [socket.inet_aton(FOUR[name])] if kind == 1 and name in FOUR else []
        head = q[:2] + struct.pack("!HHHHH", 0x8180 | (0 if name in ZONE or not name else 3), 1, len(got), 0, 0) + q[12:end]
        u.sendto(head + b"".join(b"\xc0\x0c\0%c\0\1\0\0\0\x3c\0%c" % (kind, len(a)) + a for a in got), peer)


def listen(log):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))
    while True:
        frame, where = s.recvfrom(65536)
        if where[0] == "lo" or where[2] == 4:
            continue
        ip = frame[14:]
        with open(log, "a") as f:
            f.write(f"{socket.inet_ntop(socket.AF_INET6, ip[8:24])} {socket.inet_ntop(socket.AF_INET6, ip[24:40])} {ip[6]}\n")


def checksum(src, dst, proto, body):
    data = src + dst + struct.pack("!IHBB", len(body), 0, 0, proto) + body + bytes(len(body) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


def packet(kind, src, dst):
    src, dst = socket.inet_pton(socket.AF_INET6, src), socket.inet_pton(socket.AF_INET6, dst)
    udp = struct.pack("!HHHH", 40000, 9999, 12, 0) + b"data"
    udp = udp[:6] + struct.pack("!H", checksum(src, dst, 17, udp)) + udp[8:]

    def ip(following, body):
        return struct.pack("!IHBB", 6 << 28, len(body), following, 64) + src + dst + body

    def icmp(t, body):
        m = struct.pack("!BBH", t, 0, 0) + body
        return ip(58, m[:2] + struct.pack("!H", checksum(src, dst, 58, m)) + m[4:])

    def about(owner, port):
        """an error about what @dst sent to that port of another sandbox"""
        lost = udp_of(socket.inet_pton(socket.AF_INET6, owner), int(port))
        return icmp(1, bytes(4) + lost)

    def udp_of(to, port):
        return struct.pack("!IHBB", 6 << 28, 12, 17, 64) + dst + to + struct.pack("!HHHH", 9999, port, 12, 0) + b"data"

    if kind.startswith("about="):
        return about(*kind[6:].split(","))
    return {
        "udp": lambda: ip(17, udp),
        "routing": lambda: ip(43, struct.pack("!BBBBI", 17, 2, 0, 1, 0) + dst + udp),
        "routing4": lambda: ip(43, struct.pack("!BBBBBBH", 17, 2, 4, 0, 0, 0, 0) + dst + udp),
        "fragment": lambda: ip(44, struct.pack("!BBHI", 17, 0, 1, 7) + udp),
        "atomic": lambda: ip(44, struct.pack("!BBHI", 17, 0, 0, 7) + udp),
        "hop": lambda: ip(0, struct.pack("!BBBB4x", 17, 0, 1, 4) + udp),
        "options": lambda: ip(60, struct.pack("!BBBB4x", 17, 0, 1, 4) + udp),
        "esp": lambda: ip(50, bytes(32)),
        "ipip": lambda: ip(41, ip(17, udp)),
        "sctp": lambda: ip(132, bytes(32)),
        "ra": lambda: icmp(134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\3\4\x40\xc0" + struct.pack("!III", 3600, 3600, 0) +
                           socket.inet_pton(socket.AF_INET6, "2001:db8:bad::")),
        "na": lambda: icmp(136, struct.pack("!I", 0x60000000) + dst + b"\2\1\2\0\0\0\0\7"),
        "redirect": lambda: icmp(137, bytes(4) + src + dst),
        "echo": lambda: icmp(128, struct.pack("!HH", 1, 1) + b"data"),
    }[kind]()


def frame(kind, src, dst):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind(("eth0", 0x86DD))
    for _ in range(3):
        s.send(b"\x02\x53\x42\x58\x00\x01" + s.getsockname()[4] + b"\x86\xdd" + packet(kind, src, dst))


if sys.argv[1] == "frame":
    frame(*sys.argv[2:])
else:
    for a in WEB:
        threading.Thread(target=web, args=(a,), daemon=True).start()
    threading.Thread(target=names, args=(sys.argv[2],), daemon=True).start()
    threading.Thread(target=listen, args=(sys.argv[3],), daemon=True).start()
    print("serving", flush=True)
    threading.Event().wait()
