# SPDX-License-Identifier: Apache-2.0
# What the egress suites share: a name server, a world with servers, a webhook's sink and a daemon.  egress_lib.sh makes the
# namespaces.
import hmac, http.client, json, os, re, shutil, signal, socket, ssl, struct, subprocess, sys, threading, time

from dnsd_lib import read_name, rr
from tap_lib import done, ok, tap, until

run, world = os.environ["EGRESS_RUN"], os.environ["EGRESS_WORLD"]
build = os.environ.get("top_builddir", ".")
OK, OTH = "198.51.100.10", "198.51.100.11"
KEY = "the-key"
SECRET = "a secret of the webhook, 0123456789"
NAMES = {"ok.test": OK, "oth.test": OTH, "x.a.test": OK, "reb.test": "10.9.0.5", "meta.test": "169.254.169.254", "new.test": OTH,
         "dns.google": "8.8.8.8", "a.quiet.test": OK, "use-application-dns.net": OK}


# ---- the world: a name server on the host, servers outside ----

asked = []
records = None  # of a suite: (name, type) to [(owner or b"" for the asked one, type, ttl, data)], or None: what NAMES says


def name_server():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.1.1", 53))
    while True:
        q, peer = s.recvfrom(2000)
        name, at = read_name(q, 12)
        name, end = name.lower(), at + 4
        qtype = struct.unpack("!H", q[end - 4:end - 2])[0]
        asked.append(name)
        addr = NAMES.get(name)
        rows = records(name, qtype) if records else None
        rcode = 0x80 if addr or rows is not None else 0x83
        if rows is None:
            rows = [(b"", 1, 60, socket.inet_aton(addr))] if addr and qtype == 1 else []
        answer = b"".join(rr(owner or b"\xc0\x0c", kind, data, ttl) for owner, kind, ttl, data in rows)
        s.sendto(q[:2] + bytes([0x81, rcode]) + b"\0\1" + struct.pack("!H", len(rows)) + b"\0\0\0\0" + q[12:end] + answer, peer)


WORLD_SERVER = r"""
import socket, threading, time
def serve(s):
    while True:
        c, a = s.accept()
        threading.Thread(target=one, args=(c,), daemon=True).start()
def one(c):
    try:
        c.settimeout(5)
        want = c.recv(1000)
        if want.startswith(b"GET"):
            c.sendall(b"HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nhello\n")
            c.close()
            return
        while True:
            c.sendall(b"tick\n"); time.sleep(0.01)
    except OSError:
        pass
def echo(s):
    while True:
        data, peer = s.recvfrom(2000)
        s.sendto(data, peer)
for addr in ("198.51.100.10", "198.51.100.11", "10.9.0.5", "169.254.169.254", "8.8.8.8"):
    for port in (80, 443, 853, 9000):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((addr, port))
        threading.Thread(target=echo, args=(s,), daemon=True).start()
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((addr, port)); s.listen(64)
        threading.Thread(target=serve, args=(s,), daemon=True).start()
print("up", flush=True)
time.sleep(3600)
"""


hooks = []  # what the webhook's sink got: (time, head, body)
hook_answers = []  # statuses to give, then 200; "hang" gives none
certificate = "good"  # what the sink shows: good, or other, which the daemon's CA did not sign
bad_handshakes = []


def certificates():
    """a CA, a certificate for 127.0.0.1 by it and one by nobody; False without openssl"""
    if not shutil.which("openssl"):
        return False
    os.makedirs(run + "/tls", exist_ok=True)
    os.chmod(run + "/tls", 0o755)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]

    def openssl(*args):
        subprocess.run(["openssl", *args], cwd=run + "/tls", check=True, capture_output=True)

    openssl("req", "-x509", *key, "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.crt")
    openssl("req", "-x509", *key, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "other.key", "-out", "other.crt")
    openssl("req", *key[:-2], "-subj", "/CN=127.0.0.1", "-keyout", "good.key", "-out", "good.csr")
    with open(run + "/tls/ext", "w") as f:
        f.write("subjectAltName=IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "good.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", "good.crt")
    os.chmod(run + "/tls/ca.crt", 0o644)
    for name in ("good", "other"):
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        contexts[name].load_cert_chain(f"{run}/tls/{name}.crt", f"{run}/tls/{name}.key")
    return True


contexts = {}


def sink():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 9999))
    s.listen(64)

    def one(c):
        try:
            c.settimeout(20)
            if contexts:
                try:
                    c = contexts[certificate].wrap_socket(c, server_side=True)
                except OSError as e:
                    bad_handshakes.append(e)
                    return
            data = b""
            while b"\r\n\r\n" not in data:
                more = c.recv(65536)
                if not more:
                    return
                data += more
            head, _, body = data.partition(b"\r\n\r\n")
            length = int(re.search(rb"content-length: *(\d+)", head, re.I).group(1))
            while len(body) < length:
                body += c.recv(65536)
            hooks.append((time.monotonic(), head.decode(), json.loads(body), body))
            answer = hook_answers.pop(0) if hook_answers else 200
            if answer == "hang":
                time.sleep(12)
            else:
                c.sendall(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % answer)
            c.close()
        except OSError:
            pass

    while True:
        threading.Thread(target=one, args=(s.accept()[0],), daemon=True).start()


def show_certificate(name):
    global certificate
    certificate = name


# ---- the daemon ----

config, log = run + "/config", run + "/log"
deny_file, allow_file, skip_file, fault = run + "/deny.always", run + "/allow.always", run + "/log_skip.always", run + "/fault"

def write(path, text):
    with open(path + ".new", "w") as f:
        f.write(text)
    os.chmod(path + ".new", 0o644)
    os.rename(path + ".new", path)


gate = "auto"  # egress.tls_gate


def start(more=""):
    write(config, f"""instance = {os.environ.get('EGRESS_INSTANCE', '11')}
state_dir = "{run}/state"
run_dir = "{run}/run"
[server]
port = 18977
endpoint_port = 18978
api_key = "{KEY}"
[dns]
upstreams = ["127.0.1.1"]
[pool]
target = 2
[egress]
max_rules = 60
tls_gate = "{gate}"
overlay_deny = "{deny_file}"
overlay_allow = "{allow_file}"
log_skip = "{skip_file}"
deny_webhook = "http{'s' if contexts else ''}://127.0.0.1:9999/hook"
deny_webhook_ca = "{run + '/tls/ca.crt' if contexts else ''}"
deny_webhook_secret_file = "{run}/secret"
deny_webhook_attributes = ["team=core"]
{more}
[isolation]
slots = 40
""")
    p = launch()
    for _ in range(600):
        if "sandboxd ready" in open(log).read():
            return p
        time.sleep(0.05)
    print("Bail out! the daemon did not start\n# " + open(log).read()[-3000:].replace("\n", "\n# "))
    sys.exit(1)


def launch():
    """the daemon, by the configuration that start() wrote"""
    out = open(log, "a")
    return subprocess.Popen([build + "/sandboxd", "--standalone", "--config", config], stdout=out, stderr=out, env=dict(os.environ, SBX_FAULT_FILE=fault))


def child(name):
    return int(re.findall(rf"monitor: {name} started, pid (\d+)", open(log).read())[-1])


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(90)
        self.sock.connect(run + "/run/api.sock")


def call(method, path, body=None, headers=None, tcp=0):
    """status, headers, body; over TCP with the given headers alone, else over the Unix socket"""
    c = http.client.HTTPConnection("127.0.0.1", tcp, timeout=90) if tcp else Unix("localhost")
    if body is not None and not isinstance(body, (str, bytes)):
        body = json.dumps(body)
    c.request(method, path, body, headers or {})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r.status, dict((k.lower(), v) for k, v in r.getheaders()), data.decode("utf-8", "replace")


def create(policy="none", code=202):
    body = {"image": {"uri": "host"}, "timeout": 600, "resourceLimits": {}, "entrypoint": ["@idle"]}
    if policy != "none":
        body["networkPolicy"] = policy
    status, _, text = call("POST", "/v1/sandboxes", body)
    return json.loads(text)["id"] if status == 202 else (status, text)


def D(*rules):
    return {"defaultAction": "deny", "egress": [{"action": "allow" if r[0] == "+" else "deny", "target": r[1:]} for r in rules]}


def A(*rules):
    return dict(D(*rules), defaultAction="allow")


def policy(sid, method="GET", body=None, **kw):
    status, headers, text = call(method, f"/v1/sandboxes/{sid}/proxy/18080/policy", body, **kw)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def sh(sid, command, timeout=60):
    """what a command inside prints"""
    status, _, text = call("POST", f"/v1/sandboxes/{sid}/proxy/44772/command", {"command": command, "timeout": timeout * 1000})
    return "\n".join(json.loads(l)["text"] for l in text.split("\n") if l.startswith("{") and json.loads(l).get("type") in ("stdout", "stderr"))


def net_of(addr):
    """nsenter into the namespace that has this address on eth0"""
    seen = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            net = os.readlink(f"/proc/{pid}/ns/net")
            if net in seen:
                continue
            seen.add(net)
            if f" {addr}/" in subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "-4", "addr", "show", "dev", "eth0"],
                                             capture_output=True, text=True).stdout:
                return ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
        except OSError:
            pass
    return None


def connects(sid, host, port=80):
    out = sh(sid, f"timeout 20 bash -c 'exec 3<>/dev/tcp/{host}/{port} && echo GET >&3 && head -c 12 <&3' 2>/dev/null; echo code $?")
    return "HTTP/1.0 200" in out


def figures():
    return json.loads(call("GET", "/v1/egress/metrics")[2])


def run_suite(suite):
    """suite() between a fresh daemon and its purge; the end of the process"""
    certificates()
    threading.Thread(target=name_server, daemon=True).start()
    threading.Thread(target=sink, daemon=True).start()
    server = subprocess.Popen(["nsenter", "-t", world, "-n", "--", sys.executable, "-c", WORLD_SERVER], stdout=subprocess.PIPE)
    server.stdout.readline()
    with open(os.open(run + "/secret", os.O_WRONLY | os.O_CREAT, 0o400), "w") as f:
        f.write(SECRET + "\n")
    for f in (deny_file, allow_file, fault):
        write(f, "")
    write(skip_file, "# quiet\n*.quiet.test\n")
    daemon = start()
    try:
        suite(daemon)
    except Exception as e:  # noqa: BLE001: one failed row, and the log that may say why
        import traceback

        ok(False, f"{type(e).__name__}: {e}", traceback.format_exc())
    finally:
        if tap.failed:
            print("# " + open(log).read()[-6000:].replace("\n", "\n# "))
        daemon.terminate()
        daemon.wait()
        subprocess.run([build + "/sandboxd", "--purge", "--config", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        server.kill()
    done()
