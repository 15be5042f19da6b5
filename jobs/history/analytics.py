"""What became of the jobs that ended in a stretch of time: as a summary, and as lines over time.

Hours that are counted (`rollups`) come from their counts, however long ago their jobs were deleted; what ended since comes from the jobs.
Steps shorter than an hour come from the jobs alone. Times of waiting and drawing are told within 5 % (`bins`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from jobs.history.bins import seconds_of
from jobs.history.rollups import ENDED_COLUMNS, NAME
from jobs.history.spans import ORIGIN, Span
from jobs.states import State

Metric = Literal[
    "jobs", "pictures", "failed", "error_share", "busy_s", "wait_p50_s", "wait_p95_s", "seconds_p50_s", "seconds_p95_s",
]  # fmt: skip
By = Literal["all", "model", "task", "worker", "state", "error_code", "owner"]
#: Lines of their own; what is less busy is one line together.
MOST_LINES: Final = 10
#: Names of each kind in a summary.
MOST_NAMED: Final = 10


class Quantiles(BaseModel):
    """Half, and 95 of 100, took no longer; null when there was none."""

    p50_s: float | None
    p95_s: float | None


class ErrorShare(BaseModel):
    """How often jobs failed for one reason."""

    code: str
    jobs: int
    share: float = Field(description="Of the jobs that succeeded or failed.")


class Busy(BaseModel):
    """What was done by, with or as one thing."""

    name: str = Field(description="Empty for jobs that no worker began.")
    jobs: int
    failed: int
    pictures: int
    busy_s: float = Field(description="Seconds spent drawing.")


class Summary(BaseModel):
    """What became of the jobs that ended in a stretch of time."""

    since: datetime
    until: datetime
    jobs: dict[State, int] = Field(description="Those that ended, by how.")
    pictures: int
    busy_s: float = Field(description="Seconds spent drawing.")
    wait: Quantiles = Field(description="From submit to the start.")
    seconds: Quantiles = Field(description="Of drawing.")
    error_share: float | None
    errors: list[ErrorShare]
    models: list[Busy] = Field(description=f"The busiest, {MOST_NAMED} at most.")
    tasks: list[Busy]
    workers: list[Busy]


class Line(BaseModel):
    """One line: a value for each point, null where there was nothing to tell."""

    name: str
    is_rest: bool = Field(description="All that is not busy enough for a line of its own.")
    values: list[float | None]


class Series(BaseModel):
    """Lines over time, the busiest first."""

    metric: Metric
    by: By
    since: datetime
    until: datetime
    step_s: float
    times: list[datetime] = Field(description="When each point's step begins, UTC.")
    items: list[Line]
    next_cursor: str | None = None


_KEYS: Final = "owner, task, model, worker, state, error_code"
_SUCCEEDED_OR_FAILED: Final = "nullif(sum(jobs) filter (where state in ('succeeded', 'failed')), 0)"
_FAILED: Final = "coalesce(sum(jobs) filter (where state = 'failed'), 0)"
_COUNTED: Final[Mapping[Metric, str]] = {
    "jobs": "sum(jobs)",
    "pictures": "sum(pictures)",
    "failed": _FAILED,
    "error_share": f"{_FAILED}::float8 / {_SUCCEEDED_OR_FAILED}",
    "busy_s": "sum(seconds)",
}
#: Metric to the bins it is read from, as hours and as jobs have them, and its share.
_BINNED: Final[Mapping[Metric, tuple[str, str, float]]] = {
    "wait_p50_s": ("waits", "wait_bin", 0.5),
    "wait_p95_s": ("waits", "wait_bin", 0.95),
    "seconds_p50_s": ("durations", "second_bin", 0.5),
    "seconds_p95_s": ("durations", "second_bin", 0.95),
}
#: What is a number where nothing happened.
_ZERO: Final = frozenset({"jobs", "pictures", "failed", "busy_s"})
_NAMES: Final[Mapping[By, str]] = {"all": "''"}
#: Some lines are about some jobs alone.
_ONLY: Final[Mapping[By, str]] = {"error_code": "state = 'failed'"}
#: So are some metrics: what drew nothing (an analysis, a failure) is no line among pictures.
_OF: Final[Mapping[Metric, str]] = {"pictures": "pictures > 0"}


def _own(owner: str | None) -> str:
    """Return the condition of an owner; only what is asked for is part of the statement, so that the indexes serve it."""
    return "" if owner is None else "and owner = %(owner)s"


def _ended(owner: str | None) -> str:
    own = "" if owner is None else "and jobs.owner = %(owner)s"
    return f"""(select jobs.finished_at as at, {ENDED_COLUMNS} from jobs
        where jobs.finished_at >= %(edge)s and jobs.finished_at < %(until)s {own}) ended"""


def _hours(owner: str | None) -> str:
    return f"hour >= %(since)s and hour < %(edge)s {_own(owner)}"


def counts(owner: str | None) -> str:
    """Return the statement of what ended, by the hour and by the job."""
    return f"""select hour as at, {_KEYS}, jobs, pictures, seconds from job_hours where {_hours(owner)}
        union all select at, {_KEYS}, 1, pictures, seconds from {_ended(owner)}"""


def _bins(owner: str | None, of_hours: str, of_jobs: str) -> str:
    return f"""select hour as at, {_KEYS}, each.bin::int as bin, each.counted::bigint as jobs
        from job_hours cross join jsonb_each_text({of_hours}) each (bin, counted) where {_hours(owner)}
        union all select at, {_KEYS}, {of_jobs}, 1 from {_ended(owner)} where {of_jobs} is not null"""


def _quantile(share: float) -> str:
    return f"min(bin) filter (where reached >= {share} * counted)"


def _summary_statement(owner: str | None) -> str:
    sets = ("(state, error_code)", "(model)", "(task)", "(worker)")
    return f"""
        with found as ({counts(owner)})
        select state, error_code, model, task, worker, grouping(state, model, task, worker) as kind, sum(jobs)::bigint as jobs,
            {_FAILED}::bigint as failed, sum(pictures)::bigint as pictures, sum(seconds) as busy_s
        from found group by grouping sets ({", ".join(sets)}) order by sum(jobs) desc, 1, 2, 3, 4, 5"""


def _quantiles_statement(owner: str | None, of_hours: str, of_jobs: str) -> str:
    return f"""
        with binned as (select bin, sum(jobs) as jobs from ({_bins(owner, of_hours, of_jobs)}) found group by bin),
        ranked as (select bin, sum(jobs) over (order by bin) as reached, sum(jobs) over () as counted from binned)
        select {_quantile(0.5)} as p50, {_quantile(0.95)} as p95 from ranked"""


def _series_statement(owner: str | None, metric: Metric, by: By) -> str:
    binned = _BINNED.get(metric)
    source = counts(owner) if binned is None else _bins(owner, binned[0], binned[1])
    carried = "jobs, state, pictures, seconds" if binned is None else "jobs, bin"
    named = f"""
        with named as (
            select date_bin(%(step)s, at, '{ORIGIN.isoformat()}') as point, {_NAMES.get(by, by)} as name, {carried}
            from ({source}) found where {_ONLY.get(by, "true")} and {_OF.get(metric, "true")}
        ), busiest as (
            select name, sum(jobs) as total from named group by name order by total desc, name limit {MOST_LINES}
        )"""
    if binned is None:
        return f"""{named} select point, busiest.name, busiest.total, {_COUNTED[metric]}::float8 as value
            from named left join busiest using (name) group by point, busiest.name, busiest.total"""
    return f"""{named}, binned as (
            select point, busiest.name, busiest.total, bin, sum(jobs) as jobs
            from named left join busiest using (name) group by point, busiest.name, busiest.total, bin
        ), ranked as (
            select point, name, total, bin, sum(jobs) over (partition by point, name order by bin) as reached,
                sum(jobs) over (partition by point, name) as counted
            from binned
        )
        select point, name, total, {_quantile(binned[2])} as value from ranked group by point, name, total"""


async def _rows(
    connection: "psycopg.AsyncConnection[Any]", statement: str, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


async def _values(connection: "psycopg.AsyncConnection[Any]", owner: str | None, span: Span) -> dict[str, Any]:
    """Return the values of every statement here; before `edge` hours are looked at, behind it jobs."""
    edge = span.since
    if span.is_whole_hours:
        done = await _rows(connection, "select done_until from rollups where name = %(name)s", {"name": NAME})
        edge = max(span.since, min(span.until, done[0]["done_until"])) if done else edge
    return {"owner": owner, "since": span.since, "until": span.until, "edge": edge, "step": span.step}


async def summarise(connection: "psycopg.AsyncConnection[Any]", owner: str | None, span: Span) -> Summary:
    """Return what became of the jobs of an owner (None: of everyone) that ended in a stretch of time."""
    values = await _values(connection, owner, span)
    rows = await _rows(connection, _summary_statement(owner), values)
    wait, seconds = [
        (await _rows(connection, _quantiles_statement(owner, *_BINNED[metric][:2]), values))[0]
        for metric in ("wait_p50_s", "seconds_p50_s")
    ]
    # A bit for each column that a set does not group by, the last column's the lowest.
    kinds = {0b0111: "ends", 0b1011: "model", 0b1101: "task", 0b1110: "worker"}
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds.values()}
    for row in rows:
        found[kinds[row["kind"]]].append(row)
    ends = found["ends"]
    by_state = {state: sum(row["jobs"] for row in ends if row["state"] == state) for state in _ENDS}
    tried = by_state[State.SUCCEEDED] + by_state[State.FAILED]
    failures = [row for row in ends if row["state"] == State.FAILED]
    return Summary(
        since=span.since,
        until=span.until,
        jobs=by_state,
        pictures=sum(row["pictures"] for row in ends),
        busy_s=sum(row["busy_s"] for row in ends),
        wait=_quantiles(wait),
        seconds=_quantiles(seconds),
        error_share=by_state[State.FAILED] / tried if tried else None,
        errors=[
            ErrorShare(code=row["error_code"], jobs=row["jobs"], share=row["jobs"] / tried)
            for row in failures[:MOST_NAMED]
        ],
        models=_busiest(found["model"], "model"),
        tasks=_busiest(found["task"], "task"),
        workers=_busiest(found["worker"], "worker"),
    )


_ENDS: Final = (State.SUCCEEDED, State.FAILED, State.CANCELLED)


def _quantiles(row: Mapping[str, Any]) -> Quantiles:
    p50, p95 = (None if row[name] is None else round(seconds_of(row[name]), 3) for name in ("p50", "p95"))
    return Quantiles(p50_s=p50, p95_s=p95)


def _busiest(rows: Sequence[Mapping[str, Any]], name: str) -> list[Busy]:
    shown = ("jobs", "failed", "pictures", "busy_s")
    return [Busy(name=row[name], **{each: row[each] for each in shown}) for row in rows[:MOST_NAMED]]


async def read_series(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, span: Span, metric: Metric, by: By
) -> Series:
    """Return lines over time of the jobs of an owner (None: of everyone)."""
    rows = await _rows(connection, _series_statement(owner, metric, by), await _values(connection, owner, span))
    points = span.points
    places = {point: place for place, point in enumerate(points)}
    empty = 0.0 if metric in _ZERO else None
    lines: dict[str | None, Line] = {}
    # Null, the rest, comes last.
    for row in sorted(rows, key=lambda row: (row["name"] is None, -(row["total"] or 0), row["name"] or "")):
        name = row["name"]
        if name not in lines:
            lines[name] = Line(name=name or "", is_rest=name is None, values=[empty] * len(points))
        value = row["value"]
        if value is not None and metric in _BINNED:
            value = round(seconds_of(value), 3)
        lines[name].values[places[row["point"]]] = value
    return Series(
        metric=metric,
        by=by,
        since=span.since,
        until=span.until,
        step_s=span.step.total_seconds(),
        times=points,
        items=list(lines.values()),
    )
