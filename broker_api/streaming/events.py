"""GET /v1/jobs/{id}/events: a job's events as they happen, as server-sent events that resume without gap or repeat."""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker_api.endpoints import Call, not_found
from broker_api.streaming.listening import Hub
from broker_api.streaming.topics import Frame, Reader, encode, opening
from broker_api.streaming.waiting import departure
from infra.logging import get_logger
from jobs.changes import Change
from jobs.events import FINAL_EVENTS, parse_event_id
from jobs.reading import present_changes

log = get_logger(__name__)

#: A silent stream says so often that it lives; proxies cut what is silent for longer.
KEEP_ALIVE_SECONDS: Final = 7.0
#: A reader that takes nothing for so long is cut.
STALL_SECONDS: Final = 30.0
KEEP_ALIVE: Final = b": keep-alive\n\n"
#: How soon a browser comes back after a cut, in milliseconds.
PREAMBLE: Final = b"retry: 1000\n\n"

READER_STALLED: Final = "event_reader_stalled"


async def read_events(call: Call) -> Response:
    """Stream the events of a job until it ends."""
    job = call.job()
    async with call.services.pool.connection() as connection:
        found = await present_changes(connection, call.principal.sees, [job])
    if job not in found:
        raise not_found()
    seen = parse_event_id(call.request.headers.get("last-event-id", ""))
    if found[job].type in FINAL_EVENTS and seen == found[job].event.order:
        # An EventSource that is told so stays away.
        return Response(status_code=204)
    return EventStream(call.services.hub, found[job], seen)


class EventStream(Response):
    """Send a job's events to one reader."""

    def __init__(self, hub: Hub, present: Change, seen: tuple[int, int] | None) -> None:
        super().__init__(
            headers={"cache-control": "no-cache, no-transform", "x-accel-buffering": "no", "connection": "keep-alive"},
            media_type="text/event-stream",
        )
        # It has no length: Starlette counted the empty body.
        del self.headers["content-length"]
        self._hub = hub
        self._present = present
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the job has ended, the reader has left or stalls, or the server stops."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        async with self._hub.watch(self._present.job) as reader:
            try:
                async with departure(receive, reader) as left:
                    await self._stream(reader, send, left)
            except TimeoutError:
                # The response stays unfinished on purpose: the server closes the connection, and the reader knows that it was cut.
                log.info(READER_STALLED, job=str(self._present.job), seconds=STALL_SECONDS)

    async def _stream(self, reader: Reader, send: Send, left: asyncio.Event) -> None:
        first = opening(reader.topic, encode(self._present.event), self._seen)
        if first.end_expected:
            self._hub.expect(self._present)
        reader.position = first.position
        await _write(send, PREAMBLE, first.frames)
        ended = first.over or (bool(first.frames) and first.frames[-1].final)
        while not (ended or left.is_set() or self._hub.stopping or reader.topic.closed):
            if not await reader.wait(KEEP_ALIVE_SECONDS):
                await _write(send, KEEP_ALIVE, [])
                continue
            frames = reader.take()
            if frames:
                await _write(send, b"", frames)
                ended = frames[-1].final
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _write(send: Send, text: bytes, frames: list[Frame]) -> None:
    body = b"".join([text, *(frame.body for frame in frames)])
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})
