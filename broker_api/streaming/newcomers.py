"""Find the jobs that watched owners begin: one statement for all owners that are watched in this process."""

import asyncio
import time
from typing import Final

from broker_api.http.background import repeat
from broker_api.problems import DATABASE_ERRORS
from broker_api.streaming.feeds import Feed, Overflow
from infra.database import AsyncPool
from infra.logging import get_logger
from jobs.watching import jobs_in_motion, jobs_of

log = get_logger(__name__)

#: A job its owner has begun is heard of after so long at most, seconds; nothing that happened to it is missed.
LOOK_SECONDS: Final = 0.5
#: A job that ended so long before the last look, seconds, is still found: commits become visible late.
MARGIN_SECONDS: Final = 5.0

LOOK_FAILED: Final = "newcomers_not_looked_for"


class Newcomers:
    """Hand the jobs of watched owners to the feeds that watch them."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        #: Feed to owner.
        self._feeds: dict[Feed, str] = {}
        self._watched = asyncio.Event()
        self._looked = time.monotonic()
        #: Statements so far.
        self.looks = 0

    def join(self, feed: Feed, owner: str) -> None:
        """Let a feed hear of all jobs of an owner."""
        if not self._feeds:
            self._looked = time.monotonic()
        self._feeds[feed] = owner
        self._watched.set()

    def leave(self, feed: Feed) -> None:
        """Let a feed hear of no further jobs."""
        self._feeds.pop(feed, None)

    async def run(self) -> None:
        """Look for ever, while somebody watches."""
        await repeat(self._look, name="newcomers")

    async def _look(self) -> None:
        if not self._feeds:
            self._watched.clear()
            await self._watched.wait()
        await asyncio.sleep(LOOK_SECONDS)
        began = time.monotonic()
        try:
            async with self._pool.connection() as connection:
                found = await jobs_in_motion(
                    connection, sorted(set(self._feeds.values())), ended_within=began - self._looked + MARGIN_SECONDS
                )
        except DATABASE_ERRORS as error:
            log.debug(LOOK_FAILED, reason=str(error))
            return
        self._looked = began
        self.looks += 1
        by_owner = {owner: jobs_of(found, owner) for owner in set(self._feeds.values())}
        for feed, owner in list(self._feeds.items()):
            try:
                feed.watch_new(by_owner.get(owner, {}).values())
            except Overflow:
                # Its connection notices by itself that it is full.
                self.leave(feed)
                feed.wake()
