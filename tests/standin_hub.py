"""A Hugging Face hub of this machine's own, for the real client: repositories in memory, over HTTP."""

import hashlib
import json
import re
import threading
from base64 import b64decode
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_" + "Stand1nStand1nStand1nStand1nStand1"
READER = "hf_" + "Reader1Reader1Reader1Reader1Reader"
SHA = "c0ffee" + "0" * 34


class StandIn:
    """`repos`: the files of each by name. `asked`: what was requested. `lfs`: uploaded blobs by SHA-256."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.public: set[str] = set()
        self.asked: list[str] = []
        self.lfs: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def files_fetched(self) -> list[str]:
        """The files whose contents were sent, in order."""
        return [line.partition(f"{SHA}/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line]


@contextmanager
def standing_in(monkeypatch, cache, token=TOKEN):
    """The client of this process talks to a hub of its own, with an empty cache."""
    from huggingface_hub import constants

    hub = StandIn()
    threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    for name, value in {
        "ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "token"),
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    }.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    try:
        yield hub
    finally:
        hub.server.shutdown()
        hub.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET

    def answer(self):
        hub, path = self.hub, unquote(self.path.partition("?")[0])
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.command in ("POST",) and "validate" not in path and token != TOKEN:
            return self.send({"error": "not allowed to write"}, 403 if token == READER else 401)
        if path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given.get('organization') or 'me'}/{given['name']}"
            if name in hub.repos:
                return self.send({"url": f"{hub.url}/{name}", "error": "exists"}, 409)
            hub.repos[name] = {".gitattributes": b""}
            hub.public |= {name} if given["visibility"] == "public" else set()
            return self.send({"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self.send({"errors": [], "warnings": []})
        if self.command == "PUT":
            digest = hashlib.sha256(body).hexdigest()
            hub.lfs[digest] = body
            return self.send({})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", path):
            files = hub.repos[found[1]]
            if found[2] == "preupload":
                asked = json.loads(body)["files"]
                modes = [
                    {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular"}
                    | {"shouldIgnore": False}
                    for f in asked
                ]
                return self.send({"files": modes})
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.commits.append(value["summary"])
                elif line["key"] == "file":
                    files[value["path"]] = b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.lfs[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            return self.send({"commitUrl": f"{hub.url}/{found[1]}/commit/{SHA}", "commitOid": SHA})
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            asked = json.loads(body)["objects"]
            objects = [
                {**item, "actions": {"upload": {"href": f"{hub.url}/lfs/{item['oid']}", "header": {}}}}
                for item in asked
            ]
            return self.send({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(/revision/[^/]+|/tree/[^/]+)?", path):
            files = hub.repos.get(found[1])
            if files is None:
                return self.send({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if (found[2] or "").startswith("/tree"):
                tree = [{"type": "file", "path": n, "size": len(b), "oid": _oid(b)} for n, b in files.items()]
                return self.send(tree)
            about = {"id": found[1], "sha": SHA, "private": found[1] not in hub.public}
            return self.send({**about, "siblings": [{"rfilename": name} for name in files]})
        if found := re.fullmatch(rf"/([^/]+/[^/]+)/resolve/{SHA}/(.+)", path):
            content = hub.repos[found[1]].get(found[2])
            if content is None:
                return self.send({}, 404, {"X-Error-Code": "EntryNotFound"})
            return self.send(content, 200, {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": SHA})
        self.send({"error": f"unknown: {self.command} {path}"}, 500)

    def send(self, content, status=200, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **dict(headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
