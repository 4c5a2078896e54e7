#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# CPU time per question and questions a second of sandbox-dnsd beside unbound, dnsmasq (nftset) and smartdns, all as forwarders to
# the same local name server, in one network namespace, one after the other and round again.  Limits per sandbox are off.  The
# floor is that name server itself, asked straight: it receives and sends as sandbox-dnsd does, and nothing else.
# DNS_SECONDS (4) and DNS_ROUNDS (2) change the size.  Figures, never a test.
import os, shutil, statistics, subprocess, sys, tempfile, time

build = os.environ.get("top_builddir", ".")
seconds, rounds = int(os.environ.get("DNS_SECONDS", "4")), int(os.environ.get("DNS_ROUNDS", "2"))
if os.geteuid() != 0:
    sys.exit("dns bench: needs root")
if "DNS_BENCH_INSIDE" not in os.environ:
    os.environ["DNS_BENCH_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", "-n", "--", sys.executable, os.path.abspath(__file__)])
sh = lambda c: subprocess.check_call(c, shell=True)
sh("ip link set lo up; for a in 198.51.100.53 169.254.1.1 10.213.0.2; do ip addr add $a/32 dev lo; done")
work = tempfile.mkdtemp(prefix="dnsbench.")
os.chmod(work, 0o755)
run = work + "/run"
os.mkdir(run)
peer = build + "/tests/bench/dns_peer"
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
auth = subprocess.Popen([peer, "auth", "198.51.100.53"])


def put(name, text):
    with open(f"{work}/{name}", "w") as f:
        f.write(text)
    return f"{work}/{name}"


cached = put("cached", "".join(f"n{i}.c.test A\n" for i in range(100)))
denied = put("denied", "".join(f"n{i}.denied.test A\n" for i in range(1000)))
unique = put("unique", "".join(f"n{i}.u.test A\n" for i in range(600000)))


def sandbox_dnsd():
    config = put("dnsd.toml", '[network]\nsubnet = "10.213.0.0/16"\n[dns]\nupstreams = ["198.51.100.53"]\nlimits = false\n'
                              "[isolation]\ndnsd_uid = 1899000124\n")
    around = subprocess.Popen([peer, "around", run, "10.213.0.2"])
    time.sleep(0.3)
    return subprocess.Popen([build + "/sandbox-dnsd", "--config", config, "--run-dir", run], stderr=open(work + "/log", "a")), around


def unbound():
    config = put("unbound.conf", f"""server:
  interface: 169.254.1.1
  access-control: 0.0.0.0/0 allow
  num-threads: 1
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{work}"
  pidfile: ""
  use-syslog: no
  logfile: "{work}/unbound.log"
  do-not-query-localhost: no
  local-zone: "test." nodefault
  module-config: "iterator"
  outgoing-range: 4096
  num-queries-per-thread: 2048
  so-rcvbuf: 4m
forward-zone:
  name: "."
  forward-addr: 198.51.100.53
""")
    return subprocess.Popen(["unbound", "-d", "-c", config], **quiet), None


def dnsmasq():
    sh("nft add table inet bench; nft 'add set inet bench names { type ipv4_addr; }'")
    return subprocess.Popen(["dnsmasq", "-k", "-C", "/dev/null", "--user=root", "--no-resolv", "--no-hosts", "--server=198.51.100.53", "--cache-size=10000",
                             "--dns-forward-max=2000", "--listen-address=169.254.1.1", "--bind-interfaces", "--pid-file=",
                             "--nftset=/c.test/u.test/4#inet#bench#names"], **quiet), None


def smartdns():
    config = put("smartdns.conf", f"bind 169.254.1.1:53\nserver 198.51.100.53\nspeed-check-mode none\ncache-size 10000\nlog-level error\nlog-file {work}/smartdns.log\n"
                                  "dualstack-ip-selection no\nserve-expired no\ncache-persist no\nprefetch-domain no\n")
    return subprocess.Popen(["smartdns", "-f", "-p", "-", "-c", config], **quiet), None


def cpu(pid):
    f = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(f[11]) + int(f[12])) / os.sysconf("SC_CLK_TCK")


def measure(child, data, outstanding, at="169.254.1.1"):
    subprocess.run(["dnsperf", "-s", at, "-a", "10.213.0.2", "-d", cached, "-l", "1", "-q", "100"], **quiet)
    before = cpu(child.pid)
    out = subprocess.run(["dnsperf", "-s", at, "-a", "10.213.0.2", "-d", data, "-l", str(seconds), "-q", str(outstanding), "-c", "4"],
                         capture_output=True, text=True).stdout
    used = cpu(child.pid) - before
    value = {l.split(":")[0].strip(): l.split(":")[1].split()[0] for l in out.splitlines() if ":" in l and l.split(":")[1].split()}
    done = int(value.get("Queries completed", 0))
    lost = int(value.get("Queries lost", 0))
    good = next((int(l.split("NOERROR")[1].split()[0]) for l in out.splitlines() if "NOERROR" in l), 0)
    return (1e6 * used / done if done else float("nan"), float(value.get("Queries per second", 0)), lost, 100 * good / done if done else 0)


servers = [("sandbox-dnsd", sandbox_dnsd), ("unbound", unbound), ("dnsmasq+nftset", dnsmasq), ("smartdns", smartdns)]
kinds = [("cached", cached, 400), ("uncached", unique, 400), ("denied", denied, 400)]
figures = {}
for _ in range(rounds):
    for name, start in servers:
        if name != "sandbox-dnsd" and not shutil.which(name.split("+")[0]):
            continue
        child, more = start()
        time.sleep(1)
        for kind, data, outstanding in kinds:
            if kind == "denied" and name != "sandbox-dnsd":
                continue
            figures.setdefault((name, kind), []).append(measure(child, data, outstanding))
        for p in (child, more):
            if p:
                p.kill()
                p.wait()
        sh("nft delete table inet bench 2>/dev/null || :")
    figures.setdefault(("floor", "cached"), []).append(measure(auth, cached, 400, "198.51.100.53"))
print(f"# {os.uname().release}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, {rounds} rounds of {seconds} s, median")
print(f"{'':16}{'':10}{'us CPU/question':>16}{'questions/s':>14}{'lost':>8}{'NOERROR %':>11}")
for (name, kind), rows in figures.items():
    m = [statistics.median(r[i] for r in rows) for i in range(4)]
    print(f"{name:16}{kind:10}{m[0]:16.1f}{m[1]:14.0f}{m[2]:8.0f}{m[3]:11.0f}")
auth.kill()
shutil.rmtree(work)
