# SPDX-License-Identifier: Apache-2.0
# Runs inside a sandbox, as any user: "good NAME" or "bad NAME WHAT" for each attack that must fail, or takes as much of one
# resource as it gets and keeps it ("hold").  Arguments: attack HOST:PORT... | hold KIND SECONDS
import ctypes, mmap, os, resource, socket, struct, sys, time

libc = ctypes.CDLL(None, use_errno=True)
REFUSED = {1, 2, 13, 22, 30, 38, 95, 6, 19, 93, 94, 97, 3}


def tell(good, name, what=""):
    print("%s %s %s" % ("good" if good else "bad", name, "" if good else what), flush=True)


def call(name, number, *args):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    e = ctypes.get_errno()
    tell(r < 0 and e in (1, 38, 13), name, "%d errno %d" % (r, e))


def opens(path, flags=os.O_RDONLY, data=None):
    try:
        fd = os.open(path, flags)
        got = os.write(fd, data) if data else len(os.read(fd, 16))
        tell(not data and got == 0, path, "%d bytes" % got)
    except OSError as e:
        tell(e.errno in REFUSED, path, e)


def foreign_abi():
    """The numbers of other ABIs on the same machine must not be a way round the filter: mount by x32 and by int 0x80."""
    if os.uname().machine != "x86_64":
        return
    for name in ("x32", "i386"):
        r, w = os.pipe()
        pid = os.fork()
        if not pid:
            if name == "x32":
                got = libc.syscall(ctypes.c_long(0x40000000 + 165), b"none", b"/tmp", b"tmpfs", 0, None)
            else:
                code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
                code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")  # getpid
                at = ctypes.addressof(ctypes.c_char.from_buffer(code))
                got = ctypes.CFUNCTYPE(ctypes.c_int)(at)()
            os.write(w, b"%d" % got)
            os._exit(0)
        os.close(w)
        status = os.waitpid(pid, 0)[1]
        got = os.read(r, 16)
        tell(os.WIFSIGNALED(status) or got.startswith(b"-"), name + " system calls", got)


def network(targets):
    for name, family, kind, protocol in (("raw socket", 2, 3, 1), ("raw socket of IPv6", 10, 3, 58), ("packet socket", 17, 3, 0x300),
                                         ("vsock", 40, 1, 0), ("AF_ALG", 38, 5, 0), ("kobject_uevent", 16, 3, 15),
                                         ("netfilter netlink", 16, 3, 12), ("audit netlink", 16, 3, 9), ("AF_XDP", 44, 3, 0)):
        try:
            socket.socket(family, kind, protocol).close()
            tell(False, name, "is given")
        except OSError:
            tell(True, name)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for name, level, option in (("SO_MARK", 1, 36), ("SO_RCVBUFFORCE", 1, 33), ("IP_TRANSPARENT", 0, 19)):
        try:
            s.setsockopt(level, option, 1)
            tell(False, name, "is set")
        except OSError:
            tell(True, name)
    for name, kind, data in (("an address by netlink", 20, struct.pack("BBBBI", 2, 32, 0, 0, 1) + struct.pack("HH4s", 8, 2, socket.inet_aton("198.51.100.1"))),
                             ("a route by netlink", 24, struct.pack("BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0)),
                             ("a link taken down", 16, struct.pack("BxHiII", 0, 0, 1, 0, 1))):
        n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        n.send(struct.pack("IHHII", 16 + len(data), kind, 5 | 0x600, 1, 0) + data)
        tell(struct.unpack_from("i", n.recv(4096), 16)[0] in (-1, -13), name, "is accepted")
    for target in targets:
        name, address, port = target.rsplit(":", 2)
        if name == "abstract":
            c, to = socket.socket(socket.AF_UNIX), "\0" + address
        else:
            c, to = socket.socket(), (address, int(port))
        c.settimeout(2)
        try:
            c.connect(to)
            tell(False, "reach " + name, "connected")
        except OSError:
            tell(True, "reach " + name)
        if name == "another sandbox":
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                u.bind((address, 0))
                tell(False, "its address", "is ours")
            except OSError:
                tell(True, "its address")


def attack(targets):
    left = [f for f in os.listdir("/proc/self/fd") if int(f) > 2]
    tell(len(left) == 1, "no descriptor is left over", left)
    for path in ("mem", "environ", "maps", "stack", "syscall", "auxv"):
        opens("/proc/1/" + path)
    for path in ("root/etc/passwd", "cwd/etc/passwd", "fd/3", "exe", "ns/pid", "task/1/mem", "map_files"):
        opens("/proc/1/" + path)
    for path in ("/proc/1/oom_score_adj", "/proc/1/clear_refs", "/proc/1/coredump_filter", "/proc/1/comm", "/proc/sys/kernel/core_pattern",
                 "/proc/sys/kernel/modprobe", "/proc/sys/kernel/ns_last_pid", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger",
                 "/proc/self/uid_map", "/proc/self/setgroups", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state",
                 "/sys/module/kernel/parameters/panic", "/proc/irq/default_smp_affinity"):
        opens(path, os.O_WRONLY, b"1")
    opens("/proc/self/oom_score_adj", os.O_WRONLY, b"-1000")
    for path in ("/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/dev/mem", "/dev/kmsg", "/dev/fuse", "/dev/net/tun", "/dev/kvm"):
        opens(path)
    tell(not os.listdir("/sys/fs/cgroup"), "/sys/fs/cgroup shows nothing")
    for name, kind in (("block", 0o60600), ("character", 0o20600)):
        try:
            os.mknod("/tmp/attack.node", kind, os.makedev(1, 1))
            tell(False, name + " device", "is made")
        except OSError:
            tell(True, name + " device")
    call("ptrace of pid 1", 101, 0x4206, 1, 0, 0)
    call("signal to pid 1", 62, 1, 9)
    call("prlimit of pid 1", 302, 1, 7, struct.pack("QQ", 1, 1), 0)
    call("scheduling of pid 1", 141, 0, 1, 19)
    byte = ctypes.create_string_buffer(1)
    iov = struct.pack("QQ", ctypes.addressof(byte), 1)
    call("memory of pid 1", 310, 1, iov, 1, struct.pack("QQ", 0x400000, 1), 1, 0)
    pidfd = libc.syscall(ctypes.c_long(434), 1, 0)
    call("descriptors of pid 1", 438, pidfd, 3, 0)
    for name, flag in (("user", 0x10000000), ("mount", 0x20000), ("net", 0x40000000), ("pid", 0x20000000), ("cgroup", 0x2000000),
                       ("time", 0x80), ("ipc", 0x8000000), ("uts", 0x4000000)):
        call("unshare " + name, 272, flag)
        if flag != 0x80:
            call("clone into a new %s namespace" % name, 56, flag | 17, 0, 0, 0, 0)
    call("setns", 308, os.open("/proc/self/ns/user", os.O_RDONLY), 0)
    for name, number in (("mount", 165), ("umount", 166), ("pivot_root", 155), ("open_tree", 428), ("move_mount", 429), ("fsopen", 430),
                         ("mount_setattr", 442), ("bpf", 321), ("io_uring", 425), ("asynchronous I/O", 206), ("userfaultfd", 323),
                         ("perf_event_open", 298), ("keyctl", 250), ("add_key", 248), ("request_key", 249), ("init_module", 175),
                         ("kexec_load", 246), ("open_by_handle_at", 304), ("name_to_handle_at", 303), ("swapon", 167), ("reboot", 169),
                         ("settimeofday", 164), ("acct", 163), ("syslog", 103), ("quotactl", 179), ("sethostname", 170), ("clone3", 435),
                         ("memfd_secret", 447), ("iopl", 172), ("personality of a namespace: fspick", 433), ("kcmp", 312), ("fanotify", 300)):
        call(name, number, 0, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tell(resource.getrlimit(resource.RLIMIT_CORE) == (1, 1), "a core limit of 0, which lets a handler of the host run")
    foreign_abi()
    network(targets)


def hold(kind, seconds):
    top = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (top, top))
    kept, n = [], 0
    try:
        if kind == "terminals":
            while n < 4096:
                kept.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
                n += 1
        elif kind == "sockets":  # MiB of data that wait in TCP sockets
            listener = socket.create_server(("127.0.0.1", 0), backlog=256)
            for _ in range(80):
                c = socket.socket()
                c.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
                c.connect(listener.getsockname())
                kept += [c, listener.accept()[0]]
                c.setblocking(False)
                try:
                    while True:
                        n += c.send(b"x" * 65536)
                except BlockingIOError:
                    pass
            n >>= 20
        elif kind == "flows":
            for _ in range(3):
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                kept.append(s)
                for port in range(1000, 4000):
                    try:
                        s.sendto(b"x", ("198.51.100.10", port))
                        n += 1
                    except OSError:
                        pass
        elif kind == "processes":
            end = time.time() + seconds
            while time.time() < end:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.05)
        elif kind == "memory":
            while True:
                kept.append(bytearray(b"x" * (1 << 22)))
    except OSError:
        pass
    print(n, flush=True)
    time.sleep(seconds)


if sys.argv[1] == "attack":
    attack(sys.argv[2:])
else:
    hold(sys.argv[2], float(sys.argv[3]))
