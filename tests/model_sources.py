"""A server on the loopback address that speaks as the hub, as CivitAI and as a plain file server do, and fails when a test says so."""

import contextlib
import hashlib
import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
#: Files from this size on lie where the hub redirects to.
LARGE = 500
TOKEN = "hf_" + "t" * 20


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hex digits."""
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Return git's name of a file with these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Sources:
    """What the server has, what it does wrong, and what it was asked."""

    url: str = ""
    #: Repository to its files.
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    cards: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Path to a plain file.
    files: dict[str, bytes] = field(default_factory=dict)
    #: CivitAI's versions and models, by id.
    versions: dict[int, dict[str, Any]] = field(default_factory=dict)
    models: dict[int, dict[str, Any]] = field(default_factory=dict)
    #: How many bytes of a file the next requests get before the connection breaks; empty for all of them.
    cuts: deque[int] = field(default_factory=deque)
    #: How many bytes of a file the next request gets before it hears no more, until `go_on` is set.
    stalls: deque[int] = field(default_factory=deque)
    go_on: threading.Event = field(default_factory=threading.Event)
    #: Statuses, with their headers, that the next requests get instead of an answer.
    refusals: deque[tuple[int, Mapping[str, str]]] = field(default_factory=deque)
    ranges: bool = True
    etags: bool = True
    #: Wanted for files of the hub and of CivitAI.
    token: str | None = None
    #: Redirects of plain paths.
    redirects: dict[str, str] = field(default_factory=dict)
    #: Plain paths that are web pages.
    html: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def add_version(self, version: int, model: int, name: str, data: bytes, **changes: Any) -> None:
        """Publish a file as a version of a CivitAI model."""
        self.files[f"/api/download/models/{version}"] = data
        file = {
            "id": 1, "name": name, "type": "Model", "sizeKB": len(data) / 1024, "primary": True, "metadata": {"format": "SafeTensor"},
            "hashes": {"SHA256": sha256(data).upper()}, "downloadUrl": f"{self.url}/api/download/models/{version}",
        }  # fmt: skip
        self.versions[version] = {
            "id": version, "modelId": model, "name": "v1", "baseModel": "SD 1.5", "trainedWords": ["ada style", "red hat"],
            "description": "<p>Second&nbsp;try.</p>", "files": [file], "images": [], "downloadUrl": file["downloadUrl"],
        } | changes  # fmt: skip
        listed = self.models.setdefault(
            model,
            {
                "id": model, "name": "Ada's hats", "type": "LORA", "description": "<p>Hats of <b>every</b> colour.</p><script>x</script>",
                "tags": ["hat", "clothing"], "allowCommercialUse": ["Image"], "allowNoCredit": False, "allowDerivatives": True,
                "allowDifferentLicense": True, "modelVersions": [],
            },
        )  # fmt: skip
        listed["modelVersions"].insert(0, {"id": version})

    def of(self, path: str) -> list[dict[str, str]]:
        """Return the headers of all requests for paths that begin so."""
        return [headers for _, asked, headers in self.asked if asked.startswith(path)]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sources: Sources

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        """Answer as to GET, without a body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Look hashes up."""
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        self.sources.bodies.append(body)
        if self._refuses():
            return
        wanted = set(json.loads(body))
        found = [
            version for version in self.sources.versions.values()
            if any(file["hashes"].get("SHA256") in wanted for file in version["files"])
        ]  # fmt: skip
        self._json(found)

    def do_GET(self) -> None:
        """Answer as the site does that has such a path."""
        if self._refuses():
            return
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/api/models/"):
            self._repo(path.removeprefix("/api/models/"))
        elif path.startswith("/api/v1/"):
            self._civitai(path)
        elif "/resolve/" in path:
            self._resolve(path)
        elif path in self.sources.redirects:
            self._redirect(self.sources.redirects[path])
        elif path in self.sources.files:
            if path.startswith("/api/download/") and not self._has_token():
                self._status(401)
                return
            self._file(self.sources.files[path])
        else:
            self._status(404)

    def _refuses(self) -> bool:
        self.sources.asked.append(
            (self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        )
        if not self.sources.refusals:
            return False
        status, headers = self.sources.refusals.popleft()
        self._status(status, headers)
        return True

    def _has_token(self) -> bool:
        return self.sources.token is None or self.headers.get("authorization") == f"Bearer {self.sources.token}"

    def _repo(self, path: str) -> None:
        repo = "/".join(path.split("/")[:2])
        files = self.sources.repos.get(repo)
        if files is None:
            self._status(401)
            return
        if not self._has_token():
            self._status(403)
            return
        siblings = []
        for name, data in files.items():
            each: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if len(data) >= LARGE:
                each["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 130}
            siblings.append(each)
        card = self.sources.cards.get(repo, {})
        self._json({"id": repo, "sha": COMMIT, "siblings": siblings, "cardData": card, "tags": ["lora", "license:mit"]})

    def _resolve(self, path: str) -> None:
        repo, _, rest = path[1:].partition("/resolve/")
        data = self.sources.repos.get(repo, {}).get(rest.partition("/")[2])
        if data is None:
            self._status(404)
            return
        if not self._has_token():
            self._status(401)
            return
        named = {"x-repo-commit": COMMIT, "x-linked-size": str(len(data)), "x-linked-etag": f'"{sha256(data)}"'}
        if len(data) < LARGE:
            self._file(data, {**named, "x-linked-etag": f'"{git_sha1(data)}"'}, etag=git_sha1(data))
            return
        # Another host, as far as a client can tell.
        place = f"/cdn/{sha256(data)}"
        self.sources.files[place] = data
        self._redirect(self.sources.url.replace("127.0.0.1", "localhost") + place, named)

    def _civitai(self, path: str) -> None:
        *_, kind, number = path.split("/")
        known = {"model-versions": self.sources.versions, "models": self.sources.models}.get(kind, {})
        if number.isdigit() and int(number) in known:
            self._json(known[int(number)])
        else:
            self._status(404)

    def _file(self, data: bytes, headers: Mapping[str, str] | None = None, etag: str | None = None) -> None:
        tag = f'"{etag or sha256(data)[:32]}"'
        given = dict(headers or {})
        if self.sources.etags:
            given["etag"] = tag
        start, status, length = 0, 200, len(data)
        span = self.headers.get("range", "")
        condition = self.headers.get("if-range")
        if self.sources.ranges and span.startswith("bytes=") and condition in {None, tag if self.sources.etags else ""}:
            first, _, last = span.removeprefix("bytes=").partition("-")
            start = int(first)
            if start >= len(data):
                self._status(416, {"content-range": f"bytes */{len(data)}"})
                return
            end = min(int(last), len(data) - 1) if last else len(data) - 1
            status, length = 206, end - start + 1
            given["content-range"] = f"bytes {start}-{end}/{len(data)}"
        body = data[start : start + length]
        self.send_response(status)
        for name, value in {
            **given,
            "content-length": str(length),
            "content-type": "text/html" if self.path in self.sources.html else "application/octet-stream",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        # The one byte by which a plan is made does not count.
        if self.sources.stalls and length > 1:
            self.wfile.write(body[: self.sources.stalls.popleft()])
            self.wfile.flush()
            self.sources.go_on.wait(30)
            self.close_connection = True
            return
        if self.sources.cuts and length > 1:
            self.wfile.write(body[: self.sources.cuts.popleft()])
            self.wfile.flush()
            self.close_connection = True
            return
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def _redirect(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._status(302, {**(headers or {}), "location": url})

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _status(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "content-length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()


@contextlib.contextmanager
def serve_sources() -> Iterator[Sources]:
    """Run a server with nothing in it until the block ends."""
    sources = Sources()
    handler = type("Handler", (_Handler,), {"sources": sources})
    # Each test hangs up on it in its own way.
    server = type("Server", (ThreadingHTTPServer,), {"handle_error": lambda *_: None})(("127.0.0.1", 0), handler)
    sources.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sources
    finally:
        sources.go_on.set()
        server.shutdown()
        thread.join(10)
        server.server_close()
