#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# A real tunnel (iodine) through sandbox-dnsd: over a name that is not allowed nothing goes out; below an allowed wildcard at most
# 64 KiB a minute, and an event.
import os, shutil, socket, subprocess, sys, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
from dnsd_lib import *

own_namespace(__file__)
SECONDS = 40


def tap_device():
    return subprocess.call(["ip", "tuntap", "add", "dev", "probe0", "mode", "tun"], stderr=subprocess.DEVNULL) == 0


if not shutil.which("iodine") or not shutil.which("iodined") or not tap_device():
    skip("a tunnel with iodine", "no iodine, or no tun device")
    done()
subprocess.call(["ip", "tuntap", "del", "dev", "probe0", "mode", "tun"])


def relay(q, tcp):
    """a server of the world: what is below tun.test is asked of the tunnel's far end"""
    if not q.lower.endswith("tun.test"):
        return [q.answer(rcode=NXDOMAIN)]
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(1)
    s.sendto(q.raw, ("127.0.0.1", 5354))
    try:
        return [s.recv(65536)]
    except socket.timeout:
        return []
    finally:
        s.close()


class Relay(Upstream):
    """each question in a thread of its own: the far end answers some of them late"""

    def run(self):
        while True:
            data, peer = self.udp.recvfrom(4096)
            q = Query(data)
            self.seen.append((q, peer[1], time.monotonic()))
            threading.Thread(target=lambda: [self.udp.sendto(m, peer) for m in relay(q, False)], daemon=True).start()


ups = [Relay(R1, relay), Relay(R2, relay)]
run = run_dir()
broker, control = Broker(run, 53, LISTEN), Sandboxd(run)
dnsd = Dnsd(run)
ok(broker.ready.wait(30) and control.up.wait(30), "dnsd finds broker and sandboxd")
control.synced()
far = subprocess.Popen(["iodined", "-f", "-c", "-P", "secret", "-p", "5354", "-l", "127.0.0.1", "-d", "far0", "10.99.0.1", "tun.test"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def tunnel(seconds):
    """runs the client and pours what it takes into the tunnel"""
    near = subprocess.Popen(["iodine", "-f", "-4", "-r", "-L", "0", "-T", "TXT", "-O", "Base64", "-m", "300", "-P", "secret", "-d", "near0", LISTEN, "tun.test"], stdout=subprocess.DEVNULL,
                            stderr=open(run + "/iodine", "w"))
    end = time.monotonic() + seconds
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while time.monotonic() < end and near.poll() is None:
        if "near0" in (name for _, name in socket.if_nameindex()):
            try:
                s.setsockopt(socket.SOL_SOCKET, 25, b"near0")  # SO_BINDTODEVICE: the far end is in the same namespace
                s.sendto(os.urandom(1000), ("10.99.0.9", 9))
            except OSError:
                pass
        time.sleep(0.01)
    near.kill()
    near.wait()
    return open(run + "/iodine").read()


# Neither held answers nor probing: the fastest way for data out.
# The client's packets come from the address that it asks, which is the sandbox here.
control.set(9, "D +ok.test", addr=LISTEN)
tunnel(6)
sent = sum(u.bytes_of("") for u in ups)
counts = control.counts()
ok(counts["denied"] > 3 and sent == 0, f"iodine over a name that is not allowed: {counts['denied']} questions, {sent} bytes out", counts)
control.set(9, "D +*.tun.test", addr=LISTEN)
for u in ups: u.seen.clear()
said = tunnel(SECONDS)
seen = sorted((t, len(q.raw)) for u in ups for q, _, t in u.seen)
worst = max((sum(n for t, n in seen if begin <= t < begin + 60) for begin, _ in seen), default=0)
ok("handshake" in said or len(seen) > 20, f"iodine below an allowed wildcard gets through at first: {len(seen)} questions", said)
ok(0 < worst <= 65536, f"and brings out {worst} bytes in a minute, not more than 65536", worst)
ok(control.find(kind="tunnel", slot=9), "an event says so", control.events[-5:])
far.kill()
far.wait()
ok(dnsd.stop() == 0, "dnsd ends")
shutil.rmtree(run)
done()
