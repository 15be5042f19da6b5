"""What readers may know of jobs; a foreign job and an unknown one look alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row, tuple_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel

from jobs.changes import PRESENT_COLUMNS, Change, present
from jobs.contract import Image, JobError, JobView, Progress, parse_parameters
from jobs.cursors import decode_cursor, encode_cursor
from jobs.geometry import estimated_cost, total_steps
from jobs.intake import NewJob
from jobs.pace import UNKNOWN_PACE, Pace
from jobs.roster import ONLINE
from jobs.states import State

#: A position beyond this is not counted out.
FAR_AWAY: Final = 1000


class QueueView(BaseModel):
    """One queue: what waits, what runs, who serves it."""

    name: str
    queued: int
    running: int
    oldest_wait_s: float | None
    workers: int


class CurrentJob(BaseModel):
    """A job that a worker draws, and how far it is."""

    id: UUID
    worker: str
    owner: str
    task: str
    model: str
    step: int
    steps: int
    started_at: datetime


@dataclass(frozen=True)
class Outlook:
    """How a job that is not stored would wait."""

    position: int
    eta_s: float | None
    waiting_for: str | None


@dataclass(frozen=True)
class JobSearch:
    """Which jobs to list."""

    state: State | None = None
    #: Those that wait or run.
    active: bool | None = None
    task: str | None = None
    model: str | None = None
    labels: Mapping[str, str] | None = None
    batch: UUID | None = None


ALL_JOBS: Final = JobSearch()


@dataclass(frozen=True)
class StoredImage:
    """Where a picture's bytes are and what they must be."""

    key: str
    sha256: str
    mime: str
    bytes: int


_IMAGES: Final = """(select coalesce(jsonb_agg(jsonb_build_object('index', images.index, 'seed', images.seed, 'width', images.width,
    'height', images.height, 'mime', images.mime, 'bytes', images.bytes, 'sha256', images.sha256) order by images.index), '[]')
    from images where images.job = jobs.id) as images"""


def _ahead(of: str) -> str:
    """Return the expression for the jobs that are drawn before one, and the work in them."""
    return f"""(select jsonb_build_object('jobs', count(*), 'cost', coalesce(sum(counted.cost), 0)) from (select ahead.cost from jobs ahead
        where ahead.queue = {of}.queue and ahead.state = 'queued'
        and (ahead.priority, ahead.fair_order, ahead.id) < ({of}.priority, {of}.fair_order, {of}.id) limit {FAR_AWAY}) counted)"""


def _serving(of: str) -> str:
    """Return the expression for the workers that could take a job, and the work that is left of what they draw now."""
    return f"""(select jsonb_build_object(
        'serving', count(*), 'online', count(*) filter (where {ONLINE} and workers.state <> 'draining'),
        'fitting', count(*) filter (where {ONLINE} and workers.state <> 'draining' and memory_bytes >= {of}.needs_memory),
        'cost', coalesce(sum((select sum(running.cost * (1 - least(1, running.step::float8 / greatest(1, running.steps)))) from jobs running
            where running.state = 'running' and running.worker = workers.name)), 0))
        from workers where {of}.queue = any (workers.queues))"""


_AHEAD: Final = f"case when state = 'queued' then {_ahead('jobs')} end as ahead"
_WAITING: Final = f"case when state = 'queued' then {_serving('jobs')} end as serving"

#: Where a job that is not stored would stand.
_FORESEEN: Final = f"""
with would as (
    select %(queue)s::text as queue, %(priority)s::smallint as priority, %(needs_memory)s::bigint as needs_memory,
        'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid as id, greatest(
            coalesce((select vtime from fair_clock where queue = %(queue)s and priority = %(priority)s), 0),
            coalesce((select vtime from fair_owners where owner = %(owner)s and queue = %(queue)s and priority = %(priority)s), 0)
        ) as fair_order
)
select {_ahead("would")} as ahead, {_serving("would")} as serving, now() as read_at from would
"""

_MINE: Final = "(%(owner)s::text is null or jobs.owner = %(owner)s)"

# What `view` reads, named one by one: a prepared `jobs.*` fails on every open connection once a migration adds a column.
_VIEWED: Final = """jobs.id, jobs.owner, jobs.state, jobs.task, jobs.request, jobs.queue, jobs.batch, jobs.created_at, jobs.started_at,
    jobs.finished_at, jobs.available_at, jobs.cancel_requested_at, jobs.step, jobs.steps, jobs.cost, jobs.attempts, jobs.losses,
    jobs.worker, jobs.seconds, jobs.error_code, jobs.error_message, jobs.error_retryable, now() as read_at"""

_READ: Final = f"""select {_VIEWED}, {_IMAGES}, {_AHEAD}, {_WAITING} from jobs where jobs.id = %(job)s and {_MINE}"""

#: Only what is asked for is part of the statement, so that the indexes serve it.
_FILTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "state": "state = %(state)s",
        "active": "state in ('queued', 'running')",
        "task": "task = %(task)s",
        "model": "request ->> 'model' = %(model)s",
        "labels": "request -> 'labels' <> '{}' and request -> 'labels' @> %(labels)s",
        "batch": "batch = %(batch)s",
    }
)

_IMAGE: Final = f"""select images.key, images.sha256, images.mime, images.bytes from images join jobs on jobs.id = images.job
where jobs.id = %(job)s and images.index = %(index)s and jobs.state = 'succeeded' and {_MINE}"""

_PRESENT: Final = f"select {PRESENT_COLUMNS} from jobs where jobs.id = any (%(jobs)s) and {_MINE}"

_BATCHES: Final = f"""select {PRESENT_COLUMNS}, batches.id as batch from batches left join jobs on jobs.batch = batches.id
where batches.id = any (%(batches)s) and (%(owner)s::text is null or batches.owner = %(owner)s) order by jobs.id"""

_QUEUES: Final = f"""
with waiting as (
    select queue, count(*) filter (where state = 'queued') as queued, count(*) filter (where state = 'running') as running,
        extract(epoch from now() - min(created_at) filter (where state = 'queued'))::float as oldest
    from jobs where state in ('queued', 'running') group by queue
), served as (
    select queue, count(*) filter (where {ONLINE} and state <> 'draining') as workers
    from workers cross join unnest(workers.queues) queue group by queue
)
select queue as name, coalesce(queued, 0) as queued, coalesce(running, 0) as running, oldest as oldest_wait_s,
    coalesce(workers, 0) as workers
from waiting full join served using (queue) order by queue
"""

_RUNNING: Final = f"""
select id, worker, owner, task, request ->> 'model' as model, step, steps, started_at from jobs where state = 'running' and {_MINE}
order by started_at, id
"""

_TALLY: Final = """
select 'queued', count(*) from jobs where state = 'queued' union all select 'running', count(*) from jobs where state = 'running'
union all (select state, count(*) from jobs where finished_at > now() - interval '1 day' group by state order by state)
"""


def image_url(job: UUID, index: int) -> str:
    """Return the path of a picture on the API."""
    return f"/v1/jobs/{job}/images/{index}"


def _waiting_for(row: Mapping[str, Any]) -> str | None:
    if row["state"] != State.QUEUED:
        return None
    serving = row["serving"]
    if row["available_at"] > row["read_at"]:
        return "a short rest before the next attempt"
    if serving["fitting"]:
        return "its turn: others are ahead" if row["ahead"] and row["ahead"]["jobs"] else "a free worker"
    if serving["online"]:
        return f"a worker of {row['queue']} with enough memory for it"
    why = "those that do are away" if serving["serving"] else "none has registered yet"
    return f"a worker that serves {row['queue']}: {why}"


def _eta(row: Mapping[str, Any], pace: Pace) -> float | None:
    """Return the seconds until a job ends, as measured lately; None where nobody knows."""
    drawing = pace.seconds(
        queue=row["queue"], task=row["task"], model=row["request"]["model"], cost=row["cost"], steps=row["steps"]
    )
    if row["state"] == State.RUNNING:
        elapsed = float((row["read_at"] - row["started_at"]).total_seconds())
        if row["step"]:
            left: float = elapsed * max(0, row["steps"] - row["step"]) / row["step"]
            return round(left, 1)
        return None if drawing is None else round(max(0.0, drawing - elapsed), 1)
    if row["state"] != State.QUEUED or drawing is None or not row["serving"]["fitting"] or row["ahead"] is None:
        return None
    workers: int = row["serving"]["fitting"]
    before = pace.seconds_for(row["queue"], row["ahead"]["cost"] + row["serving"]["cost"]) or 0.0
    rest: float = max(0.0, (row["available_at"] - row["read_at"]).total_seconds())
    return round(max(rest, before / workers) + drawing, 1)


def view(row: Mapping[str, Any], pace: Pace = UNKNOWN_PACE) -> JobView:
    """Build the view of a job from its row."""
    error = None
    if row["state"] == State.FAILED:
        error = JobError(code=row["error_code"], message=row["error_message"], retryable=row["error_retryable"])
    return JobView(
        id=row["id"],
        owner=row["owner"],
        state=State(row["state"]),
        task=row["task"],
        model=row["request"]["model"],
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        queue=row["queue"],
        batch=row["batch"],
        position=None if row["ahead"] is None else row["ahead"]["jobs"] + 1,
        eta_s=_eta(row, pace),
        waiting_for=_waiting_for(row),
        cancel_requested=row["cancel_requested_at"] is not None,
        progress=Progress(step=row["step"], steps=row["steps"], fraction=round(row["step"] / max(1, row["steps"]), 4)),
        images=[Image(url=image_url(row["id"], image["index"]), **image) for image in row["images"]],
        error=error,
        attempts=row["attempts"],
        losses=row["losses"],
        worker=row["worker"] if row["state"] != State.QUEUED else None,
        seconds=row["seconds"],
        request=parse_parameters(row["request"]),
    )


async def _rows(
    connection: "psycopg.AsyncConnection[Any]", statement: str, values: Mapping[str, Any]
) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()


async def read_job(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID, pace: Pace = UNKNOWN_PACE
) -> JobView | None:
    """Return a job of this owner (None: of anyone), or None."""
    rows = await _rows(connection, _READ, {"job": job, "owner": owner})
    return view(rows[0], pace) if rows else None


async def foresee(connection: "psycopg.AsyncConnection[Any]", job: NewJob, pace: Pace) -> Outlook:
    """Return how a job would wait if it were stored now."""
    parameters = job.parameters
    queue = f"{parameters.task}.{job.hardware}"
    values = {
        "queue": queue,
        "priority": parameters.priority,
        "needs_memory": job.needs_memory,
        "owner": job.owner,
    }
    row = (await _rows(connection, _FORESEEN, values))[0]
    row |= {
        "state": State.QUEUED, "queue": queue, "task": parameters.task, "request": {"model": parameters.model},
        "cost": estimated_cost(parameters), "steps": total_steps(parameters), "available_at": row["read_at"],
    }  # fmt: skip
    return Outlook(row["ahead"]["jobs"] + 1, _eta(row, pace), _waiting_for(row))


async def list_jobs(
    connection: "psycopg.AsyncConnection[Any]",
    owner: str | None,
    wanted: JobSearch = ALL_JOBS,
    *,
    cursor: str | None = None,
    limit: int = 50,
    oldest_first: bool = False,
    pace: Pace = UNKNOWN_PACE,
) -> tuple[list[JobView], str | None]:
    """Return a page of jobs, newest first by default, and the cursor of the next page; raise `CursorInvalid`."""
    values = {name: getattr(wanted, name) for name in _FILTERS if getattr(wanted, name)}
    conditions = [_MINE, *(_FILTERS[name] for name in values)]
    if wanted.labels:
        values["labels"] = Jsonb(dict(wanted.labels))
    if cursor is not None:
        values["last"] = decode_cursor(cursor)
        conditions.append("id > %(last)s" if oldest_first else "id < %(last)s")
    statement = (
        f"select {_VIEWED}, {_IMAGES}, {_AHEAD}, {_WAITING} from jobs where {' and '.join(conditions)} "
        f"order by id {'asc' if oldest_first else 'desc'} limit %(limit)s"
    )
    rows = await _rows(connection, statement, {**values, "owner": owner, "limit": limit + 1})
    following = encode_cursor(rows[limit - 1]["id"]) if len(rows) > limit else None
    return [view(row, pace) for row in rows[:limit]], following


async def read_image(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID, index: int
) -> StoredImage | None:
    """Return where a picture of a succeeded job lies, or None."""
    if not 0 <= index < 2**15:
        return None
    rows = await _rows(connection, _IMAGE, {"job": job, "owner": owner, "index": index})
    return StoredImage(**rows[0]) if rows else None


async def present_changes(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, jobs: Sequence[UUID]
) -> dict[UUID, Change]:
    """Return the present state of each job, as the event that announced it; unknown jobs are missing."""
    rows = await _rows(connection, _PRESENT, {"jobs": list(jobs), "owner": owner})
    return {row["id"]: present(row) for row in rows}


async def present_batches(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, batches: Sequence[UUID]
) -> dict[UUID, dict[UUID, Change]]:
    """Return for each batch the present state of its jobs; unknown batches are missing."""
    found: dict[UUID, dict[UUID, Change]] = {}
    for row in await _rows(connection, _BATCHES, {"batches": list(batches), "owner": owner}):
        members = found.setdefault(row["batch"], {})
        if row["id"] is not None:
            members[row["id"]] = present(row)
    return found


async def queues(connection: "psycopg.AsyncConnection[Any]") -> list[QueueView]:
    """Return every queue in which something waits or runs, or which a worker serves."""
    return [QueueView(**row) for row in await _rows(connection, _QUEUES, {})]


async def running_jobs(connection: "psycopg.AsyncConnection[Any]", owner: str | None) -> list[CurrentJob]:
    """Return the jobs of an owner (None: of everyone) that run, those that began first before the others."""
    return [CurrentJob(**row) for row in await _rows(connection, _RUNNING, {"owner": owner})]


def tally(connection: "psycopg.Connection[Any]") -> dict[str, int]:
    """Count the jobs that wait and run, and those that ended within the last day."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return dict(cursor.execute(_TALLY).fetchall())
