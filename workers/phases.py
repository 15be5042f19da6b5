"""How long each part of a job may take: a worker renews a lease only while the present phase is inside its limit.

Nothing hangs for ever, and nothing slow but moving is killed: steps must advance, a load may take its time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from infra.settings import Settings

#: `fetch` is a job whose pictures are on their way; `waiting` one behind another, whose limits count.
Stage = Literal["fetch", "waiting", "load", "encode", "step", "decode", "store"]


@dataclass(frozen=True)
class PhaseLimits:
    """The longest each phase may last without progress, seconds."""

    limits: Mapping[Stage, float]

    @classmethod
    def of(cls, settings: Settings) -> "PhaseLimits":
        """Take the limits from settings."""
        return cls(
            {
                "fetch": settings.store_limit_seconds,
                "waiting": math.inf,
                "load": settings.load_limit_seconds,
                "encode": settings.encode_limit_seconds,
                "step": settings.step_limit_seconds,
                "decode": settings.decode_limit_seconds,
                # Storing and recording may take so long each.
                "store": 2 * settings.store_limit_seconds,
            }
        )

    def __getitem__(self, stage: Stage) -> float:
        return self.limits[stage]


class PhaseClock:
    """Tell whether the present phase of one job is inside its limit; times are monotonic seconds."""

    def __init__(self, limits: PhaseLimits) -> None:
        self._limits = limits
        self.stage: Stage = "waiting"
        self.deadline = math.inf

    @property
    def limit(self) -> float:
        """Return the limit of the present phase, seconds."""
        return self._limits[self.stage]

    def begin(self, stage: Stage, now: float) -> None:
        """Enter a phase, or advance inside it: its limit starts anew."""
        self.stage = stage
        self.deadline = now + self._limits[stage]

    def is_overdue(self, now: float) -> bool:
        """Tell whether the phase has lasted longer than it may."""
        return now >= self.deadline
