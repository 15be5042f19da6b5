"""Hold a caller's connection until its job has ended; cancel the job some time after the last who watched it has left.

A caller that comes back with the same request in time goes on with the job it had: a client whose own patience was shorter than the
queue, or whose API process was restarted, does not pay for a second drawing.
"""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID
from weakref import WeakValueDictionary

from starlette.types import Receive

from broker_api.http.background import repeat
from broker_api.problems import DATABASE_ERRORS
from broker_api.refusals import HeaderInvalid
from broker_api.streaming.listening import Hub
from broker_api.streaming.waiting import Outcome, wait_for_end
from infra.clock import Clock
from infra.database import AsyncConnection, AsyncPool
from infra.logging import get_logger
from jobs import watches
from jobs.changes import Change

log = get_logger(__name__)

#: How often what lapsed is looked for, seconds.
SWEEP_SECONDS: Final = 1.0
#: A caller that waits "until the end" waits so long.
PATIENT_SECONDS: Final = 7 * 86_400.0
HEADER: Final = "Imagefleet-Hang-Up"
HEADER_TEXT: Final = "`cancel` or `keep`: what becomes of the job when this connection breaks before the answer."

HangUp = Literal["cancel", "keep"]

ABANDONED: Final = "job_abandoned"
SWEEP_FAILED: Final = "watches_not_swept"


def fingerprint(door: str, key_id: str, request_hash: str | None) -> str:
    """Return what tells one caller's same request on the same door from all others."""
    return hashlib.sha256("\n".join((door, key_id, request_hash or "")).encode()).hexdigest()


def hang_up(header: str | None, usual: HangUp) -> HangUp:
    """Read the header that says what a broken connection means, raising `HeaderInvalid`."""
    match None if header is None else header.strip().lower():
        case None:
            return usual
        case "cancel":
            return "cancel"
        case "keep":
            return "keep"
        case _:
            raise HeaderInvalid(f"{HEADER} must be `cancel` or `keep`.", field=HEADER)


@dataclass
class Attendance:
    """How a caller's wait ended; it has left unless something else is said."""

    outcome: Outcome = "left"


class Watching:
    """Know whom this process serves, keep that written down, and end what nobody waits for."""

    def __init__(
        self, pool: AsyncPool, hub: Hub, announce: Callable[[Change], None], clock: Clock, grace_seconds: float
    ) -> None:
        self._pool = pool
        self._hub = hub
        self._announce = announce
        self._clock = clock
        self._grace = grace_seconds
        self._callers: Counter[UUID] = Counter()
        self._began = clock.monotonic()
        self._renewed = 0.0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, print_: str) -> asyncio.Lock:
        """Return what equal requests of one caller to this process hold in turn; `watches.take_turn` does it for the fleet."""
        return self._turns.setdefault(print_, asyncio.Lock())

    async def join(self, connection: AsyncConnection, owner: str, print_: str, *, again: bool) -> UUID | None:
        """Return the job this caller left behind a moment ago, if any; with `again` also one whose caller's leaving is not known yet."""
        return await watches.join(connection, owner, print_, self._grace, again=again)

    async def begin(self, connection: AsyncConnection, job: UUID, print_: str, what: HangUp) -> None:
        """Write down that a caller waits for a job."""
        await watches.begin(connection, job, print_, keep=what == "keep")

    async def wait(self, jobs: Sequence[UUID], seconds: float, receive: Receive) -> Outcome:
        """Return when all these jobs have ended, the time is up, the caller has left, or the server stops."""
        async with self.attend(jobs) as attendance:
            attendance.outcome = await wait_for_end(self._hub, jobs, seconds, receive)
        return attendance.outcome

    @contextlib.asynccontextmanager
    async def attend(self, jobs: Sequence[UUID]) -> AsyncIterator["Attendance"]:
        """Let a caller watch jobs, and write down how that ended."""
        attendance = Attendance()
        self._callers.update(jobs)
        try:
            yield attendance
        finally:
            self._callers.subtract(jobs)
            alone = [job for job in jobs if self._callers[job] <= 0]
            for job in alone:
                del self._callers[job]
            # Shielded: a cancelled request must be written down too.
            await asyncio.shield(self._write_end(jobs, alone, attendance.outcome))

    async def _write_end(self, jobs: Sequence[UUID], alone: Collection[UUID], outcome: Outcome) -> None:
        # While the database is away nothing can be written; silence says the same a little later.
        with contextlib.suppress(*DATABASE_ERRORS):
            async with self._pool.connection() as connection:
                if outcome in {"ended", "time_up"}:
                    # It has its answer, or the id by which it follows the job itself.
                    await watches.forget(connection, jobs)
                    return
                for job in alone:
                    await watches.leave(connection, job)

    async def run(self) -> None:
        """Renew and sweep for ever."""
        await repeat(self._round, name="watching")

    async def _round(self) -> None:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await self.renew()
            # Right after a start those who were cut off get the time to come back.
            if self._clock.monotonic() - self._began >= self._grace:
                await self.sweep()
        except DATABASE_ERRORS as error:
            log.debug(SWEEP_FAILED, reason=str(error))

    async def renew(self) -> None:
        """Say whom this process serves, when it is time to."""
        watched = self._hub.watched
        if not watched or self._clock.monotonic() - self._renewed < watches.BEAT_SECONDS:
            return
        async with self._pool.connection() as connection:
            await watches.renew(connection, watched, list(self._callers))
        self._renewed = self._clock.monotonic()

    async def sweep(self) -> None:
        """Cancel what nobody has watched for the grace."""
        async with self._pool.connection() as connection:
            changes = await watches.cancel_lapsed(connection, self._grace)
        for change in changes:
            log.info(ABANDONED, job=str(change.job))
            self._announce(change)
