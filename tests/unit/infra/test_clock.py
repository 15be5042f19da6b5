"""Both clocks tell the time in the same way."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.clock import Clock, ManualClock, SystemClock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()])
def test_clock_tells_aware_wall_time_and_rising_seconds(clock: Clock) -> None:
    """Wall time is in UTC; monotonic time does not run backwards."""
    assert clock.now().utcoffset() == timedelta(0)
    assert clock.monotonic() <= clock.monotonic()


def test_manual_clock_moves_only_when_told() -> None:
    """A test decides what time it is, forwards only."""
    clock = ManualClock(wall=datetime(2030, 1, 1, tzinfo=UTC))
    assert (clock.now(), clock.monotonic()) == (datetime(2030, 1, 1, tzinfo=UTC), 0.0)
    clock.advance(90)
    assert (clock.now(), clock.monotonic()) == (datetime(2030, 1, 1, 0, 1, 30, tzinfo=UTC), 90.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
