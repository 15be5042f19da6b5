"""Follow something that changes in the database, as server-sent events, until it has ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker_api.streaming.events import KEEP_ALIVE, KEEP_ALIVE_SECONDS, PREAMBLE, STALL_SECONDS
from broker_api.streaming.listening import Hub
from broker_api.streaming.waiting import departure
from infra.logging import get_logger

log = get_logger(__name__)

READER_STALLED: Final = "follower_stalled"
#: How often the row is looked at; one statement by its key.
LOOK_SECONDS: Final = 0.5


class ProgressStream(Response):
    """Send a view whenever it has changed: `event` is its state, `data` the view; the first one is the present."""

    def __init__(
        self,
        hub: Hub,
        read: Callable[[], Awaitable[BaseModel | None]],
        state: Callable[[BaseModel], tuple[str, bool]],
    ) -> None:
        """Follow what `read` returns until it is None, or `state`, which tells the event's name and whether it is the last, says so."""
        super().__init__(
            headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", "connection": "keep-alive"},
            media_type="text/event-stream",
        )
        # It has no length: Starlette counted the empty body.
        del self.headers["content-length"]
        self._hub = hub
        self._read = read
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until it has ended, the reader has left or stalls, or the server stops."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            async with departure(receive) as left:
                await self._stream(send, left)
        except TimeoutError:
            log.info(READER_STALLED, path=scope["path"], seconds=STALL_SECONDS)

    async def _stream(self, send: Send, left: asyncio.Event) -> None:
        await _write(send, PREAMBLE)
        clock = asyncio.get_running_loop().time
        sent, said_at = "", clock()
        while not (left.is_set() or self._hub.stopping):
            view = await self._read()
            if view is None:
                break
            name, is_last = self._state(view)
            text = view.model_dump_json()
            if text != sent:
                await _write(send, f"event: {name}\ndata: {text}\n\n".encode())
                sent, said_at = text, clock()
            elif clock() - said_at > KEEP_ALIVE_SECONDS:
                await _write(send, KEEP_ALIVE)
                said_at = clock()
            if is_last:
                break
            await _pause(left)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _pause(left: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await left.wait()
    except TimeoutError:
        return


async def _write(send: Send, body: bytes) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})
