# SPDX-License-Identifier: Apache-2.0
"""A registry that misbehaves: one server, one way for each repository name.

Repositories stand in `Registry.repos` as objects of class Repo; what a Repo does is said by its keyword arguments.  Requests
are counted and their headers kept, so that a test can look at what was sent and what was not.
"""
import gzip, hashlib, http.server, io, json, os, socket, socketserver, ssl, sys, tarfile, threading, time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "images"))
import make_oci  # noqa: E402

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(value):
    return json.dumps(value).encode()


class Repo:
    """An image of one or more layers, and hooks that change what is sent.

    manifest(handler, ref) and blob(handler, digest) may answer by themselves and return True."""

    def __init__(self, layers=None, manifest=None, blob=None, edit=None, edit_config=None, media=None, body=None, gate=None):
        self.blobs = {}
        self.on_manifest, self.on_blob, self.gate = manifest, blob, gate
        self.count = {}
        tars = layers or [make_oci.first_layer()]
        packed = [gzip.compress(t, 1, mtime=0) for t in tars]
        config = {"architecture": MACHINE, "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
                  "rootfs": {"type": "layers", "diff_ids": [digest(t) for t in tars]}}
        if edit_config:
            edit_config(config)
        self.value = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                      "config": self.put(dump(config), OCI + "config.v1+json"),
                      "layers": [self.put(p, OCI + "layer.v1.tar+gzip") for p in packed]}
        if edit:
            edit(self.value)
        self.media = media or self.value.get("mediaType", OCI + "manifest.v1+json")
        self.manifests = {}
        self.tag("x", body if body is not None else dump(self.value), self.media)
        self.big = self.value.get("layers", [{}])[-1].get("digest") if self.value.get("layers") else None

    def put(self, data, media):
        self.blobs[digest(data)] = data
        return {"mediaType": media, "digest": digest(data), "size": len(data)}

    def tag(self, name, body, media):
        self.manifests[name] = self.manifests[digest(body)] = (body, media)

    def counted(self, what):
        self.count[what] = self.count.get(what, 0) + 1
        return self.count[what]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.send(405, b"no tunnels here")

    def send(self, status, body=b"", headers=None, length=None):
        self.send_response(status)
        headers = dict(headers or {})
        headers.setdefault("Content-Type", "application/octet-stream")
        if length != "none":
            headers.setdefault("Content-Length", str(len(body) if length is None else length))
        for k, v in headers.items():
            for one in v if isinstance(v, list) else [v]:
                self.send_header(k, one)
        self.end_headers()
        self.write(body)

    def error(self, status, code, message, headers=None):
        self.send(status, dump({"errors": [{"code": code, "message": message}]}),
                  dict(headers or {}, **{"Content-Type": "application/json"}))

    def write(self, data):
        try:
            self.wfile.write(data)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def cut(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def range_from(self):
        value = self.headers.get("Range", "")
        return int(value[6:].rstrip("-")) if value.startswith("bytes=") else 0

    def send_blob(self, data, headers=None):
        at = self.range_from()
        if at:
            self.send(206, data[at:], dict(headers or {}, **{"Content-Range": "bytes %d-%d/%d" % (at, len(data) - 1, len(data))}))
        else:
            self.send(200, data, headers)

    def do_GET(self):
        server = self.server.registry
        path = self.path
        if path.startswith("http://"):
            server.proxied.append(path)
            path = "/" + path.split("/", 3)[3]
        with server.lock:
            server.requests.append((path, {k.lower(): v for k, v in self.headers.items()}))
        if path.startswith("/token"):
            return server.token(self)
        if path.startswith("/cdn/"):
            for repo in server.repos.values():
                if path[5:] in repo.blobs:
                    return self.send_blob(repo.blobs[path[5:]])
            return self.send(404)
        parts = path.split("/")
        if len(parts) < 5 or parts[1] != "v2":
            return self.send(200 if path in ("/v2/", "/v2") else 404)
        kind, ref, name = parts[-2], parts[-1], "/".join(parts[2:-2])
        repo = server.repos.get(name)
        if not repo:
            return self.error(404, "NAME_UNKNOWN", "repository name not known to registry")
        if repo.gate and repo.gate(self, repo):
            return None
        if kind == "manifests":
            n = repo.counted("manifest")
            if repo.on_manifest and repo.on_manifest(self, repo, ref, n):
                return None
            if ref not in repo.manifests:
                return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
            body, media = repo.manifests[ref]
            return self.send(200, body, {"Content-Type": media, "Docker-Content-Digest": digest(body)})
        n = repo.counted(ref)
        if repo.on_blob and repo.on_blob(self, repo, ref, n):
            return None
        if ref not in repo.blobs:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return self.send_blob(repo.blobs[ref])


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request, client_address):
        pass


class Registry:
    def __init__(self, address, port, context=None):
        self.repos, self.requests, self.proxied, self.lock = {}, [], [], threading.Lock()
        self.token = lambda h: h.send(404)
        self.http = Server((address, port), Handler)
        if context:
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.http.registry = self
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def seen(self, text):
        with self.lock:
            return [(p, h) for p, h in self.requests if text in p]
