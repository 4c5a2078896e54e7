#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# The rows of the egress contract that are about names, each against the real sandbox-dnsd with name servers, broker and sandboxd
# played by dnsd_lib.py; then what a change of policy, a kill -9 and the absence of the others do.
import os, random, shutil, socket, struct, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from dnsd_lib import *

own_namespace(__file__)

# ---- what the name servers know ----

FIXED = {
    "ok.test": [OK], "oth.test": [OTH], "cdn-a.test": ["198.51.100.20"], "cdn-b.test": ["198.51.100.20"], "reb.test": ["10.9.0.5"],
    "meta.test": ["169.254.169.254"], "loop4.test": ["127.0.0.1"], "cgnat.test": ["100.64.3.4"], "linux.test": ["0.0.0.0"],
    "multi.test": ["198.51.100.30", "192.168.7.7", "198.51.100.31"], "hosts.test": [R1], "peer.test": ["10.213.0.77"],
    "xn--mnchen-3ya.test": [OK], "x.a.test": [OK], "y.x.a.test": [OK], "a.test": [OK], "dual.test": [OK], "slow.test": [OK],
    "dns.google": ["198.51.100.8"], "use-application-dns.net": ["198.51.100.9"], "late.test": [OK],
}
SIXES = {
    "six.test": ["2001:db8:100::10"], "mixed6.test": ["2001:db8:100::20", "::ffff:10.9.0.5", "64:ff9b::a09:5", "fe80::1", "fd12::5", "2001:db8:100::21"],
    "mapped6.test": ["::ffff:10.9.0.5"], "nat6.test": ["64:ff9b::a09:5"], "ula6.test": ["fd12::5"], "meta6.test": ["fd00:ec2::254"],
    "peer6.test": ["fd53:4258:0:d5::ad5:77"], "host6.test": [HOST6], "loop6.test": ["::1"], "six.to4.test": ["2002:a09:5::1"],
    "many6.test": [f"2001:db8:200::{i + 1:x}" for i in range(40)],
}
TTL = {"t0.test": 0, "t1.test": 1, "t9999.test": 9999, "short.test": 10}
many_next = 0


def zone(q, tcp):
    global many_next
    n = q.lower
    if q.type == NS and n == "":
        return [q.answer()]
    if q.type == HTTPS:
        keys = [(1, b"\x02h2\x02h3"), (4, socket.inet_aton("10.9.0.5")), (5, b"secretkeys"), (6, bytes(16))]
        data = b"\0\1\0" + b"".join(struct.pack("!HH", k, len(v)) + v for k, v in keys)
        return [q.answer(rr(b"\xc0\x0c", HTTPS, data))]
    if q.type == TXT:
        return [q.answer(rr(b"\xc0\x0c", TXT, b"\x05hello"))]
    if q.type == AAAA and n in SIXES:
        return [q.answer(b"".join(rr(b"\xc0\x0c", AAAA, socket.inet_pton(socket.AF_INET6, a)) for a in SIXES[n]), len(SIXES[n]))]
    if q.type == AAAA:
        return [q.answer(rr(b"\xc0\x0c", AAAA, socket.inet_pton(socket.AF_INET6, "::ffff:10.9.0.5")))]
    if n in TTL:
        return [q.answer(a_rr(OK, TTL[n]))]
    if n == "chain.test":
        return [q.answer(rr(b"\xc0\x0c", CNAME, wire("ok.test")) + a_rr(OK, owner=wire("ok.test")), 2)]
    if n == "long-chain.test":
        links = b"".join(rr(wire(f"l{i}.test") if i else b"\xc0\x0c", CNAME, wire(f"l{i + 1}.test")) for i in range(20))
        return [q.answer(links + a_rr(OK, owner=wire("l20.test")), 21)]
    if n == "loop.test":
        return [q.answer(rr(b"\xc0\x0c", CNAME, wire("loop2.test")) + rr(wire("loop2.test"), CNAME, wire("loop.test")), 2)]
    if n == "big.test":
        all60 = b"".join(a_rr(f"198.51.100.{100 + i}") for i in range(60))
        return [q.answer(all60, 60)] if tcp else [q.answer(tc=True)]
    if n == "evil-more.test":
        return [q.answer(a_rr(OK) + a_rr(OTH, owner=wire("evil.test")), 2, additional=a_rr(OTH, owner=wire("evil.test")), n_additional=1)]
    if n.endswith(".many.test") or n == "many.test":
        first, many_next = many_next, many_next + 64
        return [q.answer(b"".join(a_rr(f"203.0.{64 + (first + i) // 256 % 192}.{(first + i) % 256}") for i in range(64)), 64)]
    if n == "nx.test":
        soa = rr(wire("test"), SOA, wire("ns.test") + wire("root.test") + struct.pack("!5I", 1, 2, 3, 4, 30), 900)
        return [q.answer(rcode=NXDOMAIN, authority=soa, n_authority=1)]
    if n in FIXED:
        return [q.answer(b"".join(a_rr(a) for a in FIXED[n]), len(FIXED[n]))]
    if n.endswith((".w.test", ".a.test", ".tun.test")):
        return [q.answer(a_rr(OK))]
    return [q.answer(rcode=NXDOMAIN)]


special = {}  # name: behaviour, for both servers; ("R1", name) for one of them


def server(which):
    def behaviour(q, tcp):
        f = special.get((which, q.lower)) or special.get(q.lower)
        return f(q, tcp) if f else zone(q, tcp)

    return behaviour


up1, up2 = Upstream(R1, server("R1")), Upstream(R2, server("R2"))
run = run_dir()
broker, control = Broker(run), Sandboxd(run)
dnsd = Dnsd(run)


def asked(name):
    return up1.names().count(name) + up2.names().count(name)


def guarded(row, what):
    """an exception is a failed row, not the end of the others"""
    try:
        what()
    except Exception as e:  # noqa: BLE001
        ok(False, f"row {row}", f"{type(e).__name__}: {e}")


def row_31():
    control.set(2, "D +ok.test")
    broker.pin_delay = 0.15
    begin = time.monotonic()
    m = ask(2, "ok.test")
    took = time.monotonic() - begin
    broker.pin_delay = 0
    pins = broker.pinned(OK)
    ok(m and m.rcode == NOERROR and m.addrs() == [OK] and m.ra, "row 31: an allowed name is answered", m and m.raw)
    ok(pins and pins[0][6] and pins[0][1] == 2 and pins[0][3] == () and took >= 0.15, "row 31: only after the kernel has it", (pins, took))
    e = control.find(kind="dns_allowed", name="ok.test", slot=2)
    ok(e and e[0].addrs == [OK] and e[0].rule == 0 and e[0].qtype == A and e[0].id == bytes([2]) * 16, "row 31: and an event says so", e)


def row_32():
    before = len(up1.seen) + len(up2.seen)
    begin = time.monotonic()
    m = ask(2, "oth.test", edns=1232)
    took = time.monotonic() - begin
    ok(m.rcode == NXDOMAIN and m.ra and not m.aa and not m.authority and m.qname == "oth.test", "row 32: a denied name does not exist", m.raw)
    ok(m.ede == 15 and not ask(2, "oth.test").opt, "row 32: who speaks EDNS learns that it is blocked", m.ede)
    ok(len(up1.seen) + len(up2.seen) == before, "row 32: no server saw it")
    e = control.find(kind="dns_denied", name="oth.test")
    ok(e and e[0].reason == "default" and e[0].rcode == NXDOMAIN and e[0].rule == 0xFFFFFFFF, "row 32: event with the reason", e)
    ok(took < 4, "row 32: without waiting for anybody", took)


def rows_33_to_37():
    def verdicts(row, policy, *names):
        control.set(2, policy)
        got = [ask(2, n).rcode for n, _ in names]
        ok(got == [w for _, w in names], f"row {row}: {policy}: {', '.join(n for n, _ in names)}", got)

    verdicts(33, "D +*.a.test", ("a.test", NXDOMAIN), ("x.a.test", NOERROR), ("y.x.a.test", NOERROR))
    verdicts(34, "D +*.a.test -x.a.test", ("x.a.test", NOERROR))
    verdicts(35, "D -x.a.test +*.a.test", ("x.a.test", NXDOMAIN), ("y.x.a.test", NOERROR))
    e = control.find(kind="dns_denied", name="x.a.test", reason="rule")
    ok(e and e[-1].rule == 0, "row 35: the event names the rule", e)
    verdicts(36, "D +OK.Test.", ("oK.tEsT", NOERROR))
    ok(ask(2, "oK.tEsT").qname == "oK.tEsT", "row 36: the question comes back as it was written")
    verdicts(37, "D +münchen.test", ("xn--mnchen-3ya.test", NOERROR))


def row_38():
    control.set(2, "D +ok.test")
    source = []
    m = ask_raw(2, question("ok.test"), to="203.0.113.99", source=source)
    ok(Message(m).addrs() == [OK] and source == ["203.0.113.99"], "row 38: whoever is asked answers, from the address that was asked", source)


def row_39():
    special["slow.test"] = lambda q, tcp: [(2, m) for m in zone(q, tcp)]
    control.set(2, "D +ok.test +slow.test +*.w.test")
    names = ["slow.test"] + ["ok.test"] + [f"p{i}.w.test" for i in range(8)]
    got = tcp_ask(2, [question(n, qid=i) for i, n in enumerate(names)], pieces=7)
    ok(sorted(m.qid for m in got) == list(range(10)) and all(m.addrs() == [OK] for m in got), "row 39: ten questions in one connection, in pieces",
       [m.qid for m in got])
    ok(got and got[-1].qid == 0, "row 39: the slow one does not hold up the others", [m.qid for m in got])


def row_40():
    control.set(2, "D +big.test")
    m = ask(2, "big.test")
    ok(m.tc and not m.answers and len(m.raw) <= 512, "row 40: 60 addresses do not fit without EDNS: TC")
    m = ask(2, "big.test", edns=4096)
    ok(len(m.raw) <= 1232 and (m.tc or len(m.addrs()) == 60), "row 40: with EDNS 4096 at most 1232 bytes", len(m.raw))
    got = tcp_ask(2, [question("big.test")])
    ok(got and len(got[0].addrs()) == 60, "row 40: all over TCP, fetched over TCP", got and len(got[0].addrs()))


def rows_41_to_44():
    control.set(2, "D +t0.test +t1.test +t9999.test +ok.test +short.test")
    broker.log.clear()
    m = ask(2, "t0.test")
    ok(m.ttls() == [0] and broker.pinned(OK)[-1][4] >= 90000, "row 41: TTL 0 stays 0, its lease does not", (m.ttls(), broker.log))
    m = ask(2, "t9999.test")
    ok(m.ttls() == [300] and broker.pinned(OK)[-1][4] == 360000, "row 42: TTL 9999 becomes 300", (m.ttls(), broker.log))
    broker.log.clear()
    ask(2, "short.test")
    ok(not broker.log, "row 43: a shorter lease of the same address does not shorten", broker.log)
    ok([l for a, l, n in control.pins_of(2, "t9999.test")][0] > 300000, "row 43: the longer one is still known", control.pins_of(2, "t9999.test"))
    control.set(2, "D +t1.test")
    ask(2, "t1.test")
    control.set(3, "D +t1.test")
    broker.log.clear()
    ask(3, "t1.test")
    time.sleep(1.3)
    ask(3, "t1.test")
    ends = [l[5] + l[4] / 1000 for l in broker.pinned(OK) if l[1] == 3]
    ok(len(ends) == 2 and ends[1] > ends[0] + 1, "row 44: resolving again moves the end of the lease", ends)


def rows_45_to_47():
    control.set(4, "D +chain.test")
    m = ask(4, "chain.test")
    ok(m.addrs() == [OK] and m.answers[0][1] == CNAME and broker.open_for(4) == {OK}, "row 45: a chain to a name that no rule names", m.raw)
    ok(control.pins_of(4, addr=OK)[0][2] == "chain.test", "row 45: the lease belongs to what was asked", control.pins_of(4, addr=OK))
    control.set(4, "D +chain.test -ok.test")
    ok(broker.open_for(4) == set(), "row 46: a rule against the end of the chain closes what it had opened", broker.open_for(4))
    ok(ask(4, "chain.test").rcode == NXDOMAIN and not broker.open_for(4), "row 46: and denies the name that leads there")
    control.set(4, "D +long-chain.test +loop.test")
    begin = time.monotonic()
    got = [ask(4, n).rcode for n in ("long-chain.test", "loop.test")]
    ok(got == [SERVFAIL, SERVFAIL] and time.monotonic() - begin < 4 and not broker.open_for(4), "row 47: twenty links, and a circle", got)


def row_48():
    control.set(4, "D +evil-more.test")
    m = ask(4, "evil-more.test")
    ok(m.addrs() == [OK] and not m.additional and broker.open_for(4) == {OK}, "row 48: what was not asked is neither told nor opened",
       (m.raw, broker.open_for(4)))


def rows_49_to_52():
    control.set(5, "D +reb.test +loop4.test +cgnat.test +meta.test +linux.test +hosts.test +peer.test +multi.test")
    bad = {"reb.test": "private", "loop4.test": "metadata", "cgnat.test": "private", "meta.test": "metadata", "linux.test": "metadata",
           "hosts.test": "host", "peer.test": "sandbox"}
    for name, why in bad.items():
        m = ask(5, name)
        e = control.find(kind="rebind", name=name, slot=5)
        ok(m.rcode == NOERROR and not m.answers and not broker.open_for(5) and e and (e[0].reason == why or why == "metadata"),
           f"row 49: {FIXED[name][0]} is taken out of the answer", (m.raw, e))
    m = ask(5, "multi.test")
    ok(m.addrs() == ["198.51.100.30", "198.51.100.31"] and broker.open_for(5) == set(m.addrs()), "row 49: the public ones of a mixed answer stay", m.raw)
    control.set(5, "D +reb.test +10.9.0.5")
    ok(ask(5, "reb.test").addrs() == ["10.9.0.5"] and "10.9.0.5" in broker.open_for(5), "row 50: unless a rule names the address")
    control.set(5, "A")
    m = ask(5, "meta.test")
    ok(m.rcode == NOERROR and not m.answers, "row 51: metadata is taken out also where everything is allowed")
    before = asked("dual.test")
    m = ask(5, "dual.test", AAAA)
    ok(m.rcode == NOERROR and not m.answers and asked("dual.test") == before, "row 52: AAAA is empty and asked of nobody", m.raw)


def rows_53_54():
    control.set(2, "D +ok.test")
    m = ask(2, "ok.test", HTTPS)
    ok(m.answers and m.answers[0][3] == b"\0\1\0\0\1\0\3\x02h2", "row 53: HTTPS without keys, hints and h3", m.raw)
    m = ask(2, "ok.test", ANY)
    ok(m.answers and m.answers[0][1] == 13 and asked("ok.test"), "row 54: ANY gets one HINFO", m.raw)
    got = [ask(2, "ok.test", t).rcode for t in (AXFR, 251, NULL, 65280, 6666)]
    ok(got == [REFUSED] * 5, "row 54: AXFR, IXFR, NULL, private and unknown types are refused", got)
    ok(ask(2, "version.bind", TXT, qclass=3).rcode == REFUSED, "row 54: CHAOS is refused")
    ok(ask(2, "ok.test", TXT).answers[0][3] == b"\x05hello", "row 54: TXT passes")


def rows_55_56():
    def rcode(msg, wait=2):
        m = ask_raw(2, msg, wait)
        return Message(m).rcode if m else None

    head = lambda qd=1, an=0, ns=0, ar=0, flags=0x0100: struct.pack("!6H", 7, flags, qd, an, ns, ar)
    q = wire("ok.test") + struct.pack("!HH", A, 1)
    rows = [("QDCOUNT 0", head(0), FORMERR), ("QDCOUNT 2", head(2) + q + q, FORMERR), ("an answer", head(flags=0x8180) + q, None),
            ("UPDATE", head(flags=0x2900) + q, NOTIMP), ("NOTIFY", head(flags=0x2100) + q, NOTIMP), ("OPT version 1", head(ar=1) + q + opt(version=1), 16),
            ("two OPTs", head(ar=2) + q + opt() + opt(), FORMERR), ("records behind it", head(an=1) + q + a_rr(OK), FORMERR),
            ("TSIG", head(ar=1) + q + rr(b"\0", 250, b"x"), FORMERR), ("bytes behind it", head() + q + b"x", FORMERR)]
    for name, msg, want in rows:
        got = rcode(msg, 0.3 if want is None else 2)
        ok(got == want, f"row 55: {name}", got)
    tail = struct.pack("!HH", A, 1)
    rows = [("a pointer", b"\xc0\x0c" + tail), ("a pointer to itself behind a label", b"\x01x\xc0\x0e" + tail), ("a label of 64", b"\x40" + b"x" * 64 + b"\0" + tail),
            ("a name of 256", b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0" + tail), ("a name that runs out", b"\x05ok")]
    for name, q in rows:
        got = rcode(head() + q)
        ok(got == FORMERR, f"row 56: {name}", got)
    ok(dnsd.child.poll() is None, "rows 55 and 56: dnsd lives")


def row_57():
    control.set(2, "D +*.w.test")
    garbage = {
        "loop-pointer": lambda q, tcp: [q.answer(rr(b"\xc0" + bytes([q.end]), A, socket.inet_aton(OTH)))],
        "cut-data": lambda q, tcp: [q.answer(a_rr(OTH))[:-2]],
        "tail": lambda q, tcp: [q.answer(a_rr(OTH)) + b"tail"],
        "empty": lambda q, tcp: [b""],
        "noise": lambda q, tcp: [bytes(random.randrange(256) for _ in range(700))],
        "big-tcp": lambda q, tcp: [bytes(random.randrange(256) for _ in range(65535))] if tcp else [q.answer(tc=True)],
    }
    for name, what in garbage.items():
        special["R1", f"{name}.w.test"] = what
        begin = time.monotonic()
        m = ask(2, f"{name}.w.test")
        ok(m and (m.addrs() == [OK] or m.rcode == SERVFAIL) and OTH not in broker.open_for(2) and time.monotonic() - begin < 15,
           f"row 57: {name}: {'the other server' if m and m.addrs() else 'SERVFAIL'}", m and m.raw)
    ok(dnsd.child.poll() is None, "row 57: dnsd lives")


def row_58():
    def liar(q, tcp):
        good = q.answer(a_rr(OK))
        if tcp:  # where the first question was not answered in time
            return [good]
        return [q.answer(a_rr(OTH), qid=(struct.unpack("!H", q.raw[:2])[0] + 1) % 65536), q.answer(a_rr(OTH), name=wire("Liax.test")),
                q.answer(a_rr(OTH), name=q.raw[12:q.end - 4].swapcase()), good]

    control.set(2, "D +liar.test")
    special["liar.test"] = liar
    m = ask(2, "liar.test")
    ok(m.addrs() == [OK] and OTH not in broker.open_for(2), "row 58: wrong id, wrong name, wrong case, then the right one", m.raw)


def row_59():
    control.set(2, "D +spoofed.test")

    def slow(q, tcp):
        return [(2.5, q.answer(a_rr(OK)))]

    special["spoofed.test"] = slow
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    got = []
    t = threading.Thread(target=lambda: got.append(ask(2, "spoofed.test")))
    t.start()
    until(lambda: [1 for q, _, _ in up1.seen if q.lower == "spoofed.test"])
    port = [p for q, p, _ in up1.seen if q.lower == "spoofed.test"][0]
    body = struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + wire("spoofed.test") + struct.pack("!HH", A, 1) + a_rr(OTH)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + 8 + 2 + len(body), 0, 0, 64, 17, 0, socket.inet_aton(R1), socket.inet_aton("127.0.0.1"))
    target = [l for l in open("/proc/net/udp").read().splitlines()[1:] if int(l.split()[1].split(":")[1], 16) == port]
    local = socket.inet_ntoa(bytes.fromhex(target[0].split()[1].split(":")[0])[::-1]) if target else R1
    ip = ip[:16] + socket.inet_aton(local)
    udp = struct.pack("!HHHH", 53, port, 8 + 2 + len(body), 0)
    sent = 0
    for qid in range(65536):
        raw.sendto(ip + udp + struct.pack("!H", qid) + body, (local, 0))
        sent += 1
        if got:
            break
    t.join()
    m = got[0]
    forged = control.counts()["forged"]
    ok(sent > 200 and m and (m.addrs() == [OK] or m.rcode == SERVFAIL) and OTH not in broker.open_for(2) and forged > 16,
       f"row 59: {sent} forged answers to the right port are not believed", (m and m.raw, forged))


def row_60():
    control.set(2, "D +*.w.test")
    up1.seen.clear()
    up2.seen.clear()
    options = struct.pack("!HH", 8, 7) + b"\0\1\x18\0\xc0\0\2" + struct.pack("!HH", 10, 8) + b"COOKIE!!" + struct.pack("!HH", 12, 40) + bytes(40)
    for i in range(60):
        ask(2, f"capture{i}.w.test", qid=1000 + i, edns=opt(4096, 0, options))
    seen = [x for x in up1.seen + up2.seen if x[0].lower.startswith("capture")]
    ids = [struct.unpack("!H", q.raw[:2])[0] for q, _, _ in seen]
    ports = [p for _, p, _ in seen]
    steps = [abs(a - b) for a, b in zip(ids, ids[1:])]
    ok(len(set(ids)) > 55 and sorted(steps)[len(steps) // 2] > 2000 and sum(i == 1000 + n for n, i in enumerate(ids)) < 2, "row 60: ids cannot be foreseen", ids[:10])
    ok(len(set(ports)) > 30, "row 60: nor ports", len(set(ports)))
    ok(all(b"COOKIE" not in q.raw and len(q.raw) == q.end + 11 for q, _, _ in seen), "row 60: no option of the asker goes on", seen[0][0].raw)
    letters = "".join(q.name for q, _, _ in seen)
    upper = sum(c.isupper() for c in letters) / sum(c.isalpha() for c in letters)
    ok(0.4 < upper < 0.6, "row 60: upper and lower case are mixed", upper)


def row_61():
    control.set(2, "D +*.w.test")
    up1.silent = True
    begin = time.monotonic()
    m = ask(2, "dead1.w.test")
    first = time.monotonic() - begin
    ok(m.addrs() == [OK] and first < 4, f"row 61: the first server is dead: {first:.2f} s", m.raw)
    n = iter(range(10000))

    def passed_over():
        name = f"dead2-{next(n)}.w.test"
        return ask(2, name).addrs() == [OK] and name not in up1.names()

    ok(until(passed_over), "row 61: the probe has taken it off")
    ok("" in up1.names(), "row 61: the probe asks for the root")
    up1.silent = False


def revive():
    """until the first server is asked first again"""
    end = time.monotonic() + 20
    n = 0
    while time.monotonic() < end:
        n += 1
        ask(2, f"alive{n}.w.test")
        if f"alive{n}.w.test" in up1.names():
            return True
        time.sleep(0.5)
    return False


def row_62():
    ok(revive(), "row 61: and brings it back")
    control.set(2, "D +*.w.test")
    special["R1", "sf.w.test"] = lambda q, tcp: [q.answer(rcode=SERVFAIL)]
    special["allsf.w.test"] = lambda q, tcp: [q.answer(rcode=SERVFAIL)]
    special["R1", "ref.w.test"] = lambda q, tcp: [q.answer(rcode=REFUSED)]
    ok(ask(2, "sf.w.test").addrs() == [OK] and ask(2, "ref.w.test").addrs() == [OK], "row 62: SERVFAIL and REFUSED: the other server")
    begin = time.monotonic()
    ok(ask(2, "allsf.w.test").rcode == SERVFAIL and time.monotonic() - begin < 4, "row 62: all SERVFAIL")


def row_63():
    control.set(2, "D +late.test")
    special["late.test"] = lambda q, tcp: [(6, q.answer(a_rr(OK)))]
    broker.log.clear()
    begin = time.monotonic()
    m = ask(2, "late.test", edns=1232)
    took = time.monotonic() - begin
    ok(m.rcode == SERVFAIL and took < 15 and m.ede in (22, 23), f"row 63: no answer in time: SERVFAIL after {took:.2f} s, EDE {m.ede}", m.raw)
    time.sleep(2.5)
    ok(not broker.pinned(OK), "row 63: what comes later opens nothing", broker.log)
    special.pop("late.test")


def row_64():
    control.set(2, "D +oth.test")
    broker.pin_status = 7
    m = ask(2, "oth.test")
    broker.pin_status = 0
    ok(m.rcode == SERVFAIL and not m.answers, "row 64: the kernel does not open the address: SERVFAIL", m.raw)
    ok(ask(2, "oth.test").addrs() == [OTH] and OTH in broker.open_for(2), "row 64: and when it does, an answer")


def row_65():
    control.set(2, "D")
    before = len(up1.seen) + len(up2.seen)
    m6 = ask(2, "localhost", AAAA)
    ok(ask(2, "localhost").addrs() == ["127.0.0.1"] and ask(2, "x.LocalHost").addrs() == ["127.0.0.1"] and m6.answers[0][3] == bytes(15) + b"\1" and
       len(up1.seen) + len(up2.seen) == before, "row 65: localhost and below")


def row_66():
    control.set(2, "D +*.a.test")
    control.set(3, "D +*.w.test")
    up1.seen.clear()
    up2.seen.clear()
    s, slow, lost = sock_of(2), [], 0
    stop = threading.Event()

    def other():
        nonlocal lost
        i = 0
        while not stop.is_set():
            begin = time.monotonic()
            m = ask(3, f"calm{i % 50}.w.test")
            lost += m is None
            slow.append(time.monotonic() - begin)
            i += 1
            time.sleep(0.02)

    t = threading.Thread(target=other)
    t.start()
    for i in range(5000):
        s.sendto(question(f"{random.randbytes(12).hex()}.a.test"), (LISTEN, PORT))
        if i % 20 == 19:
            time.sleep(0.01)
    time.sleep(0.5)
    stop.set()
    t.join()
    passed = [n for n in up1.names() + up2.names() if n.endswith(".a.test")]
    ok(len(set(passed)) <= 2000, f"row 66: 5000 random children: {len(set(passed))} are passed on", len(passed))
    ok(control.find(kind="rate_limited", slot=2, text="questions a second"), "row 66: an event about the rate")
    ok(control.find(kind="tunnel", slot=2), "row 66: an event about the tunnel")
    ok(not lost and sorted(slow)[len(slow) // 2] < 1, "row 66: another sandbox does not notice", (lost, max(slow)))
    s.close()


def row_67():
    control.set(2, "D")
    begin = time.monotonic()
    got = [ask(2, n).rcode for n in ("host.corp.test", "host", "host.local", "x.onion")]
    ok(got == [NXDOMAIN] * 4 and time.monotonic() - begin < 4, "row 67: all expansions of a search list at once", got)


def row_68():
    control.set(2, "D +ok.test")
    s = sock_of(2)
    s.settimeout(3)
    s.sendto(question("ok.test", A, qid=1), (LISTEN, PORT))
    s.sendto(question("ok.test", AAAA, qid=2), (LISTEN, PORT))
    got = {Message(s.recv(4096)).qid for _ in range(2)}
    ok(got == {1, 2}, "row 68: A and AAAA from one socket", got)


def row_69():
    control.set(2, "D +ok.test")
    control.set(3, "D +oth.test")
    got = [ask(2, "ok.test").rcode, ask(3, "ok.test").rcode, ask(2, "oth.test").rcode, ask(3, "oth.test").rcode]
    ok(got == [NOERROR, NXDOMAIN, NXDOMAIN, NOERROR], "row 69: each by its own policy", got)
    ok(OTH not in broker.open_for(2) and OK not in broker.open_for(3), "row 69: and its own openings", (broker.open_for(2), broker.open_for(3)))
    before = asked("oth.test")
    control.set(4, "D +oth.test")
    ask(4, "oth.test")
    ok(asked("oth.test") == before + 1, "row 69: what one has resolved another asks anew")


def row_70():
    control.set(5, "D +*.many.test")
    broker.log.clear()
    good = 0
    for i in range(157):
        m = tcp_ask(5, [question(f"n{i}.many.test")])
        good += bool(m) and m[0].rcode == NOERROR and len(m[0].addrs()) == 64
    open5 = broker.open_for(5)
    ok(good == 157, "row 70: 10,048 addresses, no failure", good)
    ok(len(open5) <= 4096, f"row 70: {len(open5)} of them are open", len(open5))
    last = m[0].addrs()
    ok(set(last) <= open5 and "203.0.64.1" not in open5, "row 70: the oldest were closed")
    broker.log.clear()
    ok(control.set(5, "D") == 0 and not broker.open_for(5) and len(broker.log) <= 70, "a policy that takes all of them away closes all of them",
       (len(broker.open_for(5)), len(broker.log)))


def row_87():
    """what has a live connection when dnsd asks (every 30 s) gets a longer lease, and what has none does not"""
    control.set(4, "D +ok.test +oth.test")
    for name in ("ok.test", "oth.test"):
        ask(4, name)
    broker.flows = [(4, 1, ip4(OK)), (4, 9, ip4(OTH)), (5, 1, ip4(OTH))]
    before, asked_before = dict((a, l) for n in ("ok.test", "oth.test") for a, l, _ in control.pins_of(4, n)), broker.asked_flows
    broker.log.clear()
    ok(until(lambda: broker.asked_flows > asked_before, 90), "row 87: live connections are asked for", broker.asked_flows)
    ok(until(lambda: [x for x in broker.pinned(OK) if x[1] == 4 and x[4] == 360000]), "row 87: a lease that one uses is renewed", broker.log)
    after = dict((a, l) for n in ("ok.test", "oth.test") for a, l, _ in control.pins_of(4, n))
    ok(after[OK] > before[OK] + 100000 and after[OTH] <= before[OTH] and not broker.pinned(OTH), "row 87: one that none uses is not", (before, after))
    broker.flows = []


def error_code(name):
    """the number of an error, which is its place in errors.def"""
    lines = open(os.environ.get("top_srcdir", ".") + "/base/errors.def").read().split("\nSBX_ERR(")[1:]
    return [l.split(",")[0] for l in lines].index(name) + 1


def lease_limit():
    """what an address opened by ports counts is the same for dnsd and the broker"""
    control.set(5, "D +*.many.test:80,443,8000-8003")
    broker.pins.clear()
    elements = lambda: sum(len(p) or 1 for s, _, p in broker.pins if s == 5)
    most = good = 0
    for i in range(20):
        m = tcp_ask(5, [question(f"p{i}.many.test")])
        good += bool(m) and m[0].rcode == NOERROR
        most = max(most, elements())
    ok(good == 20 and 4000 < most <= 4096, f"1,280 addresses with six ports each: no failure, {most} elements at most", (good, most))
    # What gives way is known until it is closed: a broker that is killed before it has done it leaves it to the next one.
    # The next one reads late: 682 leases are more than the socket to it takes at once.
    broker.dies_at_unpin = True
    broker.late = lambda: until(lambda: "cannot be written to" in open(dnsd.run + "/log").read(), 1)
    ask(5, "p100.many.test")
    left = broker.not_done
    ok(left and set(left) <= set(broker.pins), "a broker is killed as a lease gives way", left)
    ok(broker.ready.wait(30) and until(lambda: not set(left) & set(broker.pins)), "the next one is asked to close it", left)
    ok(until(lambda: time.sleep(0.2) or ask(5, "p101.many.test").rcode == NOERROR) and elements() <= 4096, "and opens on", elements())
    control.set(5, "D +ok.test")
    broker.pin_status = error_code("LIMIT")
    control.events.clear()
    m = ask(5, "ok.test", edns=1232)
    broker.pin_status = 0
    e = control.find(kind="rate_limited", name="ok.test", slot=5)
    ok(m.rcode == REFUSED and m.ede == 18 and e and e[0].reason == "limit" and "open at once" in e[0].text,
       "a broker that has no room all the same: REFUSED, and an event with the reason", (m.raw, e))
    ok(ask(5, "ok.test").addrs() == [OK], "and when it has, an answer")


# ---- beyond the rows ----


def brakes():
    control.set(3, "D +*.tun.test")
    up1.seen.clear()
    up2.seen.clear()
    s = sock_of(3)
    for i in range(900):
        label = ".".join(random.randbytes(30).hex() for _ in range(3))
        s.sendto(question(f"{label}.tun.test"), (LISTEN, PORT))
        if i % 10 == 9:
            time.sleep(0.04)
    time.sleep(0.5)
    sent = up1.bytes_of(".tun.test") + up2.bytes_of(".tun.test")
    ok(0 < sent <= 65536, f"a tunnel below an allowed wildcard: {sent} bytes go out in a minute", sent)
    ok(control.find(kind="tunnel", slot=3), "and an event says so")
    codes = [ask(3, ".".join(random.randbytes(30).hex() for _ in range(3)) + ".tun.test").rcode for _ in range(8)]
    ok(codes.count(REFUSED) >= 6, "new names below it have to wait", codes)
    control.set(3, "D +ok.test")
    before = len(up1.seen) + len(up2.seen)
    for i in range(50):
        ask_raw(3, question(random.randbytes(30).hex() + ".tun.test"), 0.5)
    ok(len(up1.seen) + len(up2.seen) == before, "a tunnel over a name that is not allowed: 0 bytes go out")
    s.close()
    s = sock_of(3)
    s.settimeout(0.5)
    control.set(3, "D +ok.test")
    for i in range(60):
        s.sendto(question("ok.test", TXT), (LISTEN, PORT))
    codes = []
    try:
        while True:
            codes.append(Message(s.recv(4096)).rcode)
    except socket.timeout:
        pass
    ok(REFUSED in codes or len(codes) < 60, "TXT has its own, smaller rate", codes)


def encrypted_resolvers():
    control.set(4, "A -x.test")
    got = [ask(4, n).rcode for n in ("dns.google", "x.dns.google", "use-application-dns.net", "ok.test")]
    ok(got == [NXDOMAIN, NXDOMAIN, NXDOMAIN, NOERROR], "known encrypted resolvers and the canary are denied by default", got)
    ok(control.find(kind="dns_denied", name="dns.google", reason="doh"), "with the reason")
    control.set(4, "D +dns.google")
    ok(ask(4, "dns.google").rcode == NOERROR, "unless a rule allows the name")
    ok(ask(4, "use-application-dns.net").rcode == NXDOMAIN, "the canary never")


def ports():
    control.set(4, "D +ok.test:443,8000-8002")
    broker.log.clear()
    ask(4, "ok.test")
    ok(broker.pinned(OK)[-1][3] == (443, 8000, 8001, 8002), "a rule with ports opens these", broker.log)
    control.set(4, "D +ok.test:80")
    ok(not [k for k in broker.pins if k[0] == 4 and k[2] != (80,)], "with other ports the old opening is closed", broker.pins)


def policy_changes():
    control.set(4, "D +ok.test +oth.test")
    ask(4, "ok.test")
    ask(4, "oth.test")
    broker.unpin_delay = 0.2
    begin = time.monotonic()
    control.set(4, "D +ok.test")
    took = time.monotonic() - begin
    broker.unpin_delay = 0
    ok(broker.open_for(4) == {OK} and took >= 0.2, "a narrowed policy is acknowledged when the kernel has closed the address", took)
    # row 90: a policy that comes while an answer is on its way
    control.set(4, "D +slow.test")
    before = asked("slow.test")
    got = []
    t = threading.Thread(target=lambda: got.append(ask(4, "slow.test")))
    t.start()
    until(lambda: asked("slow.test") > before)
    control.set(4, "D")
    t.join()
    ok(got[0].rcode in (NXDOMAIN, SERVFAIL) and not broker.open_for(4), "row 90: a policy that comes while the server thinks", got[0].raw)
    control.set(4, "D +oth.test")
    broker.hold = True
    got.clear()
    t = threading.Thread(target=lambda: got.append(ask(4, "oth.test")))
    t.start()
    until(lambda: broker.held)
    tag = control.begin_set(4, "D")
    time.sleep(0.1)
    ok(not got and tag not in control.replies, "and one that comes while the kernel opens: both wait")
    broker.release()
    ok(control.wait(tag) is not None, "is acknowledged")
    t.join()
    ok(got[0].rcode == NXDOMAIN and not broker.open_for(4), "the answer is the new policy's, nothing stays open", got[0].raw)
    control.set(5, "D", generation=2)
    broker.pins.clear()
    control.set(5, "A -x.test", generation=2)
    ask(5, "ok.test")
    ok(OK not in broker.open_for(5), "where all is allowed by default nothing needs to be opened")
    control.set(5, "D +ok.test", generation=2)
    ok(until(lambda: broker.open_for(5) == {OK}), "and when it is not any more, names that are allowed keep working", broker.open_for(5))
    bad = control.send(3, struct.pack("=II16sIIIIQ", 5, 2, bytes(16), ip4("10.213.0.5"), 0, 3, 5, 999), [os.memfd_create("x")])
    m = control.wait(bad)
    ok(m and struct.unpack("=i", m[24:28])[0] != 0 and ask(5, "ok.test").addrs() == [OK], "rules that cannot be read change nothing")


def identity():
    ok(ask_raw(2, question("ok.test"), 3) != b"", "an address with a policy is served")
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(3)
    s.bind(("203.0.113.99", 0))
    s.sendto(question("ok.test"), (LISTEN, PORT))
    ok(Message(s.recv(4096)).rcode == SERVFAIL, "one without a policy is not")
    subprocess.check_call("ip link add other type veth peer name far && ip link set other up && ip link set far up", shell=True)
    control.set(2, "D +ok.test")
    ask(2, "ok.test")
    skip("the same address from another link", "lo only: seen by the router's own tests")


def packets():
    control.set(2, "D +ok.test +10.0.0.0/8:5432")
    ask(2, "ok.test")

    log = packet
    broker.log_socket.send(log(13, "192.0.2.7", 443) + log(8, OK, 853) + b"junk")
    e = control.find(kind="ip_denied", addr="192.0.2.7")
    ok(e and e[0].reason == "no_lease" and e[0].port == 443 and e[0].protocol == 6 and e[0].slot == 2 and e[0].name == "", "a refused packet is an event", e)
    e = control.find(kind="ip_denied", addr=OK)
    ok(e and e[0].reason == "port" and e[0].name == "ok.test", "with the name that led there", e)
    for _ in range(50):
        broker.log_socket.send(log(13, "192.0.2.8", 80))
    told = lambda: [x for x in control.events if x.kind == "ip_denied" and x.addr == "192.0.2.8"]
    until(lambda: sum(x.count for x in told()) == 50)
    e = told()
    ok(2 <= len(e) <= 4 and sum(x.count for x in e) == 50, "fifty alike in a second are few events that count them", e)


def events_under_load():
    control.set(3, "D +ok.test")
    control.events.clear()
    denied_before = control.counts()["denied"]
    s = sock_of(3)
    for i in range(400):
        s.sendto(question(f"denied{i}.test"), (LISTEN, PORT))
    for _ in range(400):
        s.sendto(question("same.test"), (LISTEN, PORT))
        time.sleep(0.0005)
    denials = lambda: [e for e in control.events if e.slot == 3 and e.kind == "dns_denied"]
    until(lambda: sum(e.count for e in denials()) == control.counts()["denied"] - denied_before > 400)
    mine = denials()
    ok(len(mine) <= 600, "row 126: the number of events is bounded", len(mine))
    told, denied = sum(e.count for e in mine), control.counts()["denied"] - denied_before
    ok(told == denied and denied > 400, "row 126: and every denial is in one of them", (told, denied))
    # a reader that sleeps does not hold up names
    control.reading = False
    begin = time.monotonic()
    ok(all(ask(2, "ok.test") for _ in range(20)) and time.monotonic() - begin < 15, "a sandboxd that does not read holds up nobody")
    control.reading = True


def counters():
    c = control.counts()
    ok(c["questions"] > 100 and c["denied"] > 10 and c["pins"] > 10 and c["leases"] > 0 and c["forged"] > 0 and c["rebind_stripped"] > 5, "the counters", c)


def packet(refusal, dst, port, proto=6, src="10.213.0.2"):
    """what the kernel logs of a refused packet"""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 0, 0x4000, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst)) + struct.pack("!HH", 40000, port)
    return logged(refusal, ip)


def logged(refusal, ip):
    attrs = b""
    for kind, data in ((1, b"\x08\0\x03\0"), (10, b"sbx%02d\0" % refusal), (9, ip)):
        attrs += struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)
    body = struct.pack("!BBH", 2, 0, 1) + attrs
    return struct.pack("=IHHII", 16 + len(body), 0x400, 0, 0, 0) + body


def absences():
    global broker, control
    control.set(2, "D +ok.test +oth.test -bad.test")
    ask(2, "ok.test")
    control.die()
    ok(ask(2, "ok.test").addrs() == [OK] and ask(2, "bad.test").rcode == NXDOMAIN, "without sandboxd it goes on with what it knows")
    broker.log_socket.send(packet(13, "192.0.2.44", 443))
    ask(2, "nope.test")
    control = Sandboxd(run)
    ok(control.up.wait(30), "sandboxd is found again")
    control.set(2, "D -other.test +oth.test -bad.test +ok.test")
    ok(not control.events, "what happened meanwhile is kept until all sandboxes are named", control.events)
    control.synced()
    e = control.find(kind="dns_denied", name="bad.test")
    ok(len(e) == 1 and e[0].rule == 2 and e[0].policy == control.generation, "and then told, once, by the policy that sandboxd has now", e)
    e = control.find(kind="ip_denied", addr="192.0.2.44") + control.find(kind="dns_denied", name="nope.test")
    # Which of two sockets is read first is chance; what was read is told in that order.
    when = [told.when for told in control.events]
    ok(len(e) == 2 and when == sorted(when), "packets too, in their order", control.events)
    control.die()
    ask(2, "bad.test")
    control = Sandboxd(run)
    control.up.wait(30)
    control.set(2, "D -other.test +oth.test +ok.test")
    control.synced()
    e = control.find(kind="dns_denied", name="bad.test")
    ok(len(e) == 1 and e[0].rule == 0xFFFFFFFF and e[0].policy == control.generation, "a rule that is not there any more is not named", e)
    for slot in range(3, 8):
        control.set(slot, "D")
    lost = control.counts()["events_lost"]
    control.die()
    for slot in range(3, 8):
        for i in range(250):
            ask(slot, f"away{slot}-{i}.test")
    control = Sandboxd(run)
    control.up.wait(30)
    for slot in range(2, 8):
        control.set(slot, "D +ok.test +oth.test")
    control.synced()
    control.find(kind="dns_denied", name="away7-249.test")
    names = [e.name for e in control.events if e.name.startswith("away")]
    gone = control.counts()["events_lost"] - lost
    ok(len(names) == len(set(names)) == 1024 and gone == 1250 - 1024 and names[-1] == "away7-249.test",
       f"1,250 events meanwhile: the newest {len(names)} are kept, {gone} are counted as lost", names[:2] + names[-2:])
    control.die()
    control = Sandboxd(run)
    control.up.wait(30)
    control.set(2, "D +ok.test +oth.test")
    control.synced()
    ok(control.pins_of(3) == [] and ask(3, "ok.test").rcode == SERVFAIL, "what it does not name any more has no names")
    ok(not [e for e in control.events if e.name.startswith("away")], "and nothing is told twice")
    broker.die()
    time.sleep(0.2)
    m = ask(2, "oth.test")
    ok(m and m.rcode == SERVFAIL, "without a broker a new address is not told", m and m.raw)
    broker = Broker(run)
    ok(broker.ready.wait(30), "the broker is found again")
    ok(until(lambda: OK in broker.open_for(2)), "and gets what should be open", broker.pins)
    ok(ask(2, "oth.test").addrs() == [OTH], "and new addresses are told again")


def ask6(slot, msg, to, tcp=False, near="fd53:4258:0:d5::ad5:", wait=20):
    s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    s.settimeout(wait)
    s.bind((f"{near}{slot:x}", 0))
    try:
        s.connect((to, PORT))
        s.sendall((struct.pack("!H", len(msg)) if tcp else b"") + msg)
        return Message(s.recv(65536)[2 if tcp else 0:])
    finally:
        s.close()


def ipv6():
    """the same program with network.ipv6 = true; without it row 52 has seen that AAAA is empty and asked of nobody"""
    dnsd.stop()
    until(lambda: not control.up.is_set())
    broker.ipv6 = True
    broker.ready.clear()
    with open(dnsd.config) as f:
        text = f.read()
    with open(dnsd.config, "w") as f:
        f.write(text.replace("[network]", "[network]\nipv6 = true"))
    dnsd.start()
    ok(broker.ready.wait(30) and control.up.wait(30), "with network.ipv6 it is back")
    everything = " ".join("+" + n for n in SIXES)
    control.set(6, "D " + everything)
    control.synced()
    broker.pin_delay = 0.15
    begin = time.monotonic()
    m = ask(6, "six.test", AAAA)
    took = time.monotonic() - begin
    broker.pin_delay = 0
    pins = broker.pinned("2001:db8:100::10")
    ok(m.rcode == NOERROR and m.addrs6() == SIXES["six.test"], "row 52: an IPv6 address is answered", m.raw)
    ok(pins and pins[0][6] and pins[0][1] == 6 and took >= 0.15, "row 52: after the kernel has it", (pins, took))
    e = control.find(kind="dns_allowed", name="six.test", slot=6)
    ok(e and e[0].qtype == AAAA and e[0].addrs6[0] == "2001:db8:100::10", "row 52: and an event says so", e)
    before = asked("six.test")
    ok(ask(6, "six.test", AAAA).addrs6() == SIXES["six.test"] and asked("six.test") == before, "it is in the cache")
    ok([n for _, _, n in control.pins_of(6, "six.test")] == ["six.test"] and control.pins_of(6, "six.test")[0][0] == "2001:db8:100::10",
       "its lease is known by name", control.pins_of(6, "six.test"))
    ok(ask(6, "nobody6.test", AAAA).rcode == NXDOMAIN and not asked("nobody6.test"), "AAAA of a denied name is asked of nobody")
    for name, why in {"mapped6.test": "metadata", "nat6.test": "metadata", "ula6.test": "private", "meta6.test": "metadata", "peer6.test": "sandbox",
                      "host6.test": "host", "loop6.test": "metadata", "six.to4.test": "private"}.items():
        m = ask(6, name, AAAA)
        e = control.find(kind="rebind", name=name, slot=6)
        ok(m.rcode == NOERROR and not m.answers and e and e[0].reason == why and e[0].addrs6[0] == SIXES[name][0],
           f"row 52: {SIXES[name][0]} is taken out ({why})", (m.raw, e))
    m = ask(6, "mixed6.test", AAAA)
    ok(m.addrs6() == ["2001:db8:100::20", "2001:db8:100::21"], "row 52: the public ones of a mixed answer stay", m.addrs6())
    ok(broker.open_for(6) == {"2001:db8:100::10", "2001:db8:100::20", "2001:db8:100::21"}, "row 52: and only they are opened", broker.open_for(6))
    m = ask(6, "many6.test", AAAA, edns=4096)
    ok(m.tc or len(m.addrs6()) == 16, "at most 16 addresses are told and opened", len(m.addrs6()))
    control.set(6, "D +ula6.test +fd12::5")
    ok(ask(6, "ula6.test", AAAA).addrs6() == ["fd12::5"] and broker.open_for(6) == {"fd12::5"},
       "a rule for the address lets a private one through, and what the policy no longer names is closed", broker.open_for(6))
    control.set(2, "D +ok.test")
    for tcp in False, True:
        try:
            m = ask6(2, question("ok.test"), "2001:db8:53::99", tcp)
        except OSError as e:
            m = e
        ok(isinstance(m, Message) and m.addrs() == [OK], f"row 38: asked over IPv6 by {'TCP' if tcp else 'UDP'} it answers from the asked address", m)
    ok(ask6(2, question("oth.test"), "2001:db8:53::99").rcode == NXDOMAIN, "row 38: by the policy of who asks")
    try:
        ask6(0x99, question("ok.test"), "2001:db8:53::99", near="2001:db8:53::", wait=1)
        ok(False, "a source outside of subnet_v6 is not heard")
    except OSError:
        ok(True, "a source outside of subnet_v6 is not heard")
    packet6 = struct.pack("!IHBB", 6 << 28, 20, 6, 64) + socket.inet_pton(socket.AF_INET6, "fd53:4258:0:d5::ad5:6") + \
        socket.inet_pton(socket.AF_INET6, "2001:db8:100::77") + struct.pack("!HHIIBBHHH", 40000, 443, 0, 0, 0x50, 2, 1000, 0, 0)
    broker.log_socket.send(logged(13, packet6))
    e = control.find(kind="ip_denied", slot=6)
    ok(e and e[0].addrs6[0] == "2001:db8:100::77" and e[0].port == 443 and e[0].reason == "no_lease", "a refused IPv6 packet is told with its address", e)


def other_version():
    """a broker of before an upgrade: said once, nothing is asked of it, and its successor is found"""
    global broker
    text = lambda: open(run + "/log").read()
    control.set(2, "D +ok.test +oth.test")
    said = text().count("of version 2, this name server")
    broker.die()
    broker = Broker(run, version=2)
    ok(until(lambda: broker.hellos >= 3) and not broker.ready.is_set() and text().count("of version 2, this name server") == said + 1,
       "a broker of another version: the log says what to do, once, and nothing is asked of it", (broker.hellos, text()[-1000:]))
    ok(ask(2, "oth.test").rcode == SERVFAIL, "no name opens an address")
    broker.die()
    broker = Broker(run)
    ok(broker.ready.wait(30) and until(lambda: ask(2, "oth.test").addrs() == [OTH]), "the right one is found, and does")


# ---- the gate of TLS names: hop counts of packets, as the broker's interface would have them ----

GATE_PASS, GATE_RELEASE, GATE_DENY, GATE_BEGIN = 65, 66, 67, 68


def tcp(slot, dst, sport, seq, flags=2, data=b"", ack=0, spoil=0):
    src, dst = socket.inet_aton(f"10.213.0.{slot}"), socket.inet_aton(dst)
    body = struct.pack("!HHIIBBHHH", sport, 443, seq, ack, 0x50, flags, 65535, 0, 0) + data
    words = src + dst + struct.pack("!HH", 6, len(body)) + body + bytes(len(body) % 2)
    total = sum(struct.unpack(f"!{len(words) // 2}H", words))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:16] + struct.pack("!H", (~total & 0xFFFF) ^ spoil) + body[18:]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, 6, 0, src, dst) + body


def said(*packets):
    """hop counts of what comes back; behind them goes one that is always answered"""
    got = []
    for at in range(0, len(packets), 50):
        for p in packets[at:at + 50] + (tcp(2, OK, 1, 1, 0x10),):
            broker.gate.send(p)
        while (p := broker.gate.recv(2000))[20:22] != b"\0\1":
            got.append(p[8])
    return got


def gate():
    global broker
    broker.die()
    broker = Broker(run, with_gate=True)
    ok(broker.gate_up.wait(30), "dnsd asks for the gate's interface")
    control.set(2, "D +ok.test +oth.test +198.51.100.40 +198.51.100.41:80 -198.51.100.42 +cdn-a.test")
    ok(until(lambda: ask(2, "ok.test").addrs() == [OK]), "a name opens an address")
    ok(said(*[tcp(2, "198.51.100.40", 2000 + i, 7) for i in range(400)]) == [GATE_PASS] * 400, "400 connections to what a rule for addresses opens pass, and are not known")
    ok(said(tcp(2, "198.51.100.40", 2000, 8, 0x10)) == [GATE_DENY], "should the filter not have released one, it is none of ours")
    ok(said(*[tcp(2, a, 3000 + i, 7) for i, a in enumerate(["198.51.100.42", "198.51.100.43", "198.51.100.41"] * 100)]) == [GATE_PASS] * 300,
       "nor are those to addresses that nothing opens: the filter refuses them")
    got = said(*[tcp(2, OK, 5000 + i, 7) for i in range(300)])
    ok(got == [GATE_BEGIN] * 256, "of those to an address that a name opened, 256 may wait for their name", (len(got), set(got)))
    ok(said(tcp(2, OK, 5000, 7), tcp(2, OK, 5001, 7)) == [GATE_PASS] * 2, "a SYN that comes again begins nothing")
    ok(said(tcp(2, OK, 5000, 99)) == [GATE_BEGIN], "one with another number does, and says so: the kernel ends what it has of those ports")
    ok(said(*[tcp(2, OK, 5001, 99, f) for f in (0x03, 0x06, 0x0A, 0x12, 0x22)], tcp(2, OK, 5001, 99, spoil=1), tcp(2, OK, 5001, 99, data=b"x")) == [],
       "but not one that connection tracking takes for none: other flags, a wrong sum, bytes")
    ok(said(tcp(2, OK, 5001, 8, 0x10)) == [GATE_PASS], "which changes nothing of the flow")
    ok(said(tcp(2, OK, 5001, 99, 0xC2)) == [GATE_BEGIN], "the flags of ECN are a SYN's")
    control.set(2, "D +ok.test +oth.test")
    broker.die()
    broker = Broker(run)
    broker.ready.wait(30)


def killed():
    global control
    control.set(2, "D +ok.test +oth.test")
    ask(2, "ok.test")
    ask(2, "oth.test")
    dnsd.kill()
    broker.ready.clear()
    broker.log.clear()
    dnsd.start()
    ok(broker.ready.wait(30) and control.up.wait(30), "after kill -9 it is back")
    time.sleep(0.2)
    ok(ask(2, "ok.test").rcode == SERVFAIL, "and answers nobody before sandboxd has said who may what")
    control.set(2, "D +ok.test")
    control.synced()
    ok([l for l in broker.log if l[0] == UNPIN and OTH in l[2]] and not [l for l in broker.log if l[0] == UNPIN and OK in l[2]],
       "what was opened before is known: the new policy closes what it does not allow", broker.log)
    ok([n for _, _, n in control.pins_of(2, addr=OK)] == ["ok.test"], "and keeps the rest", control.pins_of(2, addr=OK))
    mode = os.stat(run + "/dnsd.leases")
    ok(mode.st_uid == 0 and mode.st_mode & 0o777 == 0o600, "nobody else reads or writes the table")
    control.drop(2)
    ok(ask(2, "ok.test").rcode == SERVFAIL, "a sandbox that is gone has no names")


ok(broker.ready.wait(30) and control.up.wait(30), "dnsd finds broker and sandboxd")
control.synced()
for what in (row_31, row_32, rows_33_to_37, row_38, row_39, row_40, rows_41_to_44, rows_45_to_47, row_48, rows_49_to_52, rows_53_54, rows_55_56, row_57,
             row_58, row_59, row_60, row_61, row_62, row_63, row_64, row_65, row_66, row_87, row_67, row_68, row_69, row_70, lease_limit, brakes, encrypted_resolvers,
             ports, policy_changes, identity, packets, events_under_load, counters, absences, other_version, gate, killed, ipv6):
    only = sys.argv[1:]
    if not only or what.__name__ in only:
        begin = time.monotonic()
        guarded(what.__name__, what)
        if os.environ.get("DNSD_TIMES"):
            print(f"# {what.__name__}: {time.monotonic() - begin:.2f} s")
ok(dnsd.child.poll() is None and dnsd.stop() == 0, "SIGTERM ends it")
if tap.failed:
    print("# " + open(run + "/log").read()[-3000:].replace("\n", "\n# "))
shutil.rmtree(run)
done()
