"""Hold in memory what admission must know of models and workers, renewed each second: a submit asks the database nothing."""

import asyncio
import itertools
from dataclasses import dataclass
from typing import Final

from broker_api.http.background import repeat
from broker_api.problems import DATABASE_ERRORS, RETRY_SECONDS
from broker_api.refusals import Starting
from infra.database import AsyncPool
from infra.logging import get_logger
from jobs.fleet import Fleet
from jobs.pace import UNKNOWN_PACE, Pace, read_pace
from jobs.reading import QueueView, queues
from jobs.roster import fleet
from models_registry.following import Follower
from models_registry.offers import Catalogue

log = get_logger(__name__)

REFRESH_SECONDS: Final = 1.0
#: Counting what waits reads every waiting row: it is done this much more seldom.
COUNT_EVERY: Final = 5
#: How fast jobs are drawn changes slowly.
LEARN_EVERY: Final = 15

REFRESH_FAILED: Final = "snapshot_not_refreshed"


@dataclass(frozen=True)
class Snapshot:
    """The models and workers of a moment."""

    catalogue: Catalogue
    fleet: Fleet


class Snapshots:
    """Hold the newest snapshot and renew it in the background."""

    def __init__(self, pool: AsyncPool) -> None:
        self._pool = pool
        #: Reads what changed in the library.
        self.follower = Follower()
        self._now: Snapshot | None = None
        self._queues: tuple[QueueView, ...] = ()
        self._pace = UNKNOWN_PACE
        self._turns = itertools.count()

    @property
    def now(self) -> Snapshot:
        """Return the newest snapshot, raising `Starting` while there is none."""
        if self._now is None:
            raise Starting(
                "The server has not read its models and workers yet: the database has not answered since it started.",
                headers={"retry-after": str(RETRY_SECONDS)},
            )
        return self._now

    @property
    def fleet(self) -> Fleet:
        """Return the workers as last read; none while nothing was read."""
        return Fleet() if self._now is None else self._now.fleet

    @property
    def is_ready(self) -> bool:
        """Tell whether there is a snapshot."""
        return self._now is not None

    @property
    def queues(self) -> tuple[QueueView, ...]:
        """Return the queues as last counted; empty before the first count."""
        return self._queues

    async def refresh(self) -> Snapshot:
        """Read now which workers there are, and what changed among the models."""
        async with self._pool.connection() as connection:
            self._now = Snapshot(await self.follower.refresh(connection), await fleet(connection))
        return self._now

    async def count(self) -> None:
        """Count what waits and runs now."""
        async with self._pool.connection() as connection:
            self._queues = tuple(await queues(connection))

    @property
    def pace(self) -> Pace:
        """Return how fast jobs were drawn lately, as last learnt."""
        return self._pace

    async def learn(self) -> None:
        """Learn now how fast jobs are drawn."""
        async with self._pool.connection() as connection:
            self._pace = await read_pace(connection)

    async def keep_fresh(self) -> None:
        """Renew the snapshot about each second, for ever; while the database is away the last one stands."""
        await repeat(self._renew, name="snapshots")

    async def _renew(self) -> None:
        turn = next(self._turns)
        try:
            await self.refresh()
            if turn % COUNT_EVERY == 0:
                await self.count()
            if turn % LEARN_EVERY == 0:
                await self.learn()
        except DATABASE_ERRORS as error:
            log.debug(REFRESH_FAILED, reason=str(error))
        await asyncio.sleep(REFRESH_SECONDS)
