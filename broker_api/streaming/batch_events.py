"""GET /v1/batches/{id}/events: how a batch goes on, as one parent: its jobs' changes of state, and how far it is as a whole."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from starlette.responses import Response, StreamingResponse

from broker_api.endpoints import Call, not_found
from broker_api.problems import DATABASE_ERRORS
from broker_api.services import Services
from broker_api.streaming.events import KEEP_ALIVE, KEEP_ALIVE_SECONDS, PREAMBLE
from broker_api.streaming.feeds import Feed, Gone, Overflow
from broker_api.streaming.topics import Frame
from jobs.batches import BatchSummary, read_batch
from jobs.changes import Change
from jobs.events import FINAL_EVENTS
from jobs.reading import present_batches

#: The whole is told so often at most, seconds: it costs one statement.
PAUSE_SECONDS: Final = 0.5
#: The last news of a batch that has ended are waited for so many times.
REST_LOOKS: Final = 10
_LEFT_OUT: Final = frozenset({"progress", "preview"})


async def read_batch_events(call: Call) -> Response:
    """Stream a batch until its last job has ended."""
    batch, owner = call.job(), call.principal.sees
    async with call.services.pool.connection() as connection:
        found = await read_batch(connection, owner, batch)
        members = (await present_batches(connection, owner, [batch])).get(batch, {})
    if found is None:
        raise not_found()
    headers = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}
    stream = _stream(call.services, found, list(members.values()))
    return StreamingResponse(stream, headers=headers, media_type="text/event-stream")


async def _stream(services: Services, first: BatchSummary, members: list[Change]) -> AsyncIterator[bytes]:
    yield PREAMBLE + _whole(first)
    said = first
    feed = Feed(services.hub)
    try:
        with contextlib.suppress(Overflow):
            for change in members:
                if change.type not in FINAL_EVENTS:
                    feed.watch(change)
        while said.state == "active" and not services.hub.stopping:
            await feed.wait(KEEP_ALIVE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
            now = await _read(services, said)
            if now is None:
                return
            news = await _rest(feed) if now.state == "ended" else _taken(feed)
            yield news + (_whole(now) if now != said else b"") or KEEP_ALIVE
            said = now
    finally:
        feed.close()


async def _rest(feed: Feed) -> bytes:
    """Return what the feed still has to tell: the database knows an end before it is announced."""
    news = _taken(feed)
    for _ in range(REST_LOOKS):
        if not feed.held:
            break
        await feed.wait(PAUSE_SECONDS)
        # A topic that is being read wakes the feed before it is ready.
        await asyncio.sleep(PAUSE_SECONDS / 10)
        news += _taken(feed)
    return news


def _taken(feed: Feed) -> bytes:
    bodies = []
    while taken := feed.take():
        bodies += [_without_id(each) for each in taken if not isinstance(each, Gone) and each.type not in _LEFT_OUT]
    return b"".join(bodies)


async def _read(services: Services, said: BatchSummary) -> BatchSummary | None:
    try:
        async with services.pool.connection() as connection:
            return await read_batch(connection, None, said.id)
    except DATABASE_ERRORS:
        return said


def _whole(summary: BatchSummary) -> bytes:
    return b"event: batch\ndata: %b\n\n" % summary.model_dump_json().encode()


def _without_id(frame: Frame) -> bytes:
    # Ids count within a job; a stream of many begins anew with the whole.
    return frame.body.partition(b"\n")[2]
