"""Jobs that belong together: stored in one transaction, watched and cancelled as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field
from uuid_utils.compat import uuid7

from jobs.changes import Change
from jobs.contract import Progress
from jobs.control import cancel_members
from jobs.cursors import decode_cursor, encode_cursor
from jobs.errors import IdempotencyMismatch
from jobs.intake import NewJob, submit_together
from jobs.states import TERMINAL, State


class BatchSummary(BaseModel):
    """A batch and how far it is."""

    id: UUID
    owner: str | None = Field(default=None, description="Who sent it.")
    created_at: datetime
    state: Literal["active", "ended"]
    size: int = Field(description="Jobs it began with; those deleted since are in no other count.")
    counts: dict[State, int]
    progress: Progress
    eta_s: float | None = Field(default=None, description="Seconds until the last job ends, as measured lately.")


@dataclass(frozen=True)
class AcceptedBatch:
    """A stored batch; `changes` is None when an earlier request with the same key had made it."""

    batch: UUID
    jobs: Sequence[UUID]
    changes: Sequence[Change] | None


_MAKE: Final = """
insert into batches (id, owner, size, idempotency_key, request_hash) values (%(id)s, %(owner)s, %(size)s, %(key)s, %(hash)s)
on conflict (owner, idempotency_key) where idempotency_key is not null do nothing returning id
"""
_KNOWN: Final = """
select id, request_hash, array(select jobs.id from jobs where jobs.batch = batches.id order by jobs.id) as jobs
from batches where owner = %(owner)s and idempotency_key = %(key)s
"""
_SUMMARY: Final = """
select batches.id, batches.owner, batches.created_at, batches.size, count(*) filter (where jobs.state = 'queued') as queued,
    count(*) filter (where jobs.state = 'running') as running, count(*) filter (where jobs.state = 'succeeded') as succeeded,
    count(*) filter (where jobs.state = 'failed') as failed, count(*) filter (where jobs.state = 'cancelled') as cancelled,
    coalesce(sum(jobs.step), 0)::int as step, coalesce(sum(jobs.steps), 0)::int as steps
from batches left join jobs on jobs.batch = batches.id
"""
_MINE: Final = "(%(owner)s::text is null or batches.owner = %(owner)s)"
_READ: Final = f"{_SUMMARY} where batches.id = %(batch)s and {_MINE} group by batches.id"
_LIST: Final = f"""{_SUMMARY} where batches.id in (select id from batches where {_MINE}
    and (%(before)s::uuid is null or id < %(before)s) order by id desc limit %(limit)s) group by batches.id order by batches.id desc"""

#: The job that is drawn last: on it depends when the batch ends.
_LAST: Final = """
select id from jobs where batch = %(batch)s and state in ('queued', 'running')
order by state = 'queued' desc, priority desc, fair_order desc, id desc limit 1
"""


async def submit_batch(
    connection: "psycopg.AsyncConnection[Any]",
    owner: str,
    jobs: Sequence[NewJob],
    *,
    idempotency_key: str | None = None,
    request_hash: str | None = None,
) -> AcceptedBatch:
    """Store all jobs or none, or find the batch that the key made before; raise `IdempotencyMismatch` when that was another request."""
    batch = uuid7()
    values = {"id": batch, "owner": owner, "size": len(jobs), "key": idempotency_key, "hash": request_hash}
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_MAKE, values)
        made = await cursor.fetchone()
        if made is not None:
            changes = await submit_together(connection, jobs, batch)
            return AcceptedBatch(batch, [change.job for change in changes], changes)
        await cursor.execute(_KNOWN, values)
        known = await cursor.fetchone()
    if known is None or known["request_hash"] != request_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used before with another request.", field="Idempotency-Key")
    return AcceptedBatch(known["id"], known["jobs"], None)


async def read_batch(connection: "psycopg.AsyncConnection[Any]", owner: str | None, batch: UUID) -> BatchSummary | None:
    """Return a batch of this owner (None: of anyone), or None."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_READ, {"batch": batch, "owner": owner})
        row = await cursor.fetchone()
    return None if row is None else _summary(row)


async def last_waiting(connection: "psycopg.AsyncConnection[Any]", batch: BatchSummary) -> UUID | None:
    """Return the job that ends last; None when all have ended."""
    if batch.state == "ended":
        return None
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LAST, {"batch": batch.id})
        row = await cursor.fetchone()
    return None if row is None else row["id"]


async def list_batches(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, *, cursor: str | None, limit: int
) -> tuple[list[BatchSummary], str | None]:
    """Return a page of batches, newest first, and the cursor of the next page; raise `CursorInvalid`."""
    before = None if cursor is None else decode_cursor(cursor)
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(_LIST, {"owner": owner, "before": before, "limit": limit + 1})
        rows = await opened.fetchall()
    following = encode_cursor(rows[limit - 1]["id"]) if len(rows) > limit else None
    return [_summary(row) for row in rows[:limit]], following


async def cancel_batch(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, batch: UUID
) -> tuple[BatchSummary, list[Change]] | None:
    """Cancel all jobs of a batch and return how it stands, with the changes of those that ended at once; None when there is none."""
    if await read_batch(connection, owner, batch) is None:
        return None
    changes = await cancel_members(connection, owner, batch)
    found = await read_batch(connection, owner, batch)
    return None if found is None else (found, changes)


def _summary(row: dict[str, Any]) -> BatchSummary:
    counts = {state: row[state] for state in State}
    active = any(count for state, count in counts.items() if state not in TERMINAL)
    return BatchSummary(
        id=row["id"],
        owner=row["owner"],
        created_at=row["created_at"],
        state="active" if active else "ended",
        size=row["size"],
        counts=counts,
        progress=Progress(step=row["step"], steps=row["steps"], fraction=round(row["step"] / max(1, row["steps"]), 4)),
    )
