#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What registry.sh runs: pulls against a fake registry and a real one.  Prints TAP; exits 1 when a row failed."""
import gzip, io, json, os, re, shutil, signal, socket, ssl, subprocess, sys, tarfile, tempfile, threading, time, urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fakes"))
from registry import DOCKER, MACHINE, OCI, Registry, Repo, digest, dump, make_oci  # noqa: E402

import images_lib as lib  # noqa: E402
from images_lib import BUILD, CTL, E, LOG, STATE, WORK, Unix, armed, call, ok, quietly, remove, sandboxd_pid, skip, until  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))


def pull(image, auth=None, policy="always", each=None):
    """("done", image), ("error", message) or (status, answer) when it was refused at once"""
    c = Unix("localhost")
    body = {"image": image, "policy": policy}
    if auth:
        body["auth"] = {"username": auth[0], "password": auth[1]}
    c.request("POST", "/v1/images/pull", json.dumps(body), {"Content-Type": "application/json"})
    r = c.getresponse()
    if r.status != 200:
        answer = r.status, r.read().decode()
        c.close()
        return answer
    try:
        for line in r:
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if event["type"] == "done":
                return "done", event["image"]
            if event["type"] == "error":
                return "error", event["error"]["message"]
            if each and each(event) is False:
                return "left", None
    finally:
        c.close()
    return "cut", None


def run(image, *command, pull_policy=None):
    p = subprocess.run([CTL, "run"] + (["--pull", pull_policy] if pull_policy else []) + ["--image", image, "--"] + list(command),
                       capture_output=True, text=True, timeout=60)
    return p.stdout, p.stderr, p.returncode


# ---- the fake registry ----

R = Registry("127.0.0.1", 5001)
CDN = Registry("127.0.0.2", 5002)
FAR = Registry("10.9.9.9", 5003)
HOST = "127.0.0.1:5001/"
R.token = lambda h: h.send(200, dump({"token": "t0ken"}), {"Content-Type": "application/json"})
R.repos["good"] = Repo()


def two_layers(pad=0):
    return [make_oci.first_layer(), make_oci.further_layer(1, pad)]


def set_layer(key, value, index=-1):
    def edit(m):
        m["layers"][index][key] = value
    return edit


def index_of(entries):
    return dump({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": entries})


def entry(media=OCI + "manifest.v1+json", data=b"{}", os_name="linux", arch=MACHINE, **more):
    return dict({"mediaType": media, "digest": digest(data), "size": len(data),
                 "platform": {"os": os_name, "architecture": arch}}, **more)


def by_header(status, headers, body=b""):
    return lambda h, repo, ref, n: h.send(status, body, headers) or True


def layer_only(action):
    """For the last layer of the image only, not for its configuration."""
    def on_blob(h, repo, ref, n):
        return action(h, repo, repo.blobs[ref], n) if ref == repo.big else None
    return on_blob


def redirect(to):
    return layer_only(lambda h, repo, data, n: h.send(307, b"", {"Location": to}) or True)


def half_then(h, repo, data, n, act):
    if n > 1:
        return None
    h.send(200, data[:len(data) // 2], length=len(data))
    act(h)
    return True


def challenge(*values, then=None):
    def gate(h, repo):
        if then and then(h):
            return None
        h.error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": list(values)})
        return True
    return gate


LIE = b"x" * 300
BIG_JSON = b"{" + b" " * (4 * 1024 * 1024 + 10) + b"}"


def chunked(h, repo, ref, n):
    h.send_response(200)
    h.send_header("Content-Type", OCI + "manifest.v1+json")
    h.send_header("Transfer-Encoding", "chunked")
    h.end_headers()
    for _ in range(5 * 16):
        h.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    h.write(b"0\r\n\r\n")
    return True


def no_length(data):
    def act(h, repo, blob, n):
        h.send(200, data(blob), length="none")
        h.close_connection = True
        return True
    return layer_only(act)


def times(count, answer):
    """The first answers of each blob of a layer are these."""
    def act(h, repo, data, n):
        if n > count:
            return None
        answer(h)
        return True
    return layer_only(act)


def repos():
    signed = dump({"schemaVersion": 1, "fsLayers": [], "history": []})
    rows = [
        # (why, name, Repo(...), None for success or what the error must say)
        ("one layer", "good", Repo(), None),
        ("schema 1", "schema1", Repo(body=signed, media=DOCKER + "distribution.manifest.v1+json"), "schema 1 manifests are not taken"),
        ("schema 1, signed, no JSON", "schema1s", Repo(body=b"not json", media=DOCKER + "distribution.manifest.v1+prettyjws"),
         "schema 1 manifests are not taken"),
        ("schema 1 under another type", "schema1x", Repo(body=signed, media=OCI + "manifest.v1+json"), "schema 1 manifests are not taken"),
        ("a foreign layer", "foreign", Repo(edit=set_layer("mediaType", DOCKER + "image.rootfs.foreign.diff.tar.gzip")),
         "foreign layers are not taken"),
        ("a layer that may not be distributed", "nondist",
         Repo(edit=set_layer("mediaType", OCI + "layer.nondistributable.v1.tar+gzip")), "foreign layers are not taken"),
        ("an encrypted layer", "crypt", Repo(edit=set_layer("mediaType", OCI + "layer.v1.tar+gzip+encrypted")), "encrypted"),
        ("a layer of another type", "laytype", Repo(edit=set_layer("mediaType", "application/x-tar")), "is no layer"),
        ("an artifact", "artifact", Repo(edit=lambda m: m["config"].update(mediaType="application/vnd.cncf.helm.config.v1+json")),
         "is no configuration of a container image"),
        ("a web page instead of a manifest", "html", Repo(body=b"<html>", media="text/html"), "is no image manifest"),
        ("type and document disagree", "mismatch", Repo(media=DOCKER + "distribution.manifest.v2+json"), "says that it is"),
        ("a manifest that is an index too", "both", Repo(edit=lambda m: m.update(manifests=[])), "both a manifest and an index"),
        ("an index of attestations only", "attest", Repo(body=index_of([entry(annotations={
            "vnd.docker.reference.type": "attestation-manifest"}), entry(os_name="unknown", arch="unknown")]),
            media=OCI + "index.v1+json"), "has no image for linux/"),
        ("an index for another processor", "s390", Repo(body=index_of([entry(arch="s390x")]), media=OCI + "index.v1+json"),
         "has no image for linux/"),
        ("an index that names an index", "nested", Repo(body=index_of([entry(media=OCI + "index.v1+json")]), media=OCI + "index.v1+json"),
         "is no image manifest"),
        ("a manifest above 4 MiB", "large", Repo(body=BIG_JSON), "larger than 4 MiB"),
        ("a manifest above 4 MiB, chunked", "largechunk", Repo(manifest=chunked), "larger than 4 MiB"),
        ("a configuration above 8 MiB", "largeconf", Repo(edit=lambda m: m["config"].update(size=9 << 20)), "size is impossible"),
        ("no layers", "nolayers", Repo(edit=lambda m: m.update(layers=[])), "0 layers"),
        ("128 layers", "manylayers", Repo(edit=lambda m: m.update(layers=m["layers"] * 128)), "128 layers"),
        ("a digest of another kind", "sha512", Repo(edit=set_layer("digest", "sha512:" + "0" * 128)), "is not sha256"),
        ("a digest that climbs", "climb", Repo(edit=set_layer("digest", "sha256:../../../../etc/passwd")), "is not sha256"),
        ("a negative size", "negsize", Repo(edit=set_layer("size", -1)), "no size, or an impossible one"),
        ("a size of petabytes", "hugesize", Repo(edit=set_layer("size", 1 << 50)), "no size, or an impossible one"),
        ("JSON a thousand deep", "deep", Repo(body=b'{"a":' * 1000 + b"1" + b"}" * 1000), "manifest"),
        ("the same member twice", "twice", Repo(body=b'{"schemaVersion":2,"schemaVersion":2}'), "manifest"),
        ("a configuration for another machine", "confarch", Repo(edit_config=lambda c: c.update(architecture="s390x")), "is for"),
        ("a diff id that is not the layer's", "diffid",
         Repo(layers=[make_oci.further_layer(31, 0)], edit_config=lambda c: c["rootfs"].update(diff_ids=["sha256:" + "1" * 64])),
         "the unpacked layer has the digest"),
        ("fewer diff ids than layers", "diffids", Repo(edit_config=lambda c: c["rootfs"].update(diff_ids=[])), "diff_ids"),
        ("an environment without names", "badenv", Repo(edit_config=lambda c: c["config"].update(Env=["=x"])), "NAME=value"),
        ("other bytes under the layer's digest", "lie", Repo(layers=[make_oci.further_layer(11, 0)], blob=layer_only(
            lambda h, r, d, n: h.send(200, bytes(len(d))) or True)), "have the digest"),
        ("a length that is not the blob's", "length", Repo(layers=[make_oci.further_layer(12, 0)], blob=layer_only(
            lambda h, r, d, n: h.send(200, d + LIE) or True)), "length of the answer is not that of the blob"),
        ("more bytes than the blob, without a length", "longer", Repo(layers=[make_oci.further_layer(13, 0)],
                                                                      blob=no_length(lambda d: d + LIE)), "more bytes come"),
        ("fewer bytes, without a length, always", "shorter", Repo(layers=[make_oci.further_layer(14, 0)], blob=layer_only(
            lambda h, r, d, n: (h.send(200, d[:10], length="none"), setattr(h, "close_connection", True)) and True)),
         "before the end of the blob|range"),
        ("a part that nobody asked for", "part", Repo(layers=[make_oci.further_layer(15, 0)], blob=layer_only(
            lambda h, r, d, n: h.send(206, d, {"Content-Range": "bytes 0-%d/%d" % (len(d) - 1, len(d))}) or True)), "range"),
        ("a packed body that nobody asked for", "encoded", Repo(layers=[make_oci.further_layer(16, 0)], blob=layer_only(
            lambda h, r, d, n: h.send(200, d, {"Content-Encoding": "gzip"}) or True)), "encoded"),
        ("a blob that is not there", "missing", Repo(layers=[make_oci.further_layer(17, 0)], blob=layer_only(
            lambda h, r, d, n: h.error(404, "BLOB_UNKNOWN", "blob unknown to registry") or True)), "blob unknown to registry"),
        ("500 for ever", "always500", Repo(layers=[make_oci.further_layer(18, 0)], blob=layer_only(
            lambda h, r, d, n: h.error(500, "UNKNOWN", "the disk is on fire") or True)), "the disk is on fire.*tried 4 times"),
        ("429 that asks for an hour", "hour", Repo(manifest=lambda h, r, ref, n: h.error(
            429, "TOOMANYREQUESTS", "slow down", {"Retry-After": "3600"}) or True), "asks to wait 3600 seconds"),
        ("a head without an end", "bighead", Repo(manifest=lambda h, r, ref, n: h.send(
            200, b"", {"X-%d" % i: "y" * 1000 for i in range(90)}) or True), "head of its answer is too large"),
        ("a redirect to a file", "file", Repo(layers=[make_oci.further_layer(19, 0)], blob=redirect("file:///etc/shadow")),
         'scheme "file" is not followed'),
        ("a redirect to another scheme", "gopher", Repo(layers=[make_oci.further_layer(19, 0)], blob=redirect("gopher://127.0.0.1:1/x")),
         'scheme "gopher" is not followed'),
        ("a redirect that carries a user", "userurl", Repo(layers=[make_oci.further_layer(19, 0)],
                                                           blob=redirect("http://me:pw@127.0.0.2:5002/x")), "carries a user"),
        ("a redirect to itself", "loop", Repo(manifest=lambda h, r, ref, n: h.send(302, b"", {"Location": h.path}) or True),
         "too many redirects"),
        ("a redirect to nowhere", "nowhere", Repo(manifest=lambda h, r, ref, n: h.send(302) or True), "without a target"),
        ("a refusal with control characters", "control", Repo(manifest=lambda h, r, ref, n: h.error(
            403, "DENIED", "\x1b[31mevil\x07") or True), r"\?\[31mevil\?"),
        ("a bearer challenge without a realm", "norealm", Repo(gate=challenge('Bearer service="x"')), "without a realm"),
        ("a challenge whose quote stays open", "quote", Repo(gate=challenge('Bearer realm="http://127.0.0.1')), "quote is not closed"),
        ("a challenge with the realm twice", "tworealms", Repo(gate=challenge('Bearer realm="http://a/",realm="http://b/"')),
         "comes twice"),
        ("a login that is not offered", "negotiate", Repo(gate=challenge("Negotiate")), "kind of login that is not offered"),
        ("401 without a challenge", "nochallenge", Repo(gate=challenge()), "without saying which login"),
        ("a realm of another scheme", "realmfile", Repo(gate=challenge('Bearer realm="file:///etc/passwd"')), "is not followed"),
        ("basic, and no credentials", "basic", Repo(gate=challenge('Basic realm="x"')), "a login may be needed"),
        ("a token that is refused again", "badtoken", Repo(gate=challenge('Bearer realm="http://127.0.0.1:5001/token",service="s"')),
         "refuses"),
    ]
    return rows


def test_table():
    for why, name, repo, want in repos():
        R.repos[name] = repo
        kind, answer = pull(HOST + name + ":x")
        if want is None:
            ok(kind == "done", why, (kind, answer))
        else:
            ok(kind == "error" and re.search(want, answer), "refused: " + why, (kind, answer))
    ok(not [i for i in call("GET", "/v1/images")[1]["items"] if not i["name"].endswith("good:x")], "what was refused left no image")
    # the scope is ours, whatever the challenge proposes
    tokens = R.seen("/token?")
    ok(tokens and all("scope=repository%3Abadtoken%3Apull" in p for p, _ in tokens), "a token is asked for pull of one repository only", tokens)


def test_recovers():
    def cut(h):
        h.cut()

    def stall(h):
        time.sleep(4)
        h.cut()

    def ranged(name, fill, count=1):
        R.repos[name] = Repo(layers=[make_oci.further_layer(fill, 1)], blob=layer_only(
            lambda h, r, d, n: half_then(h, r, d, n, cut)))
        return R.repos[name]

    repo = ranged("broken", 21)
    kind, answer = pull(HOST + "broken:x")
    ranges = [h.get("range") for p, h in R.seen("/broken/blobs/" + repo.big)]
    ok(kind == "done" and len(ranges) == 2 and ranges[0] is None and ranges[1] and ranges[1] != "bytes=0-",
       "a blob that breaks is continued where it broke", (kind, answer, ranges))

    R.repos["stalled"] = Repo(layers=[make_oci.further_layer(22, 1)], blob=layer_only(
        lambda h, r, d, n: half_then(h, r, d, n, stall)))
    kind, answer = pull(HOST + "stalled:x")
    ok(kind == "done", "a blob that stalls is broken off and continued", (kind, answer))

    def whole(h, repo, data, n):
        if n == 1:
            h.send(200, data[:len(data) // 2], length=len(data))
            h.cut()
        else:
            h.send(200, data)
        return True
    R.repos["norange"] = Repo(layers=[make_oci.further_layer(23, 1)], blob=layer_only(whole))
    kind, answer = pull(HOST + "norange:x")
    ok(kind == "done", "a registry without ranges sends it all again, and what is there is passed over", (kind, answer))

    def wrong_range(h, repo, data, n):
        if n == 1:
            h.send(200, data[:len(data) // 2], length=len(data))
            h.cut()
        else:
            h.send(206, data[7:], {"Content-Range": "bytes 7-%d/%d" % (len(data) - 1, len(data))})
        return True
    R.repos["wrongrange"] = Repo(layers=[make_oci.further_layer(24, 1)], blob=layer_only(wrong_range))
    kind, answer = pull(HOST + "wrongrange:x")
    ok(kind == "error" and "range that came" in answer, "a part from another place is refused", (kind, answer))

    for status in (429, 500, 502, 503, 504):
        R.repos["try%d" % status] = Repo(layers=[make_oci.further_layer(status, 0)], blob=times(
            1, lambda h, status=status: h.error(status, "X", "later", {"Retry-After": "1"} if status == 429 else {})))
        begun = time.monotonic()
        kind, answer = pull(HOST + "try%d:x" % status)
        ok(kind == "done" and (status != 429 or time.monotonic() - begun >= 1), "after %d it is tried again%s" % (
            status, ", when Retry-After says" if status == 429 else ""), (kind, answer))

    R.repos["cdn"] = Repo(layers=[make_oci.further_layer(25, 0)], gate=challenge(
        'Bearer realm="http://127.0.0.1:5001/token",service="s"', then=lambda h: h.headers.get("Authorization") == "Bearer t0ken"))
    CDN.repos["cdn"] = R.repos["cdn"]
    R.repos["cdn"].on_blob = lambda h, r, ref, n: h.send(307, b"", {"Location": "http://127.0.0.2:5002/cdn/" + ref}) or True
    kind, answer = pull(HOST + "cdn:x")
    seen = CDN.seen("/cdn/")
    ok(kind == "done" and len(seen) == 2 and not [h for _, h in seen if "authorization" in h],
       "a blob may lie elsewhere, and the token does not go there", (kind, answer, seen))


def test_far():
    """What a registry that is not on this machine may do is less."""
    FAR.repos["good"] = Repo()
    kind, answer = pull("10.9.9.9:5003/good:x")
    ok(kind == "done", "a registry without TLS that the configuration names", (kind, answer))
    Registry("10.9.9.9", 5004).repos["good"] = Repo()
    kind, answer = pull("10.9.9.9:5004/good:x")
    ok(kind == "error" and "images.insecure_registries" in answer, "one that it does not name is not asked without TLS", (kind, answer))
    for name, to, want in (
            ("elsewhere", "http://127.0.0.2:5002/cdn/x", "another host without TLS is not followed"),
            ("metadata", "https://169.254.169.254/latest", "address of this machine or its network's own"),
            ("loopback", "https://127.0.0.1:5001/x", "address of this machine or its network's own"),
            ("six", "https://[::1]:5001/x", "address of this machine or its network's own")):
        FAR.repos[name] = Repo(layers=[make_oci.further_layer(26, 0)], blob=redirect(to))
        kind, answer = pull("10.9.9.9:5003/" + name + ":x")
        ok(kind == "error" and want in answer, "a registry elsewhere cannot lead us to " + to, (kind, answer))
    FAR.repos["realm"] = Repo(gate=challenge('Bearer realm="http://127.0.0.1:5001/token"'))
    kind, answer = pull("10.9.9.9:5003/realm:x")
    ok(kind == "error" and "realm is on another host and has no TLS" in answer, "nor to a token service there", (kind, answer))


    name = socket.gethostname()
    if any(name in line.split()[1:] for line in open("/etc/hosts") if not line.startswith("#")):
        # libcurl looks names up in a thread, which the filter must allow
        kind, answer = pull(name + ":5001/good:x")
        ok(kind == "error" and "resolve" not in answer, "a name is found by a resolver that needs a thread", (kind, answer))
    else:
        skip("a name is found by a resolver that needs a thread", "the host's name is not in /etc/hosts")


def test_proxy():
    R.repos["behind"] = Repo()
    kind, answer = pull("proxied.test:5005/behind:x")
    ok(kind == "done" and R.proxied and all("proxied.test:5005/" in p for p in R.proxied), "the proxy of the environment is asked",
       (kind, answer, R.proxied))
    R.proxied.clear()
    kind, answer = pull(HOST + "good:x")
    ok(kind == "done" and not R.proxied, "but not for this machine", (kind, answer, R.proxied))


def test_sharing():
    gate = threading.Event()
    R.repos["shared"] = Repo(layers=[make_oci.further_layer(27, 0)], manifest=lambda h, r, ref, n: gate.wait(60) and None)
    answers = []
    heard = set()

    def join(i):
        answers.append(pull(HOST + "shared:x", each=lambda event: heard.add(i))[0])
    threads = [threading.Thread(target=join, args=(i,)) for i in range(5)]
    for t in threads:
        t.start()
    # all five have joined when each has heard something; whoever pulled by itself would need a manifest of its own
    ok(until(10, lambda: len(heard) == 5), "five are told of their pull", heard)
    gate.set()
    for t in threads:
        t.join()
    ok(answers == ["done"] * 5 and len(R.seen("/shared/manifests")) == 1, "five who want the same image share one pull",
       (answers, R.seen("/shared/manifests")))
    layer = make_oci.further_layer(28, 2)
    slow = layer_only(lambda h, r, d, n: time.sleep(0.5) and None)
    for name in ("one", "two"):
        R.repos[name] = Repo(layers=[layer], blob=slow, edit_config=lambda c, name=name: c["config"].update(Cmd=[name]))
    answers = []
    threads = [threading.Thread(target=lambda name=name: answers.append(pull(HOST + name + ":x")[0])) for name in ("one", "two")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    blobs = len(R.seen("/one/blobs/" + R.repos["one"].big)) + len(R.seen("/two/blobs/" + R.repos["two"].big))
    ok(answers == ["done", "done"] and blobs == 1, "two images share the transfer of one layer", (answers, blobs))
    R.repos["private"] = Repo(gate=challenge('Basic realm="r"', then=lambda h: h.headers.get("Authorization") == "Basic bWU6cHc="))
    ok(pull(HOST + "private:x", ("me", "wrong"))[0] == "error", "wrong credentials are refused")
    ok(pull(HOST + "private:x", ("me", "pw"))[0] == "done", "right ones are taken")
    sent = {h.get("authorization") for p, h in R.seen("/private/") if h.get("authorization")}
    ok(sent == {"Basic bWU6d3Jvbmc=", "Basic bWU6cHc="}, "and nothing else was sent", sent)


def create(image, **more):
    body = dict({"image": {"uri": image}, "entrypoint": ["sleep", "600"], "timeout": 600, "resourceLimits": {"memory": "64Mi"}}, **more)
    return call("POST", "/v1/sandboxes", body)


def state(sandbox):
    status, answer = call("GET", "/v1/sandboxes/" + sandbox)
    return answer["status"] if status == 200 else None


def test_create():
    status, answer = create(HOST + "good:x")
    ok(status == 202 and answer["status"]["state"] == "Running", "a create with the image here", (status, answer))
    call("DELETE", "/v1/sandboxes/" + answer["id"])
    remove(HOST + "good:x")
    status, answer = create(HOST + "good:x", extensions={"image.pull": "never"})
    ok(status == 400 and answer["code"] == "IMAGE::NOT_FOUND" and "pull it" in answer["message"] and "import it" in answer["message"],
       "policy never: it says what to do", (status, answer))
    status, answer = create(HOST + "good:x")
    ok(status == 202 and answer["status"]["state"] == "Running", "policy missing: a create pulls", (status, answer))
    ident = answer["id"]
    status, answer = call("POST", "/v1/sandboxes/%s/proxy/44772/command" % ident, {"command": "cat /etc/version"})
    ok(status == 200 and b'"0\\n"' in answer.replace(b"\\\\", b"\\") or b"0" in answer, "and the image runs", (status, answer))
    status, answer = call("DELETE", "/v1/images/" + urllib.parse.quote(HOST + "good:x", safe=""))
    ok(status == 409, "an image in use is not removed", (status, answer))
    call("DELETE", "/v1/sandboxes/" + ident)
    status, answer = create(HOST + "nope:x")
    ok(status == 500 and answer["code"] == "DOCKER::SANDBOX_IMAGE_PULL_FAILED" and "repository name not known" in answer["message"],
       "a create whose pull fails says what the registry said", (status, answer))
    ok(call("GET", "/v1/sandboxes")[1]["pagination"]["totalItems"] == 0, "and leaves no record")
    R.repos["needsauth"] = Repo(layers=two_layers(), gate=challenge('Basic realm="r"', then=lambda h: h.headers.get("Authorization") == "Basic bWU6cHc="))
    status, answer = call("POST", "/v1/sandboxes", {"image": {"uri": HOST + "needsauth:x", "auth": {"username": "me", "password": "pw"}},
                                                     "entrypoint": ["sleep", "9"], "timeout": 600, "resourceLimits": {}})
    ok(status == 202 and answer["status"]["state"] == "Running", "image.auth of a create is used", (status, answer))
    if status == 202:
        call("DELETE", "/v1/sandboxes/" + answer["id"])
    secret = subprocess.run(["grep", "-rlE", "bWU6cHc=|\"pw\"", STATE + "/state"], capture_output=True, text=True).stdout
    ok(secret == "", "and is kept nowhere", secret)
    # always: a tag that moved
    R.repos["moving"] = Repo()
    pull(HOST + "moving:x")
    first = call("GET", "/v1/images/" + urllib.parse.quote(HOST + "moving:x", safe=""))[1]["manifest"]
    R.repos["moving"] = Repo(layers=two_layers())
    out = run(HOST + "moving:x", "cat", "/etc/version")
    ok(out[0] == "0\n", "policy missing takes what is here", out)
    out = run(HOST + "moving:x", "cat", "/etc/version", pull_policy="always")
    ok(out[0] == "1\n", "policy always asks the registry", out)
    now = call("GET", "/v1/images/" + urllib.parse.quote(HOST + "moving:x", safe=""))[1]["manifest"]
    ok(first != now, "the name leads to the new image")
    kind, answer = pull(HOST + "moving@" + now)
    ok(kind == "done", "a reference with a digest", (kind, answer))
    kind, answer = pull(HOST + "moving@" + first)
    ok(kind == "error", "one whose manifest is gone from the registry", (kind, answer))
    R.repos["moving"].manifests[first] = (b'{"schemaVersion":2}', OCI + "manifest.v1+json")
    kind, answer = pull(HOST + "moving@" + first)
    ok(kind == "error" and "has the digest" in answer, "one for which another manifest comes", (kind, answer))


def test_slow():
    """A pull that takes its time: Pending after ten seconds, nothing else waits, and Running in the end."""
    gate = threading.Event()
    R.repos["slow"] = Repo(layers=[make_oci.first_layer(), make_oci.further_layer(30, 0)], blob=layer_only(lambda h, r, d, n: gate.wait(40) and None))
    R.repos["slowfail"] = Repo(layers=[make_oci.further_layer(29, 0)], blob=layer_only(
        lambda h, r, d, n: (gate.wait(40), h.error(403, "DENIED", "not for you")) and True))
    # sleeping longer than stall_seconds would end the transfers: a byte now and then is enough
    def trickle(h, repo, data, n):
        h.send(200, data[:1], length=len(data))
        at = 1
        while not gate.is_set() and at < len(data) - 1:
            h.write(data[at:at + 1])
            at += 1
            time.sleep(0.5)
        h.write(data[at:])
        return True
    R.repos["slow"].on_blob = layer_only(trickle)
    R.repos["slowfail"].on_blob = layer_only(lambda h, r, d, n: trickle(h, r, bytes(len(d)), n))
    answers = {}

    def make(name):
        begun = time.monotonic()
        status, answer = create(HOST + name + ":x")
        answers[name] = status, answer, time.monotonic() - begun

    threads = [threading.Thread(target=make, args=(name,)) for name in ("slow", "slowfail")]
    for t in threads:
        t.start()
    until(5, lambda: R.seen("/slow/blobs/" + R.repos["slow"].big))
    c = Unix("localhost")
    took = []
    for _ in range(400):
        begun = time.monotonic()
        c.request("GET", "/v1/version")  # sandboxd's to answer, as the pulls are its
        c.getresponse().read()
        took.append(time.monotonic() - begun)
    took.sort()
    print("# sandboxd while registries stall: p50 %.2f ms, p99 %.2f ms" % (took[200] * 1e3, took[396] * 1e3), flush=True)
    # one that waited for them would do so until these creates are answered; how fast it is otherwise is for the bench
    ok(took[-1] < 8, "a stalling registry delays nothing else", took[-5:])
    for t in threads:
        t.join()
    for name in ("slow", "slowfail"):
        status, answer, seconds = answers[name]
        ok(status == 202 and answer["status"]["state"] == "Pending" and 9 < seconds < 40, "%s: 202 Pending after ten seconds" % name,
           answers[name])
    ident = answers["slow"][1]["id"]
    ok(call("GET", "/v1/sandboxes/%s/endpoints/44772" % ident)[0] == 200, "endpoints are there while Pending")
    status, answer = call("GET", "/v1/sandboxes/%s/proxy/44772/ping" % ident)
    ok(status == 503, "commands are refused, they do not hang", (status, answer))
    gate.set()
    ok(until(15, lambda: state(ident)["state"] == "Running"), "then it is Running", state(ident))
    failed = answers["slowfail"][1]["id"]
    ok(until(15, lambda: state(failed)["state"] == "Failed") and "have the digest" in state(failed)["message"],
       "and the one whose pull failed is Failed, with the reason", state(failed))
    for i in (ident, failed):
        ok(call("DELETE", "/v1/sandboxes/" + i)[0] == 204, "both can be deleted")


def my_children():
    """sandbox-fetch and receiving children of this test's daemon only: others may run the same programs."""
    mon = int(open(E["RUN"] + "/pid").readline())
    found = []
    found += [("fetch", pid) for pid, line in lib.children_of(mon) if "sandbox-fetch" in line[0]]
    found += [("receive", pid) for pid, line in lib.children_of(sandboxd_pid()) if "--receive-blob" in line]
    return found


def test_cancel():
    gate = threading.Event()

    def hold(h, repo, data, n):
        h.send(200, data[:len(data) // 2], length=len(data))
        gate.wait(30)
        h.cut()
        return True
    R.repos["held"] = Repo(layers=[make_oci.further_layer(41, 1)], blob=layer_only(hold))
    p = subprocess.Popen([CTL, "pull", HOST + "held:x"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ok(until(10, lambda: {"fetch", "receive"} == {k for k, _ in my_children()}), "a pull has a process for the network and one for each blob",
       my_children())
    uids = {k: os.stat("/proc/%d" % pid).st_uid for k, pid in my_children()}
    ok(uids.get("fetch") != uids.get("receive") and 0 not in uids.values(), "with ids of their own, none of them root", uids)
    fetch = [pid for k, pid in my_children() if k == "fetch"][0]
    text = open("/proc/%d/status" % fetch).read()
    ok("CapEff:\t0000000000000000" in text and "CapBnd:\t0000000000000000" in text and "NoNewPrivs:\t1" in text and "Seccomp:\t2" in text,
       "sandbox-fetch has no capability, and a filter", text)
    repo = R.repos["held"]
    part = STATE + "/state/blobs/partial/" + repo.big.partition(":")[2]
    # the configuration has a process too, and the first that is seen may be its: what is cancelled is the layer, half of it here
    ok(until(30, lambda: os.path.exists(part) and os.path.getsize(part) > 0), "half of the layer is here", quietly(lambda: os.listdir(os.path.dirname(part))))
    p.send_signal(signal.SIGINT)
    p.wait()
    ok(until(30, lambda: not my_children()), "who leaves last cancels it: both are gone", my_children())
    gate.set()
    # others may lie there: what broke off in the pulls before this one is kept as well
    ok(quietly(lambda: os.path.getsize(part) > 0), "what came is kept", quietly(lambda: os.listdir(os.path.dirname(part))))
    repo.on_blob = None
    R.requests.clear()
    ok(pull(HOST + "held:x")[0] == "done", "the next pull ends")
    ranges = [h.get("range") for _, h in R.seen("/held/blobs/" + repo.big)]
    ok(len(ranges) == 1 and ranges[0] and not ranges[0].startswith("bytes=0-"), "and goes on where that one stopped", ranges)


def test_undying():
    """A child that does not die at once is not waited for; what a cancelled pull holds is free when it has died."""
    gate = threading.Event()

    def hold(h, repo, data, n):
        h.send(200, data[:len(data) // 2], length=len(data))
        gate.wait(60)
        h.cut()
        return True
    repo = R.repos["undying"] = Repo(layers=[make_oci.further_layer(43, 1)], blob=layer_only(hold))
    p = subprocess.Popen([CTL, "pull", HOST + "undying:x"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = STATE + "/state/blobs/partial/" + repo.big.partition(":")[2]
    until(30, lambda: quietly(lambda: os.path.getsize(part) > 0))
    child = next((pid for pid, line in lib.children_of(sandboxd_pid()) if repo.big in line), None)
    if not child:
        ok(False, "the child that receives the layer", lib.children_of(sandboxd_pid()))
        return
    with lib.undying(child, "sandboxd-test") as frozen:
        if not frozen:
            skip("a child that does not die", "no freezer of cgroup v1")
            return
        p.send_signal(signal.SIGINT)
        p.wait()
        gate.set()
        ok(until(10, lambda: "the pull is cancelled" in open(LOG).read()[-4000:] and "undying:x" in open(LOG).read()[-4000:]),
           "a pull is cancelled whose child cannot die")
        ok(call("GET", "/v1/images")[0] == 200 and pull(HOST + "good:x")[0] == "done", "and nobody waits for that")
        ok(os.path.exists("/proc/%d" % child), "the child is still there")
    ok(until(10, lambda: child not in [pid for pid, _ in lib.children_of(sandboxd_pid())]), "when it has died it is reaped")
    repo.on_blob = None
    ok(pull(HOST + "undying:x")[0] == "done", "and the next pull goes on")


def back_up():
    return until(20, lambda: quietly(lambda: call("GET", "/v1/sandboxes")[0] == 200))


def sandboxd_again(old):
    return until(20, lambda: sandboxd_pid() != old) and back_up()


def test_kill():
    """kill -9 of sandboxd and of the receiving child at each of its points: the next pull ends well."""
    layers = 50
    for why, arm in (("sandboxd while a blob comes", None), ("the child at its first bytes", "blob-bytes:kill"),
                     ("the child before the sync", "blob-verified:kill"), ("the child between sync and name", "blob-synced:kill"),
                     ("the child behind the name", "blob-named:kill"), ("sandboxd when the image is here", "create-pulled:kill")):
        layers += 1
        name = "kill%d" % layers
        gate = threading.Event()

        def hold(h, repo, data, n):
            if n == 1:
                h.send(200, data[:len(data) // 2], length=len(data))
                gate.wait(20)
                h.cut()
                return True
            return None
        R.repos[name] = Repo(layers=[make_oci.first_layer(), make_oci.further_layer(layers, 1)],
                             blob=layer_only(hold) if arm is None else None)
        old = sandboxd_pid()
        if arm:
            with open(E["FAULT"], "w") as f:
                f.write(arm)
        answers = []
        t = threading.Thread(target=lambda: answers.append(quietly(lambda: create(HOST + name + ":x"))))
        t.start()
        if arm is None:
            part = STATE + "/state/blobs/partial/" + R.repos[name].big.partition(":")[2]
            until(30, lambda: os.path.exists(part) and os.path.getsize(part) > 0)
            os.kill(old, signal.SIGKILL)
        t.join()
        gate.set()
        open(E["FAULT"], "w").close()
        came = sandboxd_again(old) if arm is None or arm.startswith("create") else True
        kind, answer = pull(HOST + name + ":x")
        out = run(HOST + name + ":x", "cat", "/etc/version")
        good = {p for p in os.listdir(STATE + "/state/blobs/sha256")}
        true = all(digest(open(STATE + "/state/blobs/sha256/" + p, "rb").read()) == "sha256:" + p for p in good)
        ok(came and kind == "done" and out[0] == "%d\n" % layers and true, "killed: %s; the image comes with the next pull" % why,
           (answers, kind, answer, out, true))
    R.repos["killb"] = Repo(layers=[make_oci.first_layer(), make_oci.further_layer(81, 60)])
    answers = []
    t = threading.Thread(target=lambda: answers.append(pull(HOST + "killb:x")))
    t.start()
    until(20, lambda: [n for n in os.listdir(STATE + "/layers") if n.startswith("new.") and n != "new.host"])
    os.kill(int(re.findall(r"monitor: broker started, pid (\d+)", open(LOG).read())[-1]), signal.SIGKILL)
    t.join()
    out = run(HOST + "killb:x", "cat", "/etc/version")
    ok(answers[0][0] == "done" and out[0] == "81\n", "killed: the broker while it unpacks; the pull goes on when it is back", (answers, out))

    def states():
        return {i["status"]["state"] for i in call("GET", "/v1/sandboxes")[1]["items"]}
    ok(until(10, lambda: states() <= {"Failed"}), "what was interrupted is gone, or says that the host failed", states())
    for item in call("GET", "/v1/sandboxes")[1]["items"]:
        call("DELETE", "/v1/sandboxes/" + item["id"])
    part = os.listdir(STATE + "/state/blobs/partial")
    status, answer = call("POST", "/v1/images/prune")
    ok(status == 200 and not os.listdir(STATE + "/state/blobs/partial"), "prune takes begun blobs", (part, answer))


def test_keys():
    """No image fills another's place: a layer's key comes from the packed bytes, and what a configuration claims is compared."""
    tar = make_oci.further_layer(71, 0)
    R.repos["key1"] = Repo(layers=[make_oci.first_layer(), tar])
    again = R.repos["key2"] = Repo(layers=[make_oci.first_layer(), tar])
    again.value["layers"][1] = again.put(gzip.compress(tar, 9, mtime=7), OCI + "layer.v1.tar+gzip")
    again.tag("x", dump(again.value), again.media)
    R.repos["key3"] = Repo(layers=[make_oci.first_layer(), make_oci.further_layer(72, 0)], edit_config=lambda c: c["rootfs"].update(
        diff_ids=[digest(make_oci.first_layer()), digest(tar)]))
    kind, answer = pull(HOST + "key3:x")
    ok(kind == "error" and "the unpacked layer has the digest" in answer, "an image that claims another's diff ids", (kind, answer))
    one, two = pull(HOST + "key1:x")[1], pull(HOST + "key2:x")[1]
    ok(one["layers"][0] == two["layers"][0] and one["layers"][1] != two["layers"][1], "the same diff ids in other blobs are other layers",
       (one["layers"], two["layers"]))
    ok([run(HOST + n, "cat", "/etc/version")[0] for n in ("key1:x", "key2:x")] == ["71\n"] * 2, "and both run")
    kind, answer = pull(HOST + "key3:x")
    ok(kind == "error" and run(HOST + "key1:x", "cat", "/etc/version")[0] == "71\n", "the claim fails again, and changes nothing", answer)
    # the same blob upon another layer is another layer
    R.repos["key4"] = Repo(layers=[make_oci.further_layer(73, 0), tar])
    four = pull(HOST + "key4:x")[1]
    ok(four["layers"][1] not in (one["layers"][1], two["layers"][1]), "a blob upon other layers is another layer", four["layers"])


def layer_of(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, data in entries:
            make_oci.add(t, name, data)
    return out.getvalue()


def test_together():
    """Layers are unpacked side by side, and what needs those below waits for them."""
    def unpackers():
        broker = int(re.findall(r"monitor: broker started, pid (\d+)", open(LOG).read())[-1])
        return [line for _, line in lib.children_of(broker) if "--form" in line]

    wide = make_oci.first_layer()[:-10240].rstrip(b"\0")  # without its end: more entries follow
    wide += b"\0" * (-len(wide) % 512)
    many = layer_of(*[("many/%d" % i, b"x" * 4000) for i in range(3000)])
    below = wide + many
    top = layer_of(("many/.wh..wh..opq", b""), ("many/own", b"mine\n"), ("tmp/in", b"x"))
    last = layer_of(("etc/version", b"77\n"))
    R.repos["together"] = Repo(layers=[below, top, last])
    seen = []
    t = threading.Thread(target=lambda: seen.append(pull(HOST + "together:x")))
    t.start()
    side = until(30, lambda: len(unpackers()) > 1 or bool(seen)) and not seen
    t.join()
    print("# more than one at once: %s" % side, flush=True)  # how fast they come is not ours to say
    out = run(HOST + "together:x", "sh", "-c", "ls /many; cat /etc/version; test -w /tmp && echo $(ls -ld /tmp | cut -c1-10)")
    ok(seen[0][0] == "done" and out[0] == "own\n77\ndrwxrwxrwt\n", "an opaque directory hides what the layer below brought meanwhile, and a "
       "directory without an entry has the looks of the one below", (seen, out))
    # the one below fails while others wait for it: its reason is told, and nothing of them is left
    before = set(os.listdir(STATE + "/layers"))
    R.repos["falls"] = Repo(layers=[below + b"\0" * 512, top, last], edit_config=lambda c: c["rootfs"]["diff_ids"].__setitem__(0, "sha256:" + "1" * 64))
    kind, answer = pull(HOST + "falls:x")
    ok(kind == "error" and "layer 0: the unpacked layer has the digest" in answer, "the layer that failed is named, not those that waited", (kind, answer))
    ok(until(10, lambda: set(os.listdir(STATE + "/layers")) == before), "and nothing of them stays", set(os.listdir(STATE + "/layers")) - before)
    # two images upon the same layer, one of which lies about it: the other is not taken along
    other = wide + layer_of(*[("other/%d" % i, b"y" * 4000) for i in range(3000)])  # not in the store yet
    R.repos["lies"] = Repo(layers=[other, last], edit_config=lambda c: c["rootfs"]["diff_ids"].__setitem__(0, "sha256:" + "2" * 64))
    R.repos["true"] = Repo(layers=[other, layer_of(("etc/version", b"78\n"))])
    answers = {}

    def go(name):
        answers[name] = pull(HOST + name + ":x")
    threads = [threading.Thread(target=go, args=(name,)) for name in ("lies", "true")]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    # whose request unpacks it is chance: a layer that is here already is that of its verified blobs, whatever is said of it
    ok(answers["true"][0] == "done" and run(HOST + "true:x", "cat", "/etc/version")[0] == "78\n",
       "an image that lies about a layer does not take along one that shares it", answers)


def test_broken():
    """An image that lost a layer: fsck marks it, and its next use pulls it again."""
    R.repos["broken"] = Repo(layers=[make_oci.first_layer(), make_oci.further_layer(91, 0)])
    kind, image = pull(HOST + "broken:x")
    layer = image["layers"][1].split(":")[1]
    shutil.rmtree(STATE + "/layers/" + layer)
    status, report = call("POST", "/v1/images/fsck?repair=true")
    found = [(p["kind"], p["repaired"]) for p in report["problems"] if p["level"] == "error"]
    ok(status == 200 and found == [("image-broken", True)], "a lost layer is found", report)
    out = run(HOST + "broken:x", "cat", "/etc/version", pull_policy="never")
    ok(out[2] != 0 and "is damaged" in out[1], "a broken image is not started", out)
    asked = len(R.requests)
    out = run(HOST + "broken:x", "cat", "/etc/version", pull_policy="missing")
    ok(out[0] == "91\n" and len(R.requests) > asked, "its next use pulls it again", out)
    ok(call("POST", "/v1/images/fsck")[1]["problems"] == [], "nothing is wrong then")


def test_mirror():
    R.repos["ok"] = Repo()
    kind, answer = pull("mirrored.test/ok:x")
    ok(kind == "done" and answer["ref"] == "mirrored.test/ok:x", "the second mirror answers when the first is down", (kind, answer))
    kind, answer = pull("mirrored.test/none:x")
    ok(kind == "error" and "mirrored.test" in answer, "the registry itself has the last word", (kind, answer))


def test_store():
    call("POST", "/v1/images/prune?all=true")
    pull(HOST + "good:x")
    name = urllib.parse.quote(HOST + "good:x", safe="")
    status, answer = call("POST", "/v1/images/%s/tag?name=mine:1" % name)
    ok(status == 201 and answer["name"] == "mine:1", "tag", (status, answer))
    ok(call("POST", "/v1/images/%s/tag?name=NOT" % name)[0] == 400, "a bad name is refused")
    ok(call("DELETE", "/v1/images/" + name)[0] == 204, "rm of the first name")
    out = run("mine:1", "echo", "hi")
    ok(out[0] == "hi\n", "the other name still runs", out)
    status, answer = call("GET", "/v1/usage")
    ok(status == 200 and answer["images"] == 1 and answer["layers"] == 1 and answer["packedBytes"] > 0 and answer["unpackedBytes"] > 0 and
       answer["unusedPackedBytes"] == 0, "usage", answer)
    status, answer = call("POST", "/v1/images/prune?all=true")
    ok(status == 200 and answer["images"] == ["docker.io/library/mine:1"] and answer["blobs"] == 3, "prune takes all that is unused", answer)
    status, answer = call("GET", "/v1/usage")
    ok(answer["images"] == 0 and answer["blobs"] == 0, "nothing is left", answer)
    for args, want in ((["image", "df"], "layers, unpacked"), (["image", "prune"], "removed"), (["image", "ls"], "NAME")):
        p = subprocess.run([CTL] + args, capture_output=True, text=True)
        ok(p.returncode == 0 and want in p.stdout, "sandboxctl " + " ".join(args), p)
    for body, want in (({"image": ""}, 422), ({"image": "a", "x": 1}, 422), ({"image": "A"}, 400), ({"image": "host"}, 400),
                       ({"image": "a", "policy": "x"}, 400), ({"image": "a", "auth": {"username": "u"}}, 422), ([], 422)):
        status, answer = call("POST", "/v1/images/pull", body)
        ok(status == want, "POST /images/pull %s is %d" % (json.dumps(body), want), (status, answer))


# ---- the real one ----

def sh(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, **more)


class Real:
    def __init__(self, address, extra=""):
        self.dir = tempfile.mkdtemp(dir=WORK)
        with open(self.dir + "/config.yml", "w") as f:
            f.write("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}}\n"
                    "http:\n  addr: %s\n%s" % (self.dir, address, extra))
        self.log = open(self.dir + "/log", "w")
        self.process = subprocess.Popen(["docker-registry", "serve", self.dir + "/config.yml"], stdout=self.log, stderr=self.log)
        host, port = address.split(":")

        def up():
            with socket.create_connection((host, int(port)), 1):
                return True
        until(10, lambda: quietly(up))

    def stop(self):
        self.process.terminate()
        self.process.wait()


def test_real():
    for tool in ("docker-registry", "skopeo", "htpasswd", "openssl"):
        if not shutil.which(tool):
            skip("the real registry", "no " + tool)
            return
    layout = WORK + "/layout"
    sh(sys.executable, HERE + "/../images/make_oci.py", layout, "x", "--layers", "4", "--index", check=True)
    plain = Real("127.0.0.1:5010")
    sh("skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", "oci:%s:x" % layout, "docker://127.0.0.1:5010/team/multi:x", check=True)
    p = sh(CTL, "pull", "127.0.0.1:5010/team/multi:x")
    ok(p.returncode == 0, "docker-registry, no login: an index with an attestation and another processor", p)
    out = run("127.0.0.1:5010/team/multi:x", "sh", "-c", "cat /etc/version; ls /etc/remove-me 2>&1; ls -d /layer*")
    ok(out[0].startswith("3\n") and "No such file" in out[0] and "/layer3" in out[0], "four layers with a whiteout, in a sandbox", out)
    # Docker's own media types
    sh("skopeo", "copy", "-q", "--format", "v2s2", "--dest-tls-verify=false", "oci:%s:x" % layout, "docker://127.0.0.1:5010/v2s2:x", check=True)
    p = sh(CTL, "pull", "127.0.0.1:5010/v2s2:x")
    ok(p.returncode == 0 and run("127.0.0.1:5010/v2s2:x", "cat", "/etc/version")[0] == "3\n", "Docker schema 2", p)
    ok(call("GET", "/v1/images/" + urllib.parse.quote("127.0.0.1:5010/v2s2:x", safe=""))[1]["layers"] ==
       call("GET", "/v1/images/" + urllib.parse.quote("127.0.0.1:5010/team/multi:x", safe=""))[1]["layers"], "has the same layers")
    if shutil.which("zstd"):
        sh(sys.executable, HERE + "/../images/make_oci.py", WORK + "/zstd", "x", "--layers", "2", "--form", "zstd", check=True)
        sh("skopeo", "copy", "-q", "--dest-tls-verify=false", "oci:%s/zstd:x" % WORK, "docker://127.0.0.1:5010/zstd:x", check=True)
        p = sh(CTL, "pull", "127.0.0.1:5010/zstd:x")
        ok(p.returncode == 0 and run("127.0.0.1:5010/zstd:x", "cat", "/etc/version")[0] == "1\n", "zstd layers", p)
    plain.stop()

    with open(WORK + "/htpasswd", "w") as f:
        f.write(sh("htpasswd", "-nbB", "me", "s3cret", check=True).stdout)
    locked = Real("127.0.0.1:5011", "auth: {htpasswd: {realm: r, path: %s/htpasswd}}\n" % WORK)
    sh("skopeo", "copy", "-q", "--dest-creds", "me:s3cret", "--dest-tls-verify=false", "oci:%s:x" % layout,
       "docker://127.0.0.1:5011/a:x", check=True)
    kind, answer = pull("127.0.0.1:5011/a:x")
    ok(kind == "error" and "login may be needed" in answer, "htpasswd, no login", (kind, answer))
    kind, answer = pull("127.0.0.1:5011/a:x", ("me", "wrong"))
    ok(kind == "error" and "refuses these credentials" in answer, "htpasswd, a wrong password", (kind, answer))
    p = sh(CTL, "pull", "-u", "me", "127.0.0.1:5011/a:x", input="s3cret\n")
    ok(p.returncode == 0, "htpasswd, sandboxctl pull -u", p)
    with open(WORK + "/auth.json", "w") as f:
        json.dump({"auths": {"other.test": {"auth": "eDp5"}, "127.0.0.1:5011": {"auth": "bWU6czNjcmV0"}}}, f)
    os.chmod(WORK + "/auth.json", 0o600)
    kind, answer = pull("127.0.0.1:5011/a:x")
    ok(kind == "done", "htpasswd, the credential file that only root may read", (kind, answer))
    with open(WORK + "/auth.json", "w") as f:
        f.write('{"auths": {"127.0.0.1:5011": {"identitytoken": "x"}}}')
    kind, answer = pull("127.0.0.1:5011/a:x")
    ok(kind == "error" and "identity tokens are not offered" in answer, "a kind of credentials that is not offered is said", (kind, answer))
    for why, text, want in (
            ("credsStore, which is not offered, is said", {"auths": {"127.0.0.1:5011": {}}, "credsStore": "pass"}, "credsStore is not offered"),
            ("an entry for another part of the registry is not sent", {"auths": {"127.0.0.1:5011/b": {"auth": "bWU6czNjcmV0"}}}, "login may be needed"),
            ("an entry for this part of the registry is", {"auths": {"127.0.0.1:5011": {"auth": "eDp5"}, "127.0.0.1:5011/a": {"auth": "bWU6czNjcmV0"}}}, None)):
        with open(WORK + "/auth.json", "w") as f:
            json.dump(text, f)
        kind, answer = pull("127.0.0.1:5011/a:x")
        ok(kind == "done" if want is None else kind == "error" and want in answer, "the credential file: " + why, (kind, answer))
    os.unlink(WORK + "/auth.json")
    locked.stop()

    tls = WORK + "/tls"
    os.mkdir(tls)
    sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=test ca",
       "-keyout", tls + "/ca.key", "-out", tls + "/ca.crt", check=True)
    sh("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=10.9.9.9", "-keyout", tls + "/key",
       "-out", tls + "/csr", check=True)
    with open(tls + "/ext", "w") as f:
        f.write("subjectAltName=IP:10.9.9.9\n")
    sh("openssl", "x509", "-req", "-in", tls + "/csr", "-CA", tls + "/ca.crt", "-CAkey", tls + "/ca.key", "-CAcreateserial", "-days", "2",
       "-extfile", tls + "/ext", "-out", tls + "/crt", check=True)
    secure = Real("10.9.9.9:5012", "  tls: {certificate: %s/crt, key: %s/key}\n" % (tls, tls))
    os.environ["SSL_CERT_FILE"] = tls + "/ca.crt"
    sh("skopeo", "copy", "-q", "oci:%s:x" % layout, "docker://10.9.9.9:5012/a:x", check=True)
    kind, answer = pull("10.9.9.9:5012/a:x")
    ok(kind == "error" and "images.ca_dir" in answer, "TLS of a private CA, unknown to us", (kind, answer))
    os.makedirs(WORK + "/certs.d/10.9.9.9:5012")
    shutil.copy(tls + "/ca.crt", WORK + "/certs.d/10.9.9.9:5012/ca.crt")
    for d in ("/certs.d", "/certs.d/10.9.9.9:5012"):
        os.chmod(WORK + d, 0o755)
    kind, answer = pull("10.9.9.9:5012/a:x")
    ok(kind == "done", "TLS of a private CA in images.ca_dir", (kind, answer))
    secure.stop()
    # a registry with TLS may not lead us to one without
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls + "/crt", tls + "/key")
    S = Registry("10.9.9.9", 5013, context)
    os.makedirs(WORK + "/certs.d/10.9.9.9:5013")
    shutil.copy(tls + "/ca.crt", WORK + "/certs.d/10.9.9.9:5013/ca.crt")
    os.chmod(WORK + "/certs.d/10.9.9.9:5013", 0o755)
    S.repos["down"] = Repo(layers=[make_oci.further_layer(61, 0)], blob=redirect("http://10.9.9.9:5003/x"))
    kind, answer = pull("10.9.9.9:5013/down:x")
    ok(kind == "error" and "from https to http is not followed" in answer, "TLS: no redirect to http", (kind, answer))
    S.repos["realm"] = Repo(gate=challenge('Bearer realm="http://10.9.9.9:5003/token"'))
    kind, answer = pull("10.9.9.9:5013/realm:x")
    ok(kind == "error" and "realm has no TLS" in answer, "TLS: no token service without it", (kind, answer))
    # the same host name, another certificate
    sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=10.9.9.9",
       "-addext", "subjectAltName=IP:10.9.9.8", "-keyout", tls + "/key2", "-out", tls + "/crt2", check=True)
    context2 = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context2.load_cert_chain(tls + "/crt2", tls + "/key2")
    Registry("10.9.9.9", 5014, context2).repos["good"] = Repo()
    os.makedirs(WORK + "/certs.d/10.9.9.9:5014")
    shutil.copy(tls + "/crt2", WORK + "/certs.d/10.9.9.9:5014/ca.crt")
    os.chmod(WORK + "/certs.d/10.9.9.9:5014", 0o755)
    kind, answer = pull("10.9.9.9:5014/good:x")
    ok(kind == "error", "TLS: a certificate for another address", (kind, answer))


def main():
    lib.count_from(int(E.get("FIRST", "0")))
    if E.get("BEHIND_PROXY"):
        sys.argv = [sys.argv[0], "test_proxy"]
    tests = [test_proxy, test_table, test_recovers, test_far, test_sharing, test_create, test_slow, test_cancel, test_undying, test_kill, test_keys, test_together, test_broken, test_mirror, test_store,
             test_real]
    for test in tests:
        if test.__name__ in sys.argv[1:] or (len(sys.argv) < 2 and test is not test_proxy):
            test()
    n, failed = lib.result()
    with open(WORK + "/count", "w") as f:
        f.write("%d\n" % n)
    sys.exit(1 if failed else 0)


main()
