"""A job in this worker's hands, from the claim to the record of its outcome."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

from jobs.analysing.findings import Findings
from jobs.claims import ClaimedJob
from jobs.geometry import total_steps
from jobs.inputs import Inputs
from jobs.store import StoredPicture
from models_registry.contents.stock import Stock
from models_registry.entries import ModelRef
from workers.model_cache import Hold
from workers.phases import PhaseClock
from workers.progress import Feed

#: With so few steps left to draw, the next job is claimed.
CLAIM_AHEAD_STEPS: Final = 2


class Ending(StrEnum):
    """Why the engine was told to stop a job."""

    CANCELLED = "cancelled"  # its owner wants it no more
    LOST = "lost"  # another writer has it: nothing of it counts here
    LAPSED = "lapsed"  # by this worker's own clock its lease is over; the database was out of reach
    DRAINED = "drained"  # this worker is leaving
    ENGINELESS = "engineless"  # the engine ended before it began the job
    UNFETCHED = "storage_away"  # its files could not be fetched
    OVERDUE = "overdue"  # a phase passed its limit


@dataclass(eq=False)
class Held:
    """What is known of one job; guarded by the foreman's lock, but for what never changes."""

    job: ClaimedJob
    inputs: Inputs
    feed: Feed
    clock: PhaseClock
    #: Monotonic time at which the lease is over unless it is renewed.
    lease_until: float
    #: Life of the engine process it was sent to; lives count from 1.
    life: int = 0
    #: Whether its pictures or models are still on their way from the storage: the engine does not know of it.
    fetching: bool = False
    #: Models whose files were not on this host.
    lacking: Mapping[ModelRef, Stock] = field(default_factory=dict)
    #: What keeps their files in this host's cache.
    holds: Sequence[Hold] = ()
    #: Whether the engine has begun it.
    begun: bool = False
    #: Whether the engine has ended it; what remains is storing and recording.
    ended: bool = False
    step: int = 0
    ending: Ending | None = None
    #: Monotonic time by which the engine must have stopped it.
    stop_by: float = math.inf
    #: Pictures on their way into storage, in their order.
    pictures: list["Future[StoredPicture]"] = field(default_factory=list)
    #: What an analysis found out, in place of pictures.
    findings: Findings | None = None

    @property
    def key(self) -> tuple[UUID, int]:
        """Return what reports name it by."""
        return (self.job.id, self.job.epoch)

    def let_go(self) -> None:
        """Let the files it needed leave this host's cache."""
        for hold in self.holds:
            hold.close()

    @property
    def steps(self) -> int:
        """Return the steps of all its pictures."""
        return total_steps(self.job.parameters)

    @property
    def is_nearly_drawn(self) -> bool:
        """Tell whether the engine will be free soon."""
        return self.begun and self.ending is None and self.steps - self.step <= CLAIM_AHEAD_STEPS
