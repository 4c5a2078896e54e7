# SPDX-License-Identifier: Apache-2.0
# See egress_explain.sh.
import os, sys, urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import egress_lib
from egress_lib import *

egress_lib.gate = "off"  # attempts are no TLS, whatever their port

# policy: (attempt, whether it should pass, the reason when not); an attempt is TARGET:PORT[/udp]
TABLE = {
    "D": [("ok.test:80", False, "default"), (f"{OK}:80", False, "no_lease"), ("169.254.169.254:80", False, "metadata"),
          ("10.9.0.5:80", False, "private"), ("8.8.8.8:53/udp", True, ""), ("198.51.100.1:80", False, "host"), ("localhost:1", True, "")],
    "D +ok.test": [("ok.test:80", True, ""), ("ok.test:853", False, "dot"), ("ok.test:443/udp", False, "quic"), ("ok.test:9000/udp", True, ""),
                   (f"{OK}:80", True, ""), (f"{OTH}:80", False, "no_lease"), ("x.ok.test:80", False, "default")],
    "D +*.a.test +reb.test +meta.test": [("x.a.test:443", True, ""), ("a.test:80", False, "default"), ("reb.test:80", False, "private"),
                                         ("meta.test:80", False, "metadata")],
    "D +ok.test:80 +10.9.0.5:80": [("ok.test:80", True, ""), ("ok.test:443", False, "port"), ("10.9.0.5:80", True, ""), ("10.9.0.5:443", False, "port")],
    "D +reb.test +10.9.0.0/24": [("reb.test:80", True, ""), ("10.9.0.5:853", False, "dot")],
    "D -x.a.test +*.a.test": [("x.a.test:80", False, "rule")],
    "D +198.51.100.0/24 -198.51.100.11": [(f"{OK}:443/udp", True, ""), (f"{OTH}:80", False, "rule")],
    "D -198.51.100.0/24 +ok.test": [("ok.test:80", False, "rule")],
    "D +dns.google +use-application-dns.net": [("dns.google:80", True, ""), ("use-application-dns.net:80", False, "doh")],
    "A": [("8.8.8.8:443", True, ""), (f"{OK}:853", True, ""), ("10.9.0.5:80", False, "private"), ("dns.google:80", False, "doh"), ("meta.test:80", False, "metadata")],
    "A -oth.test": [("oth.test:80", False, "rule"), (f"{OTH}:80", True, ""), (f"{OTH}:853", False, "dot"), (f"{OK}:443/udp", False, "quic"),
                    ("8.8.8.8:443", False, "doh"), ("8.8.8.8:80", True, ""), ("host:80", False, "default")],
    "A +ok.test:80 -oth.test": [("ok.test:443", True, "")],
    "A +dns.google": [("dns.google:443", False, "doh")],
    "A +8.8.8.8 -oth.test": [("8.8.8.8:443", True, "")],
    "A -198.51.100.11": [(f"{OTH}:80", False, "rule"), (f"{OK}:853", True, ""), (f"{OK}:443/udp", True, "")],
}

ATTEMPTS = r"""python3 - <<'X'
import json, os, socket, struct, time
log = os.environ["SANDBOX_DENIED_LOG"]
def lines():
    return open(log).read().splitlines()
def attempt(target, port, udp):
    global target_addr
    target_addr = None
    try:
        addr = target_addr = target if target[0].isdigit() else socket.getaddrinfo(target, port, socket.AF_INET)[0][4][0]
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        s.settimeout(20)
        if target == "localhost":
            l = socket.socket(); l.bind(("127.0.0.1", port)); l.listen(1)
        s.connect((addr, port))
        if target == "localhost":
            return True
        q = struct.pack("!6H", 9, 0x100, 1, 0, 0, 0) + b"\x02ok\x04test\x00\x00\x01\x00\x01"
        s.send(q if port == 53 else b"GET")
        return bool(s.recv(100))
    except OSError:
        return False
def is_about(e, target, port, udp):
    # a name that is refused has no port, and a packet may be told by its address alone
    if target != e.get("name", "").rstrip(".") and (target_addr is None or e.get("address") != target_addr):
        return False
    return "port" not in e or (e["port"] == port and e.get("protocol") == ("udp" if udp else "tcp"))
for target, port, udp in WHAT:
    before = set(lines())
    passed = attempt(target, port, udp)
    new = []
    end = time.time() + (0 if passed else 20)
    while not new and time.time() < end:
        new = [e for e in (json.loads(l) for l in lines() if l not in before) if is_about(e, target, port, udp)]
        time.sleep(0.005)
    print(json.dumps([passed, new[-1]["reason"] if new else ""]), flush=True)
    time.sleep(0.05)  # the kernel tells 20 refusals a second
X"""


def read_policy(text):
    words = text.split()
    rules = []
    for w in words[1:]:
        target, _, ports = w[1:].partition(":")
        rules.append({"action": "allow" if w[0] == "+" else "deny", "target": target, **({"ports": [int(ports)]} if ports else {})})
    return {"defaultAction": "deny" if words[0] == "D" else "allow", "egress": rules}


def read_attempt(text):
    text, _, proto = text.partition("/")
    target, _, port = text.rpartition(":")
    return target, int(port), proto == "udp"


def explain(sid, what):
    s, h, t = call("GET", f"/v1/sandboxes/{sid}/egress/explain?target=" + urllib.parse.quote(what))
    return json.loads(t)


def table():
    n = 0
    for text, rows in TABLE.items():
        sid = create(read_policy(text))
        out = sh(sid, ATTEMPTS.replace("WHAT", repr([read_attempt(r[0]) for r in rows])), 300)
        got = [json.loads(l) for l in out.splitlines() if l.startswith("[")]
        ok(len(got) == len(rows), f"{text}: all attempts are made", out)
        for (what, passes, reason), (passed, why) in zip(rows, got):
            v = explain(sid, what)
            said = v["verdict"] == "allowed"
            ok(passed == passes == said and (passes or (why == reason and v["reason"] == reason)),
               f"{text}: {what}: {'passes' if passed else why}, and explain says so", (passed, why, v))
            n += 1
        call("DELETE", f"/v1/sandboxes/{sid}")
    ok(n > 40, f"{n} attempts")


def before_it_is_tried():
    """explain of what nobody has looked up yet"""
    sid = create(read_policy("D +ok.test:80 +*.a.test"))
    for what, verdict, reason in (("ok.test:80", "allowed", "rule"), ("ok.test:22", "denied", "port"), ("x.a.test:443/udp", "denied", "quic"),
                                  ("x.a.test:853", "denied", "dot"), ("oth.test:80", "denied", "default"), ("ok.test", "allowed", "rule"),
                                  ("dns.google:443", "denied", "default")):
        v = explain(sid, what)
        ok((v["verdict"], v["reason"]) == (verdict, reason), f"explain {what} before anybody asked for it", v)
    policy(sid, "PUT", read_policy("A"))
    v = explain(sid, "x.dns.google:443")
    ok(v["reason"] == "doh" and v["remedy"]["allow"] == "x.dns.google", "explain knows the names of encrypted resolvers, and what to do", v)
    policy(sid, "PUT", read_policy("D +reb.test"))
    sh(sid, "getent ahostsv4 reb.test")
    v = explain(sid, "reb.test:80")
    ok(v["reason"] == "private" and v["remedy"]["allow"] == "10.9.0.5" and "10.9.0.5" in v["note"], "and of a private address that only a rule for it helps", v)


AWAY = r"""nohup python3 -c '
import socket, time
n = 0
while True:
    name = "away%d.test" % n
    n += 1
    t = time.time()
    try: socket.getaddrinfo(name, 80, socket.AF_INET)
    except OSError: pass
    open("/tmp/TRIED", "a").write("%s %.6f %.6f\n" % (name, t, time.time()))
    time.sleep(0.05)
' >/dev/null 2>&1 &"""


def while_away(monitor):
    sid = create(D("+ok.test"))
    name = f"tried-{sid}"
    sh(sid, AWAY.replace("TRIED", name))

    def in_proc():
        """not through sandboxd, which will be away"""
        for p in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{p}/cmdline", "rb") as f:
                    if name.encode() in f.read() and os.path.exists(f"/proc/{p}/root/tmp/{name}"):
                        return p
            except OSError:
                pass  # it has ended
        return None

    ok(until(in_proc), "lookups go on in the sandbox")
    pid = in_proc()
    tried = lambda: [l.split() for l in open(f"/proc/{pid}/root/tmp/{name}")]
    until(lambda: len(tried()) > 3)
    old = child("sandboxd")
    os.kill(monitor, signal.SIGSTOP)  # or it would be back at once
    os.kill(old, signal.SIGKILL)
    until(lambda: open(f"/proc/{old}/stat").read().rsplit(")", 1)[1].split()[0] == "Z")
    gone = time.time()
    until(lambda: sum(float(a) > gone for n, a, b in tried()) > 3, 120)
    back = time.time()
    os.kill(monitor, signal.SIGCONT)
    until(lambda: child("sandboxd") != old)
    names = []

    def journal():
        s, h, t = call("GET", f"/v1/sandboxes/{sid}/egress/events")
        names[:] = [e.get("name") for e in json.loads(t)["items"] if e["kind"] == "dns_denied"]
        return names

    until(journal)
    meanwhile = [n for n, a, b in tried() if float(a) > gone and float(b) < back]
    until(lambda: set(meanwhile) <= set(journal()))
    counts = [names.count(n) for n in meanwhile]
    ok(len(meanwhile) > 3 and counts == [1] * len(counts),
       f"kill -9 of sandboxd: {len(meanwhile)} denials while it was away are in the journal, each once", (meanwhile, names))


def without_dnsd(monitor):
    """a change while the name server is away is refused, and says what to do"""
    # sandboxd was killed just now: it answers before it makes sandboxes again.
    made = []
    until(lambda: made.append(create(D("+ok.test"))) or isinstance(made[-1], str))
    sid = made[-1]
    os.kill(monitor, signal.SIGSTOP)
    os.kill(child("dnsd"), signal.SIGKILL)
    s, v = policy(sid, "PATCH", D("+new.test")["egress"])
    os.kill(monitor, signal.SIGCONT)
    ok(s == 503 and "sandbox-dnsd is not running" in v and "try again" in v and "old one is in force" in v, "a change while dnsd is away: 503, with what to do", (s, v))
    ok(policy(sid)[1]["policy"] == D("+ok.test"), "and GET shows the old policy")
    ok(until(lambda: policy(sid, "PATCH", D("+new.test")["egress"])[0] == 200), "which is changed when dnsd is back")
    hung = child("dnsd")
    os.kill(hung, signal.SIGSTOP)
    s, v = policy(sid, "PATCH", D("+more.test")["egress"])
    ok(s == 503 and "try again" in v and policy(sid)[1]["policy"] == D("+new.test", "+ok.test"), "a change while dnsd hangs: 503 too, and nothing is changed", (s, v))
    os.kill(hung, signal.SIGCONT)
    ok(until(lambda: policy(sid, "PATCH", D("+more.test")["egress"])[0] == 200) and child("dnsd") == hung, "and when it goes on, changes are taken")
    ok(until(lambda: connects(sid, "ok.test")) and not connects(sid, "oth.test"), "and names are judged by them")


def log_skip():
    """allowed look-ups of names in egress.log_skip leave no event, denied ones do"""
    sid = create(D("+*.quiet.test", "+ok.test"))
    sh(sid, "getent ahostsv4 a.quiet.test; getent ahostsv4 ok.test")
    items = lambda: json.loads(call("GET", f"/v1/sandboxes/{sid}/egress/events")[2])["items"]
    ok(until(lambda: [e for e in items() if e.get("name") == "ok.test"]) and not [e for e in items() if e.get("name") == "a.quiet.test"],
       "log_skip: an allowed look-up of such a name is not told", items())
    policy(sid, "PUT", D())
    sh(sid, "getent ahostsv4 a.quiet.test")
    ok(until(lambda: [e for e in items() if e.get("name") == "a.quiet.test" and e["verdict"] == "denied"]), "log_skip: a denied one is", items())


def bad_overlays():
    """a start with a file of the operator that does not read"""
    for name, text in (("deny", "ok.test\nnot a name\n"), ("allow", "10.0.0.0/33\n"), ("deny", "*\n"), ("skip", "ok.test\n10.0.0.1\n")):
        path = {"deny": deny_file, "allow": allow_file, "skip": skip_file}[name]
        write(path, text)
        before = len(open(log).read())
        p = launch()
        p.wait(60)
        said = open(log).read()[before:]
        ok(p.returncode != 0 and path in said and "sandboxd ready" not in said, f"file {name}: {text!r}: the daemon does not start, and says where", said)
        write(path, "")


def suite(daemon):
    table()
    before_it_is_tried()
    log_skip()
    while_away(daemon.pid)
    without_dnsd(daemon.pid)
    daemon.terminate()
    daemon.wait(60)
    bad_overlays()


run_suite(suite)
