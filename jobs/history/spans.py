"""Which stretch of time is looked at, and in what steps; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from jobs.errors import RequestRefused

Step = Literal["1m", "5m", "15m", "1h", "3h", "6h", "1d", "1w"]
STEPS: Final[Mapping[Step, timedelta]] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "3h": timedelta(hours=3),
    "6h": timedelta(hours=6),
    "1d": timedelta(days=1),
    "1w": timedelta(weeks=1),
}
HOUR: Final = timedelta(hours=1)
#: Where steps are counted from: a Monday, so that weeks begin with one; UTC.
ORIGIN: Final = datetime(2001, 1, 1, tzinfo=UTC)
#: What is looked at unless the request says.
USUAL: Final = timedelta(days=1)
#: Points of a line: at most, and about as many as are drawn when the step is left out.
MOST_POINTS: Final = 500
USUAL_POINTS: Final = 100
#: A summary of at most this is exact to the instant; a longer one is of whole hours.
EXACT: Final = timedelta(hours=6)
_LATEST: Final = datetime(2201, 1, 1, tzinfo=UTC)


class RangeInvalid(RequestRefused):
    """The stretch of time cannot be looked at, or not in such steps."""

    code = "range_invalid"


@dataclass(frozen=True)
class Span:
    """A stretch of time, `until` not included, whose ends are whole steps."""

    since: datetime
    until: datetime
    step: timedelta

    @property
    def length(self) -> int:
        """Return how many steps it has."""
        return (self.until - self.since) // self.step

    @property
    def points(self) -> list[datetime]:
        """Return when each step begins."""
        return [self.since + number * self.step for number in range(self.length)]

    @property
    def is_whole_hours(self) -> bool:
        """Tell whether what was counted by the hour answers for it."""
        return self.step % HOUR == (self.since - ORIGIN) % HOUR == timedelta(0)


def series_span(since: datetime | None, until: datetime | None, step: Step | None, now: datetime) -> Span:
    """Return the steps that cover a stretch of time, raising `RangeInvalid`; the step is chosen when none is given."""
    since, until = _ends(since, until, now)
    fitting = (size for size in STEPS.values() if (until - since) / size <= USUAL_POINTS)
    size = STEPS[step] if step is not None else next(fitting, STEPS["1w"])
    span = Span(_floor(since, size), _ceiling(until, size), size)
    if span.length > MOST_POINTS:
        raise RangeInvalid(f"That would be {span.length} points; at most {MOST_POINTS} are told.", field="step")
    return span


def summary_span(since: datetime | None, until: datetime | None, now: datetime) -> Span:
    """Return a stretch of time as one step: exact when it is short, else of whole hours; raises `RangeInvalid`."""
    since, until = _ends(since, until, now)
    if until - since <= EXACT:
        return Span(since, until, until - since)
    begin, end = _floor(since, HOUR), _ceiling(until, HOUR)
    return Span(begin, end, end - begin)


def _ends(since: datetime | None, until: datetime | None, now: datetime) -> tuple[datetime, datetime]:
    for name, given in (("since", since), ("until", until)):
        if given is not None and not ORIGIN <= given < _LATEST:
            raise RangeInvalid(f"Only the years {ORIGIN.year} to {_LATEST.year - 1} can be looked at.", field=name)
    end = (until or max(now, since or now)).astimezone(UTC)
    begin = (since or max(ORIGIN, end - USUAL)).astimezone(UTC)
    if begin >= end:
        raise RangeInvalid("The stretch of time ends before it begins.", field="since" if until is None else "until")
    return begin, end


def _floor(moment: datetime, size: timedelta) -> datetime:
    return ORIGIN + (moment - ORIGIN) // size * size


def _ceiling(moment: datetime, size: timedelta) -> datetime:
    return ORIGIN - (ORIGIN - moment) // size * size
