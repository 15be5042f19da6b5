"""Limits that hold before any handler runs: host name, header and path size, body size, body speed."""

import asyncio
import contextlib
from collections.abc import Collection, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from broker_api.problems import problem_of, problem_response
from broker_api.refusals import BodyTimeout, BodyTooLarge, HeaderInvalid, HostUnknown, HttpRefused

#: The connection is useless afterwards: what is left of the body would be read as the next request.
_CLOSE: Final = {"connection": "close"}
MOST_HEADERS: Final = 100
LONGEST_HEADERS: Final = 32 * 1024
LONGEST_TARGET: Final = 8 * 1024
LONGEST_NUMBER: Final = 18
#: What still comes of a refused body is thrown away for so long before the connection is closed.
LINGER_SECONDS: Final = 1.0
#: Always accepted: `imagefleet up` and everything else on the machine itself speaks to the API there.
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})


def accepted_hosts(listed: str, address: str) -> frozenset[str]:
    """Return the host names to answer under, from a list with commas and the address listened on; empty for any."""
    names = frozenset(name.strip().lower() for name in listed.split(",") if name.strip())
    if not names:
        return names
    return names | LOOPBACK_NAMES | {f"[{address}]" if ":" in address else address.lower()}


@dataclass(frozen=True)
class Limits:
    """State what one request may cost before it is understood."""

    body_bytes: int
    #: A body that sends nothing for so long is given up.
    body_pause_seconds: float
    #: Host names this server answers under; empty for any.
    hosts: Collection[str] = ()
    #: Beginnings of the paths that take whole models, which are streamed to where they are kept; and how large these may be.
    large_paths: tuple[str, ...] = ()
    large_bytes: int = 0

    def of_path(self, path: str) -> "Limits":
        """Return the limits of one path."""
        return (
            replace(self, body_bytes=self.large_bytes)
            if self.large_paths and path.startswith(self.large_paths)
            else self
        )


class LimitsMiddleware:
    """Refuse what is too large or too slow, without ever holding it."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request inside the limits."""
        if scope["type"] == "websocket":
            refused = self._refused(scope)
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await WebSocket(scope, receive, send).send_denial_response(problem_response(problem_of(refused)))
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _LimitedBody(scope, receive, self._limits.of_path(scope["path"]))
        refused = self._refused(scope)
        if refused is not None:
            answer = problem_response(problem_of(refused), request_id=scope.get("request_id"), path=scope["path"])
            await answer(scope, receive, body.lingering(send))
            return
        await self._app(scope, body.receive, body.lingering(send))

    def _refused(self, scope: MutableMapping[str, Any]) -> HttpRefused | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > LONGEST_TARGET:
            return HeaderInvalid(f"The request's target is longer than {LONGEST_TARGET} bytes.", headers=_CLOSE)
        if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > LONGEST_HEADERS:
            return HeaderInvalid(
                f"More than {MOST_HEADERS} headers, or {LONGEST_HEADERS} bytes of them.", headers=_CLOSE
            )
        known = dict(headers)
        length = known.get(b"content-length", b"0")
        if not length.isdigit():
            return HeaderInvalid("Content-Length is not a number.", field="Content-Length", headers=_CLOSE)
        # Compared as text first: a number of a thousand digits is not worth reading.
        limits = self._limits.of_path(scope["path"])
        if len(length) > LONGEST_NUMBER or int(length) > limits.body_bytes:
            return _too_large(limits)
        host = known.get(b"host", b"").decode("latin-1").lower()
        if self._limits.hosts and _without_port(host) not in self._limits.hosts:
            return HostUnknown("This server does not answer under that host name.", field="Host")
        return None


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _too_large(limits: Limits) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than the {limits.body_bytes} bytes this server takes.", headers=_CLOSE)


class _LimitedBody:
    def __init__(self, scope: Scope, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._seen = 0
        self._more = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

    def lingering(self, send: Send) -> Send:
        """Wrap `send` so that an answer to a body that was not read to its end still reaches the client.

        A connection closed while bytes arrive is reset, and a reset makes the client's system throw away the answer it already has.
        """

        async def send_and_linger(message: Message) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not (last and self._more):
                await send(message)
                return
            await send({**message, "more_body": True})
            await self._discard()
            await send({"type": "http.response.body", "body": b""})

        return send_and_linger

    async def _discard(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while self._more:
                    message = await self._receive()
                    self._more = message["type"] == "http.request" and message.get("more_body", False)

    async def receive(self) -> Message:
        # After the body's end this call waits for the client to leave: as long as it likes.
        pause = self._limits.body_pause_seconds if self._more else None
        try:
            async with asyncio.timeout(pause):
                message = await self._receive()
        except TimeoutError:
            raise BodyTimeout(f"No byte of the body came for {pause} s.", headers=_CLOSE) from None
        if message["type"] == "http.request":
            self._more = message.get("more_body", False)
            self._seen += len(message.get("body", b""))
            if self._seen > self._limits.body_bytes:
                raise _too_large(self._limits)
        return message
