"""Serve the web application: files that `make web` built, read once; a page whose scripts and pictures are this server's own."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from broker_api.endpoints import Answer, Call, Endpoint
from broker_api.refusals import NotFound

#: Where `make web` puts what it builds.
FOLDER: Final = Path(__file__).parent / "static" / "app"
INDEX: Final = "index.html"
#: Each is an address of its own: the application shows it whether one comes by a link inside it or from outside.
VIEWS: Final = ("sign-in", "sign-out", "draw", "gallery", "queue", "library", "fleet", "analytics", "settings")
#: Of these folders every file's name changes with its content.
_HASHED: Final = "assets/"
#: Scripts, styles and fonts are files of this server; pictures may also be those that are on their way (`data:`, `blob:`).
_SECURITY: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_MEDIA_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".ico": "image/x-icon",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".webmanifest": "application/manifest+json",
        ".woff2": "font/woff2",
    }
)
#: Encoding to the ending of the file that holds it, the smallest first.
_ENCODINGS: Final = (("br", ".br"), ("gzip", ".gz"))


@dataclass(frozen=True)
class WebFile:
    """One built file, in every encoding the build made of it."""

    content: bytes
    encoded: Mapping[str, bytes]
    media_type: str
    etag: str


WebApp = Mapping[str, WebFile]


def load_web_app(folder: Path = FOLDER) -> WebApp | None:
    """Read what was built, by path below the folder; None where nothing was."""
    if not (folder / INDEX).is_file():
        return None
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return MappingProxyType(
        {name: _read(path) for name, path in paths.items() if path.suffix in _MEDIA_TYPES},
    )


def _read(path: Path) -> WebFile:
    content = path.read_bytes()
    beside = {encoding: path.with_name(path.name + ending) for encoding, ending in _ENCODINGS}
    return WebFile(
        content=content,
        encoded={encoding: file.read_bytes() for encoding, file in beside.items() if file.is_file()},
        media_type=_MEDIA_TYPES[path.suffix],
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )


async def web_view(call: Call) -> Response:
    """Return the application, which shows the view that the address names."""
    return web_answer(call.request, INDEX)


async def web_file(call: Call) -> Response:
    """Return one built file."""
    return web_answer(call.request, call.request.url.path.removeprefix("/"))


def web_answer(request: Request, name: str) -> Response:
    """Answer with a built file, raising `NotFound`."""
    app: WebApp | None = request.scope["app"].state.web_app
    found = None if app is None else app.get(name)
    if found is None:
        raise NotFound("There is nothing here." if app else "The web application is not built: run `make web`.")
    keeping = "public, max-age=31536000, immutable" if name.startswith(_HASHED) else "no-cache"
    headers = {**_SECURITY, "cache-control": keeping, "etag": found.etag, "vary": "accept-encoding"}
    if found.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    accepted = {each.partition(";")[0].strip() for each in request.headers.get("accept-encoding", "").split(",")}
    for encoding, _ in _ENCODINGS:
        if encoding in accepted and encoding in found.encoded:
            headers["content-encoding"] = encoding
            return Response(found.encoded[encoding], headers=headers, media_type=found.media_type)
    return Response(found.content, headers=headers, media_type=found.media_type)


_FILES: Final = (
    "/assets/{path:path}", "/icons/{path:path}", "/sw.js", "/manifest.webmanifest", "/favicon.svg", "/offline.html", "/offline.css",
)  # fmt: skip
_ANSWER: Final = Answer(200, "A file of the web application.", media_type="text/html")

WEB_ENDPOINTS: Final = tuple(
    Endpoint("GET", path, f"web {path}", "Web application", "pages", handler, (_ANSWER,), access="public", listed=False)
    for handler, paths in (
        (web_view, [path for view in VIEWS for path in (f"/{view}", f"/{view}/{{path:path}}")]),
        (web_file, _FILES),
    )
    for path in paths
)
