"""Wait for jobs to end while their caller holds the line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Literal
from uuid import UUID

from starlette.types import Receive

from broker_api.http.background import end_tasks
from broker_api.refusals import BodyTimeout, BodyTooLarge
from broker_api.streaming.listening import Hub
from broker_api.streaming.topics import Reader

#: Why a wait is over; `ended` also when the job was deleted.
Outcome = Literal["ended", "time_up", "left", "stopping"]


@contextlib.asynccontextmanager
async def departure(receive: Receive, *readers: Reader) -> AsyncIterator[asyncio.Event]:
    """Wake the readers when their client leaves, and say so."""
    left = asyncio.Event()

    async def notice() -> None:
        with contextlib.suppress(BodyTimeout, BodyTooLarge):
            while (await receive())["type"] != "http.disconnect":
                pass
        left.set()
        for reader in readers:
            reader.wake()

    task = asyncio.create_task(notice())
    try:
        yield left
    finally:
        await end_tasks([task])


async def wait_for_end(hub: Hub, jobs: Sequence[UUID], seconds: float, receive: Receive) -> Outcome:
    """Return when all the jobs have ended, the time is up, the client has left, or the server stops."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(hub.watch(job)) for job in jobs]
        left = await stack.enter_async_context(departure(receive, *readers))
        for reader in readers:
            while not (reader.topic.ended or reader.topic.closed):
                if left.is_set():
                    return "left"
                if hub.stopping:
                    return "stopping"
                rest = until - clock()
                if rest <= 0:
                    return "time_up"
                await reader.wait(rest)
    return "ended"
