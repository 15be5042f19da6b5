"""Tell the time through a value that tests can replace."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tell wall time and monotonic time."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""


class SystemClock:
    """Tell the machine's own time."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


@dataclass
class ManualClock:
    """Tell the time a test has set."""

    wall: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    seconds: float = 0.0

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return self.wall

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return self.seconds

    def advance(self, seconds: float) -> None:
        """Let both times pass by so many seconds; a negative figure is refused."""
        if seconds < 0:
            raise ValueError(f"time cannot run backwards ({seconds} s)")
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)
