"""Stretches of time: their ends are whole steps, their steps few."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.cursors import CursorInvalid, decode_moment_cursor, encode_moment_cursor
from jobs.history.spans import EXACT, MOST_POINTS, STEPS, RangeInvalid, Span, series_span, summary_span

NOW = datetime(2026, 3, 4, 10, 20, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@given(since=st.datetimes(datetime(2001, 1, 1), datetime(2150, 1, 1)), seconds=st.integers(1, 3600 * 24 * 3000))  # noqa: DTZ001
def test_series_covers_what_was_asked_for_in_few_whole_steps(since: datetime, seconds: int) -> None:
    """Whatever the range, every step is whole, none is missing, and there are not too many."""
    begin = since.replace(tzinfo=UTC)
    end = begin + timedelta(seconds=seconds)
    try:
        span = series_span(begin, end, None, NOW)
    except RangeInvalid:
        assert timedelta(seconds=seconds) / STEPS["1w"] > MOST_POINTS - 2
        return
    assert span.since <= begin < span.since + span.step
    assert span.until - span.step < end <= span.until
    assert len(span.points) == span.length <= MOST_POINTS
    assert span.points[-1] + span.step == span.until


def test_weeks_begin_on_monday() -> None:
    """As people count them."""
    span = series_span(NOW - timedelta(days=30), NOW, "1w", NOW)
    assert {point.weekday() for point in span.points} == {0}


def test_last_day_is_looked_at_unless_another_is_asked_for() -> None:
    """Either end may be left out."""
    assert summary_span(None, None, NOW) == Span(
        NOW.replace(day=3, minute=0, second=0), NOW.replace(hour=11, minute=0, second=0), timedelta(hours=25)
    )
    short = summary_span(NOW - EXACT, None, NOW)
    assert (short.since, short.until) == (NOW - EXACT, NOW)
    assert not short.is_whole_hours
    assert not summary_span(NOW - HOUR, None, NOW).is_whole_hours
    assert summary_span(NOW.replace(minute=0, second=0) - HOUR, NOW.replace(minute=0, second=0), NOW).is_whole_hours


@pytest.mark.parametrize(
    ("since", "until", "step"),
    [
        (NOW, NOW, None),
        (NOW, NOW - HOUR, None),
        (datetime(1999, 1, 1, tzinfo=UTC), NOW, None),
        (NOW, datetime(9999, 12, 31, tzinfo=UTC), None),
        (None, datetime(1, 1, 1, tzinfo=UTC), None),
        (datetime.min.replace(tzinfo=UTC), None, None),
        (NOW - timedelta(days=2), NOW, "1m"),
        (NOW - timedelta(days=20), NOW, "15m"),
    ],
)
def test_range_that_cannot_be_told_is_refused(since: datetime | None, until: datetime | None, step: object) -> None:
    """Backwards, endless, or in too many steps."""
    with pytest.raises(RangeInvalid):
        series_span(since, until, step, NOW)  # type: ignore[arg-type] # a parameter of the test


def test_cursor_of_a_moment_comes_back_as_it_went() -> None:
    """To the microsecond; what is none is refused."""
    at = NOW.replace(microsecond=123456)
    assert decode_moment_cursor(encode_moment_cursor(at, "worker:left:ä")) == (at, "worker:left:ä")
    for cursor in ("", "AAAA", "AAAAAAAAAAA", "__________8", "AAAAAAAAAAAA_w", "AAAAAAAAAAAA", "//////////8x", "ä"):
        with pytest.raises(CursorInvalid):
            decode_moment_cursor(cursor)
