"""Announce what was committed, off the request path: first the event, then the wake-up.

All of it may be lost: readers and the keeper stand on the database. So nothing here waits long, and nothing is tried twice.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from kombu.exceptions import KombuError
from prometheus_client import Counter as Metric
from redis.exceptions import RedisError

from broker_api.http.background import repeat
from infra.logging import get_logger
from jobs.changes import Change
from jobs.events import AsyncEventWriter

log = get_logger(__name__)

#: Changes that wait to be announced; what comes on top is dropped.
BACKLOG: Final = 10_000
#: Announced together at most.
BATCH: Final = 200
#: After a failure everything is dropped for so long, seconds: a dead Redis must not hold a queue of announcements.
REST_SECONDS: Final = 1.0

RELAY_DROPPED: Final = "announcements_dropped"
RELAY_RESUMED: Final = "announcements_resumed"

_ERRORS: Final = (RedisError, KombuError, OSError, TimeoutError)
#: What makes a job want a worker.
_WAKING: Final = frozenset({"queued", "requeued"})

#: Sends one wake-up to a queue and returns whether more would be of use; blocks.
Wake = Callable[[str], bool]


class Relay:
    """Publish changes and wake workers in the background."""

    def __init__(self, events: AsyncEventWriter, wake: Wake, wakes: Callable[[str, int], int], dropped: Metric) -> None:
        self._events = events
        self._wake = wake
        #: How many wake-ups so many new jobs of a queue want.
        self._wakes = wakes
        self._dropped = dropped
        self._queue: asyncio.Queue[Change] = asyncio.Queue(BACKLOG)
        self._failing = False

    def announce(self, change: Change) -> None:
        """Take a committed change; never waits, never fails."""
        try:
            self._queue.put_nowait(change)
        except asyncio.QueueFull:
            self._dropped.inc()

    async def run(self) -> None:
        """Announce for ever."""
        await repeat(self._announce_next, name="relay")

    async def _announce_next(self) -> None:
        changes = [await self._queue.get()]
        while len(changes) < BATCH and not self._queue.empty():
            changes.append(self._queue.get_nowait())
        try:
            await self._announce(changes)
            if self._failing:
                log.info(RELAY_RESUMED)
            self._failing = False
        except _ERRORS as error:
            await self._rest(len(changes), error)
        except Exception:
            self._dropped.inc(len(changes))
            raise
        finally:
            for _ in changes:
                self._queue.task_done()

    async def drain(self, seconds: float) -> None:
        """Wait until everything taken so far has been announced, but not longer than this."""
        try:
            async with asyncio.timeout(seconds):
                await self._queue.join()
        except TimeoutError:
            return

    async def _announce(self, changes: Sequence[Change]) -> None:
        await self._events.publish([change.event for change in changes])
        waiting = Counter(change.queue for change in changes if change.type in _WAKING)
        for queue, jobs in waiting.items():
            await asyncio.to_thread(self._wake_some, queue, jobs)

    def _wake_some(self, queue: str, jobs: int) -> None:
        for _ in range(self._wakes(queue, jobs)):
            if not self._wake(queue):
                return

    async def _rest(self, lost: int, error: BaseException) -> None:
        if not self._failing:
            log.warning(RELAY_DROPPED, reason=f"{type(error).__name__}: {error}")
        self._failing = True
        await asyncio.sleep(REST_SECONDS)
        while not self._queue.empty():
            self._queue.get_nowait()
            self._queue.task_done()
            lost += 1
        self._dropped.inc(lost)
