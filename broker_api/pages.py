"""The pages and documents that are the same for everyone: the landing page, the docs, the OpenAPI document."""

from dataclasses import dataclass
from typing import Final

from starlette.responses import Response
from starlette.types import Scope

from broker_api.endpoints import Call
from broker_api.web_app import INDEX, web_answer

#: Nothing is loaded from anywhere, no script runs, no site may frame the page.
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@dataclass(frozen=True)
class Pages:
    """What was rendered once when the application was made."""

    landing: bytes
    docs: bytes
    openapi: bytes


async def landing(call: Call) -> Response:
    """Return the web application, or where it is not built the page that says where things are."""
    if call.request.scope["app"].state.web_app is not None:
        return web_answer(call.request, INDEX)
    return _html(_pages(call.request.scope).landing)


async def docs(call: Call) -> Response:
    """Return the API rendered for people."""
    return _html(_pages(call.request.scope).docs)


async def openapi(call: Call) -> Response:
    """Return the OpenAPI document."""
    content = _pages(call.request.scope).openapi
    # Any page may read what is public: API tools run in browsers.
    return Response(
        content,
        media_type="application/json",
        headers={"cache-control": "no-cache", "access-control-allow-origin": "*"},
    )


def _pages(scope: Scope) -> Pages:
    found: Pages = scope["app"].state.pages
    return found


def _html(content: bytes) -> Response:
    return Response(content, media_type="text/html; charset=utf-8", headers=_HEADERS)
