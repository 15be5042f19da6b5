"""What became of jobs: as sums and lines, from counted hours and from jobs, whoever asks."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import psycopg
import pytest

from infra.database import CONNECT, Connection
from jobs import sweeps
from jobs.history import analytics
from jobs.history.activity import _statement, read_activity
from jobs.history.analytics import By, Metric, Series, Summary, read_series, summarise
from jobs.history.rollups import roll_up
from jobs.history.spans import HOUR, Span
from jobs.history.totals import Totals, read_totals
from jobs.states import State

#: A whole hour long ago, which is over.
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = Span(NOON, NOON + timedelta(hours=24), timedelta(hours=24))
HOURS = Span(NOON, NOON + timedelta(hours=24), HOUR)

_ENDED = """
insert into jobs (id, owner, task, hardware, needs_memory, model_key, batch_key, priority, fair_order, cost, state, epoch, worker, steps,
    created_at, started_at, finished_at, seconds, error_code, request)
values (gen_random_uuid(), %(owner)s, %(task)s, 'cpu', 1, 'm', 'b', 5, 0, 1, %(state)s, 1, %(worker)s, 20, %(created)s, %(started)s,
    %(at)s, %(seconds)s, %(code)s, jsonb_build_object('model', %(model)s::text)) returning id
"""


@pytest.fixture
def end(connection: Connection) -> Callable[..., Any]:
    """Return a way to have a job end at a moment."""

    def make(at: datetime, state: str = "succeeded", *, pictures: int = 1, wait: float = 1.0, **changes: Any) -> Any:
        values = {
            "owner": "ann", "task": "txt2img", "worker": "cpu0@test", "model": "shapes", "at": at, "state": state,
            "seconds": 2.0 if state == "succeeded" else None, "code": "out_of_memory" if state == "failed" else None,
            "started": at - timedelta(seconds=2), "created": at - timedelta(seconds=2 + wait),
        }  # fmt: skip
        row = connection.execute(_ENDED, values | changes).fetchone()
        assert row is not None
        for index in range(pictures if state == "succeeded" else 0):
            connection.execute(
                "insert into images (job, index, epoch, seed, width, height, mime, bytes, sha256, key) "
                "values (%s, %s, 1, 1, 1, 1, 'image/png', 100, 'x', gen_random_uuid()::text)",
                (row["id"], index),
            )
        return row["id"]

    return make


@pytest.fixture
def ask(database_url: str) -> Callable[..., Any]:
    """Return a way to ask on an event loop."""

    def run(question: Callable[..., Any], *values: Any, **named: Any) -> Any:
        async def answer() -> Any:
            async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as own:
                return await question(own, *values, **named)

        return asyncio.run(answer())

    return run


def _summary(ask: Callable[..., Any], owner: str | None = None, span: Span = DAY) -> Summary:
    return cast("Summary", ask(summarise, owner, span))


def _lines(
    ask: Callable[..., Any], metric: Metric, by: By = "all", owner: str | None = None, span: Span = HOURS
) -> dict[str, list[float | None]]:
    found = cast("Series", ask(read_series, owner, span, metric, by))
    return {"others" if line.is_rest else line.name: line.values for line in found.items}


def _mixed_day(end: Callable[..., Any]) -> None:
    for minute in range(10):
        end(NOON + timedelta(minutes=minute), wait=1.0 if minute < 9 else 100.0)
    end(NOON + timedelta(hours=2), "failed", model="other", worker="cuda0@test")
    end(NOON + timedelta(hours=2), owner="bob", pictures=3, seconds=8.0)
    end(NOON + timedelta(hours=3), "cancelled", worker=None, started=None)
    end(NOON - timedelta(seconds=1))
    end(NOON + timedelta(hours=24))


def test_summary_tells_what_ended_in_the_range(end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Ends, pictures, times, errors and the busiest are those of the range, its end not included."""
    _mixed_day(end)
    found = _summary(ask)
    assert found.jobs == {"succeeded": 11, "failed": 1, "cancelled": 1}
    assert (found.pictures, found.busy_s) == (13, 28.0)
    assert found.wait.p50_s == pytest.approx(1.0, rel=0.05)
    assert found.wait.p95_s == pytest.approx(100.0, rel=0.05)
    assert found.seconds.p50_s == pytest.approx(2.0, rel=0.05)
    assert [(each.code, each.jobs) for each in found.errors] == [("out_of_memory", 1)]
    assert found.error_share == found.errors[0].share == pytest.approx(1 / 12)
    assert [(each.name, each.jobs, each.failed) for each in found.models] == [("shapes", 12, 0), ("other", 1, 1)]
    assert [(each.name, each.jobs) for each in found.workers] == [("cpu0@test", 11), ("", 1), ("cuda0@test", 1)]
    assert [(each.name, each.pictures) for each in found.tasks] == [("txt2img", 13)]


def test_summary_is_the_same_after_the_hours_were_counted_and_the_jobs_deleted(
    connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """Retention takes jobs only once they are counted, and then nothing is missing."""
    _mixed_day(end)
    before = _summary(ask)
    lines = {metric: _lines(ask, metric, "model") for metric in analytics._BINNED.keys() | analytics._COUNTED.keys()}  # noqa: SLF001
    while not roll_up(connection):
        """A day at a time."""
    assert _summary(ask) == before
    assert sweeps.retire(connection, 1) == 15
    assert _summary(ask) == before
    assert {metric: _lines(ask, metric, "model") for metric in lines} == lines


def test_counting_hours_again_counts_nothing_twice(connection: Connection, end: Callable[..., Any]) -> None:
    """An hour is counted once, whoever counts and how often."""
    _mixed_day(end)
    for _ in range(4):
        roll_up(connection)
    row = connection.execute("select sum(jobs) as jobs from job_hours").fetchone()
    assert row == {"jobs": 15}
    assert roll_up(connection)


def test_hour_that_is_not_over_is_not_counted_nor_its_jobs_retired(
    connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """However short the retention, a job stays until its hour is counted; until then its row is what is counted."""
    now = datetime.now(UTC)
    end(now)
    assert roll_up(connection)
    assert connection.execute("select from job_hours").fetchone() is None
    assert sweeps.retire(connection, 0) == 0
    around = Span(now.replace(minute=0, second=0, microsecond=0) - HOUR, now + HOUR, HOUR)
    around = Span(around.since, around.since + 3 * HOUR, 3 * HOUR)
    assert _summary(ask, span=around).jobs[State.SUCCEEDED] == 1


def test_owners_see_their_own_alone(connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """In sums and in lines, from hours and from jobs."""
    _mixed_day(end)
    for _ in range(2):
        assert _summary(ask, "bob").jobs == {"succeeded": 1, "failed": 0, "cancelled": 0}
        assert _summary(ask, "bob").pictures == 3
        assert _summary(ask, "eve").wait.p50_s is None
        assert [sum(filter(None, line)) for line in _lines(ask, "pictures", owner="bob").values()] == [3]
        assert set(_lines(ask, "jobs", "owner", owner="bob")) == {"bob"}
        while not roll_up(connection):
            """A day at a time."""


def test_series_has_a_value_for_every_step(end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Counts are 0 where nothing ended, times are unknown there."""
    _mixed_day(end)
    jobs = _lines(ask, "jobs")[""]
    assert (len(jobs), jobs[:5]) == (24, [10, 0, 2, 1, 0])
    wait = _lines(ask, "wait_p95_s")[""]
    assert wait[0] == pytest.approx(100, rel=0.05)
    assert wait[1] is None
    assert wait[2] == pytest.approx(1, rel=0.05)
    assert _lines(ask, "error_share")[""][:4] == [0.0, None, 0.5, None]
    assert _lines(ask, "busy_s", "worker")["cpu0@test"][:3] == [20.0, 0.0, 8.0]
    assert _lines(ask, "jobs", "error_code") == {"out_of_memory": [0, 0, 1, *[0] * 21]}


def test_series_tells_the_minutes_of_jobs(
    connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """Steps below an hour come from the jobs, counted or not."""
    _mixed_day(end)
    while not roll_up(connection):
        """A day at a time."""
    minutes = Span(NOON, NOON + HOUR, timedelta(minutes=1))
    assert _lines(ask, "jobs", span=minutes)[""] == [1] * 10 + [0] * 50


def test_series_puts_what_is_less_busy_into_one_line(end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """There are as many lines as can be told apart, and nothing is missing from their sum."""
    for number in range(analytics.MOST_LINES + 3):
        for _ in range(2 if number < analytics.MOST_LINES else 1):
            end(NOON, model=f"model-{number:02}")
    found = _lines(ask, "jobs", "model")
    assert len(found) == analytics.MOST_LINES + 1
    assert list(found)[-1] == "others"
    assert found["others"][0] == 3


def test_what_draws_nothing_is_no_line_among_pictures(end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """However many adapters were analysed, their names take no place from the models that drew."""
    for number in range(20):
        end(NOON, pictures=0, task="analyse", model=f"adapter-{number}")
        end(NOON, pictures=0, task="analyse", model=f"adapter-{number}")
    end(NOON, pictures=2)
    end(NOON, "failed", model="other")
    lines = _lines(ask, "pictures", "model")
    assert lines.keys() == {"shapes"}
    assert lines["shapes"][:2] == [2.0, 0.0]
    assert "shapes" not in _lines(ask, "jobs", "model")


def test_activity_pages_through_everything_once_newest_first(
    connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """Jobs that ended at one moment are neither told twice nor left out; owners see no job of others."""
    connection.execute(
        "insert into workers (name, run, host, pid, device, device_name, hardware, serves, tags, tasks, queues, memory_bytes, engine, "
        "version, state, started_at, seen_at, drain_requested_at) values ('w', gen_random_uuid(), 'h', 1, 'd', 'd', 'cpu', '{}', '{}', "
        "'{}', '{}', 1, 'fake', '1', 'offline', %(at)s - interval '1 h', %(at)s + interval '1 h', %(at)s)",
        {"at": NOON},
    )
    jobs = {end(NOON, **({"owner": "bob"} if number % 2 else {})) for number in range(6)}
    for owner, expected in ((None, 6), ("ann", 3)):
        seen, cursor = [], None
        while True:
            page, cursor = ask(read_activity, owner, cursor=cursor, limit=2)
            seen += page
            if cursor is None:
                break
        assert len(seen) == expected + 3
        assert [each.at for each in seen] == sorted((each.at for each in seen), reverse=True)
        told = [each.job for each in seen if each.job]
        assert len(set(told)) == len(told) == expected
        assert set(told) <= jobs
        assert {each.owner for each in seen if each.job} == ({"ann", "bob"} if owner is None else {None})
        assert [each.type for each in seen if not each.job] == ["worker_left", "worker_draining", "worker_joined"]


def test_totals_count_the_present(connection: Connection, end: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Today's ends, everything stored; each owner's own, or everyone's."""
    today = datetime.now(UTC)
    end(today, pictures=2)
    end(today, "failed", owner="bob")
    end(NOON)
    connection.execute(
        "insert into uploads (owner, sha256, mime, width, height, bytes, brightest) values ('bob', 'x', 'image/png', 1, 1, 7, 1)"
    )
    own = Totals(
        queued=0, running=0, succeeded_today=1, failed_today=0, cancelled_today=0, pictures=3, uploads=0, stored_bytes=300,
        counted_all=True,
    )  # fmt: skip
    assert ask(read_totals, "ann") == own
    assert ask(read_totals, None) == own.model_copy(update={"failed_today": 1, "uploads": 1, "stored_bytes": 307})


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (f"{analytics._series_statement(None, 'wait_p95_s', 'model')}", "jobs_finished"),  # noqa: SLF001
        (f"{analytics._series_statement('ann', 'jobs', 'model')}", "jobs_owner_finished"),  # noqa: SLF001
        (f"{analytics._summary_statement(None)}", "jobs_finished"),  # noqa: SLF001
        (f"{analytics._summary_statement('ann')}", "job_hours_owner"),  # noqa: SLF001
        (f"{analytics._summary_statement(None)}", "pk_job_hours"),  # noqa: SLF001
        (_statement(None, after=True), "jobs_finished"),
        (_statement("ann", after=True), "jobs_owner_finished"),
        (sweeps._RETIRE, "jobs_retention"),  # noqa: SLF001
    ],
)
def test_questions_are_answered_by_indexes(
    connection: Connection, end: Callable[..., Any], statement: str, index: str
) -> None:
    """A stretch of time, or a page, is looked up among all that ever ended, not searched for in it."""
    connection.execute(_MANY)
    connection.execute("analyze jobs")
    connection.execute("analyze job_hours")
    end(NOON)
    values = {
        "owner": "ann", "since": NOON, "until": NOON + HOUR, "edge": NOON + HOUR / 2, "step": HOUR, "at": NOON, "key": "job:0",
        "limit": 51, "days": 30,
    }  # fmt: skip
    plan = str(connection.execute(f"explain {statement}", values).fetchall())
    assert index in plan
    assert "Seq Scan on jobs" not in plan
    assert "Seq Scan on job_hours" not in plan


_MANY = """
with many as (
    insert into jobs (id, owner, task, hardware, needs_memory, model_key, batch_key, priority, fair_order, cost, state, epoch, steps,
        finished_at, request)
    select gen_random_uuid(), 'owner' || n % 100, 'txt2img', 'cpu', 1, 'm', 'b', 5, 0, 1, 'cancelled', 1, 20,
        '2026-03-02Z'::timestamptz + n * interval '1 min', '{}' from generate_series(1, 5000) n
)
insert into job_hours (hour, owner, task, model, worker, state, error_code, jobs, pictures, seconds, waits, durations)
select '2026-03-02Z'::timestamptz + n * interval '1 h', 'owner' || owner, 't', 'm', 'w', 's', '', 1, 1, 1, '{}', '{}'
from generate_series(1, 200) n, generate_series(1, 25) owner
"""
