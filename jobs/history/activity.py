"""What happened lately: jobs that ended, workers that came, went or were sent to rest, as far as the tables know."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from jobs.cursors import decode_moment_cursor, encode_moment_cursor
from jobs.roster import ONLINE

Happening = Literal[
    "job_succeeded", "job_failed", "job_cancelled", "worker_joined", "worker_draining", "worker_left", "worker_lost",
]  # fmt: skip


class Activity(BaseModel):
    """One thing that happened."""

    at: datetime
    type: Happening
    job: UUID | None
    owner: str | None = Field(description="Whose job it is; told to admins alone.")
    task: str | None
    model: str | None
    worker: str | None
    error_code: str | None
    seconds: float | None = Field(description="What drawing took.")


#: The key of a job's end; compared byte by byte, it is in the order of ids.
_JOB_KEY: Final = "'job:' || jobs.id"
_NOTHING: Final = "null::uuid, null::text, null::text, null::text"


def _worker_event(moment: str, kind: str, condition: str) -> str:
    return f"""select {moment}, 'worker:' || {kind} || ':' || name, 'worker_' || {kind}, {_NOTHING}, name, null::text, null::float8
        from workers where {condition}"""


def _statement(owner: str | None, *, after: bool) -> str:
    """Return the statement; only what is asked for is part of it, so that the indexes serve it."""
    own = "" if owner is None else "and jobs.owner = %(owner)s"
    # The first condition is what the index looks up.
    later = (
        f'and finished_at <= %(at)s and (finished_at < %(at)s or ({_JOB_KEY}) collate "C" < %(key)s)' if after else ""
    )
    return f"""
        with happened (at, key, type, job, owner, task, model, worker, error_code, seconds) as (
            (select finished_at, {_JOB_KEY}, 'job_' || state, id, owner, task, request ->> 'model', worker, error_code, seconds
                from jobs where finished_at is not null {own} {later} order by finished_at desc, id desc limit %(limit)s)
            union all {_worker_event("started_at", "'joined'", "true")}
            union all {_worker_event("drain_requested_at", "'draining'", "drain_requested_at is not null")}
            union all {_worker_event("seen_at", "case when state = 'offline' then 'left' else 'lost' end", f"not {ONLINE}")}
        )
        select * from happened {'where (at, key collate "C") < (%(at)s, %(key)s)' if after else ""}
        order by at desc, key collate "C" desc limit %(limit)s"""


async def read_activity(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, *, cursor: str | None, limit: int
) -> tuple[list[Activity], str | None]:
    """Return a page of what happened to the jobs of an owner (None: of everyone) and to workers, newest first, and the next cursor.

    Raises `CursorInvalid`.
    """
    values: dict[str, Any] = {"owner": owner, "limit": limit + 1}
    if cursor is not None:
        values["at"], values["key"] = decode_moment_cursor(cursor)
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(_statement(owner, after=cursor is not None), values)
        rows = await opened.fetchall()
    last = rows[limit - 1] if len(rows) > limit else None
    following = None if last is None else encode_moment_cursor(last["at"], last["key"])
    return [_view(row, to_admin=owner is None) for row in rows[:limit]], following


def _view(row: Mapping[str, Any], *, to_admin: bool) -> Activity:
    shown = {name: row[name] for name in Activity.model_fields}
    return Activity(**(shown | ({} if to_admin else {"owner": None})))
