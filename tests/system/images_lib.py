# SPDX-License-Identifier: Apache-2.0
"""What the suites of images share: TAP, the daemon's socket, its log and its fault points."""
import contextlib, http.client, json, os, re, shutil, signal, socket, subprocess, time, urllib.parse

E = os.environ
WORK, STATE, BUILD, FAULT, LOG = E["WORK"], E["STATE"], E["BUILD"], E["FAULT"], E["LOG"]
CTL = BUILD + "/sandboxctl"
n_tests = n_failed = 0


def ok(good, name, more=""):
    global n_tests, n_failed
    n_tests += 1
    print(("ok" if good else "not ok") + " %d - %s" % (n_tests, name), flush=True)
    if not good:
        n_failed += 1
        print("#   " + str(more).replace("\n", "\n#   "), flush=True)


def skip(name, why):
    global n_tests
    n_tests += 1
    print("ok %d - %s # SKIP %s" % (n_tests, name, why), flush=True)


def count_from(n):
    """Go on where an earlier part of the suite stopped."""
    global n_tests
    n_tests = n


def result():
    """(tests so far, of them failed)"""
    return n_tests, n_failed


def until(seconds, what):
    end = time.monotonic() + seconds + 30  # more than it should need: a machine that is shared may stand still
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)  # what other processes do to a directory is announced by no descriptor
    return False


def quietly(what):
    try:
        return what()
    except (OSError, http.client.HTTPException, ValueError):
        return False


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(E["SANDBOXD_SOCKET"])


def call(method, path, body=None):
    """Status and answer; bytes are sent as they are, anything else as JSON."""
    c = Unix("localhost")
    try:
        raw = body is None or isinstance(body, bytes)
        c.request(method, path, body if raw else json.dumps(body), {} if raw else {"Content-Type": "application/json"})
        r = c.getresponse()
        data = r.read()
    finally:
        c.close()
    return r.status, json.loads(data) if data and r.headers.get("Content-Type", "").startswith("application/json") else data


def quoted(image):
    return urllib.parse.quote(image, safe="")


def remove(*images):
    for image in images:
        call("DELETE", "/v1/images/" + quoted(image))
    call("POST", "/v1/images/prune?all=true")


def have(tool):
    return shutil.which(tool) is not None


def fault_points():
    return os.path.exists(BUILD + "/config.h") and "#define SBX_FAULT_POINTS" in open(BUILD + "/config.h").read()


@contextlib.contextmanager
def armed(fault):
    with open(FAULT, "w") as f:
        f.write(fault)
    try:
        yield
    finally:
        open(FAULT, "w").close()


def sandboxd_pid():
    return int(re.findall(r"monitor: sandboxd started, pid (\d+)", open(LOG).read())[-1])


def children_of(parent):
    """(pid, command line) of each."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            text = open("/proc/%s/stat" % pid).read()
            if int(text[text.rindex(")") + 2:].split()[1]) == parent:
                found.append((int(pid), open("/proc/%s/cmdline" % pid).read().split("\0")))
        except (OSError, ValueError):
            continue
    return found


@contextlib.contextmanager
def undying(pid, name):
    """A process that SIGKILL does not end until this is over: frozen by the freezer of cgroup v1.  Yields False where there is none."""
    group = "/sys/fs/cgroup/freezer/%s-%d" % (name, os.getpid())
    try:
        os.mkdir(group)
    except OSError:
        yield False
        return
    try:
        with open(group + "/cgroup.procs", "w") as f:
            f.write(str(pid))
        with open(group + "/freezer.state", "w") as f:
            f.write("FROZEN")
        yield until(10, lambda: open(group + "/freezer.state").read() == "FROZEN\n")
    finally:
        with open(group + "/freezer.state", "w") as f:
            f.write("THAWED")
        for other in open(group + "/cgroup.procs").read().split():
            with open("/sys/fs/cgroup/freezer/cgroup.procs", "w") as f:
                quietly(lambda: f.write(other))
        until(10, lambda: quietly(lambda: os.rmdir(group) is None))
