"""Show Flower under /flower/: it has no users of its own, so it listens on loopback alone and is reached through our authentication."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import httpx
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from broker_api.endpoints import Call
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import FlowerUnavailable

#: What belongs to one connection is not passed on; nor are our key and our host name.
_NOT_SENT: Final = frozenset(
    {"host", "authorization", "cookie", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
     "proxy-authorization", "accept-encoding"}
)  # fmt: skip
_NOT_RETURNED: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "www-authenticate"}
)
#: Flower draws its pages with scripts and styles inside them; none may come from elsewhere, and no other site may frame them.
_HEADERS: Final[Mapping[str, str]] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


async def redirect_to_flower(call: Call) -> Response:
    """Add the slash that Flower's relative links need."""
    del call
    return RedirectResponse("/flower/", status_code=307)


async def proxy_flower(call: Call) -> Response:
    """Pass a request on to Flower and its answer back, piece by piece."""
    client = call.services.flower
    if client is None:
        raise FlowerUnavailable("No Flower runs beside this server.")
    try:
        answer = await client.send(_outgoing(client, call.request), stream=True)
    except httpx.HTTPError:
        raise _away("Flower does not answer at the moment.") from None
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        await answer.aclose()
        raise _away("Flower does not take the password it was started with.")
    return _Passed(answer)


def _away(reason: str) -> FlowerUnavailable:
    return FlowerUnavailable(reason, headers={"retry-after": str(RETRY_SECONDS)})


def _outgoing(client: httpx.AsyncClient, request: Request) -> httpx.Request:
    path = request.scope.get("raw_path") or request.url.path.encode()
    query = request.scope["query_string"]
    headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1") not in _NOT_SENT]
    return client.build_request(
        request.method,
        client.base_url.copy_with(raw_path=path + b"?" + query if query else path),
        headers=headers,
        content=None if request.method in {"GET", "HEAD"} else request.stream(),
    )


class _Passed(StreamingResponse):
    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(answer.aiter_raw(), status_code=answer.status_code)
        kept = [
            (name.lower(), value)
            for name, value in answer.headers.raw
            if name.lower().decode("latin-1") not in _NOT_RETURNED
        ]
        self.raw_headers = kept + [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._answer.aclose()
