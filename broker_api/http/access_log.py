"""Name every request, say in the log how it ended, and count it."""

import re
import time
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_api.http.metrics import Metrics
from infra.logging import get_logger

log = get_logger(__name__)

HTTP_REQUEST: Final = "http_request"
#: Requests that machines repeat every few seconds are logged only where someone looks closely.
_QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: Methods and routes nobody has heard of share one label: a client must not fill the memory with names.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER: Final = "other"


class AccessMiddleware:
    """Wrap one request in its name, its log line and its metrics."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = _request_id(scope)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        began = time.perf_counter()
        status, first_byte = 0, 0.0

        async def send_named(message: Message) -> None:
            nonlocal status, first_byte
            if message["type"] == "http.response.start":
                status, first_byte = int(message["status"]), time.perf_counter() - began
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        finally:
            # Named by the door that took the request, after it took it.
            route = scope.get("route_path", _OTHER)
            self._report(scope, route, status or 500, first_byte, time.perf_counter() - began)
            structlog.contextvars.unbind_contextvars("request_id")

    def _report(self, scope: Scope, route: str, status: int, first_byte: float, total: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        metrics: Metrics | None = getattr(getattr(scope.get("app"), "state", None), "metrics", None)
        if metrics is not None:
            metrics.requests.labels(method, route, status).inc()
            metrics.seconds.labels(method, route).observe(first_byte)
        say = log.debug if scope["path"] in _QUIET else log.info
        say(
            HTTP_REQUEST,
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(total * 1000, 1),
            key_id=scope.get("key_id"),
            client=scope["client"][0] if scope.get("client") else None,
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode("ascii"))
    return uuid4().hex
