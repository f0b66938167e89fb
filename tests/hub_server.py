"""A small server on this machine that speaks the part of the hub's protocol that downloads and uploads need."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    """One model on the server."""

    directory: Path
    gated: bool = False
    """Anybody may see the list of files; the files themselves answer 403."""
    private: bool = False
    """Every request answers 401, as for a repository that does not exist."""
    status: int | None = None
    """Every request answers with this status."""
    cut: dict[str, int] = field(default_factory=dict)
    """File -> bytes after which the connection is closed, once."""
    sizes: dict[str, int] = field(default_factory=dict)
    """File -> size to state in the list of files, in place of the true one."""
    revisions: tuple[str, ...] = ("main", "v1", COMMIT)
    licence: str | None = None
    """As the model's card says."""
    writable: bool = False
    """Takes commits of anybody with a token."""


class HubServer:
    """Context manager; ``url`` is the endpoint, ``requests`` what was asked for: (method, path, Range header)."""

    def __init__(self, **repositories: Repository) -> None:
        self.repositories = {f"org/{name}": repository for name, repository in repositories.items()}
        self.requests: list[tuple[str, str, str | None]] = []
        self.uploads: dict[str, bytes] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        from huggingface_hub import close_session

        close_session()  # its open connections would be answered even after the server is closed
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """Names of the files whose content was sent, with repetitions."""
        return [path.rsplit("/", 1)[1] for method, path, _ in self.requests if method == "GET" and "/resolve/" in path]


def _mode(path: str) -> str:
    return "regular" if path.endswith((".json", ".jinja", ".md")) else "lfs"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


class _Server(ThreadingHTTPServer):
    hub: HubServer

    def handle_error(self, *_: object) -> None:
        """A client that goes away in the middle is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """The calls of an upload: make the repository, ask how, hand over large files, commit."""
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append((self.command, path, None))
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, None)
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked.get('organization', 'org')}/{asked['name']}"
            known = name in self.server.hub.repositories
            return self._json({"url": f"{self.server.hub.url}/{name}"}) if known else self._refuse(403, None)
        found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/.]+)(?:\.git)?/(preupload|info|commit)/.+", path)
        repository = self.server.hub.repositories.get(found[1]) if found else None
        if repository is None or not repository.writable:
            return self._refuse(403, None)
        steps = {"preupload": self._modes, "info": self._actions, "commit": self._commit}
        return steps[found[2]](repository, found[1], sent)

    def _modes(self, _: Repository, __: str, sent: bytes) -> None:
        files = [each["path"] for each in json.loads(sent)["files"]]
        self._json({"files": [{"path": path, "uploadMode": _mode(path), "shouldIgnore": False} for path in files]})

    def _actions(self, _: Repository, name: str, sent: bytes) -> None:
        place = f"{self.server.hub.url}/upload/{name}"
        objects = json.loads(sent)["objects"]
        actions = [each | {"actions": {"upload": {"href": f"{place}/{each['oid']}"}}} for each in objects]
        self._json({"transfer": "basic", "objects": actions})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.hub.requests.append((self.command, self.path, None))
        self.server.hub.uploads[self.path.rsplit("/", 1)[1]] = data
        self._json({})

    def _commit(self, repository: Repository, name: str, sent: bytes) -> None:
        for line in map(json.loads, sent.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                _write(repository.directory / value["path"], base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                _write(repository.directory / value["path"], self.server.hub.uploads[value["oid"]])
        self._json({"commitUrl": f"{self.server.hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})

    def _json(self, document: object) -> None:
        text = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.hub.requests.append((self.command, path, self.headers.get("Range")))
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = info or file
        repository = self.server.hub.repositories.get(found[1]) if found else None
        if repository is None or repository.private:
            self._refuse(401, "RepoNotFound" if repository is None else None)
        elif repository.status is not None:
            self._refuse(repository.status, None)
        elif (found[2] or "main") not in repository.revisions:
            self._refuse(404, "RevisionNotFound")
        elif info:
            self._list(found[1], repository)
        else:
            self._file(repository, file[3], body)

    def _refuse(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        text = b"" if self.command == "HEAD" else b'{"error": "refused"}'
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _list(self, name: str, repository: Repository) -> None:
        files = [path for path in sorted(repository.directory.rglob("*")) if path.is_file()]
        names = {str(path.relative_to(repository.directory)): path.stat().st_size for path in files}
        siblings = [{"rfilename": key, "size": size} for key, size in (names | repository.sizes).items()]
        document = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
        if repository.licence is not None:
            document["cardData"] = {"license": repository.licence}
        self._json(document)

    def _file(self, repository: Repository, name: str, body: bool) -> None:
        path = repository.directory / name
        if repository.gated:
            return self._refuse(403, "GatedRepo")
        if not path.is_file():
            return self._refuse(404, "EntryNotFound")
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return None
        stop = repository.cut.pop(name, None)
        self.wfile.write(data[start:stop])
        if stop is not None:
            self.close_connection = True
        return None
