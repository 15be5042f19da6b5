"""What an owner may do with a job: cancel it, delete it."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.changes import PRESENT_COLUMNS, Change, present
from jobs.errors import RequestRefused
from jobs.states import TERMINAL, State

#: Postgres channel on which agents hear of cancels: unlike a Redis message it cannot be lost while the database stands.
CANCEL_CHANNEL: Final = "imagefleet_cancel"


class JobActive(RequestRefused):
    """The job still waits or runs, so it cannot be deleted."""

    code = "job_active"
    status = 409


# A queued job ends at once, under an epoch of its own, and its owner is not charged for it; a running one ends when its
# worker has really stopped.
def _cancel_statement(which: str) -> str:
    mine = "(%(owner)s::text is null or owner = %(owner)s)"
    return f"""
with cancelled as (
    update jobs set state = 'cancelled', epoch = epoch + 1, state_seq = 1, finished_at = clock_timestamp(),
        cancel_requested_at = clock_timestamp()
    where {which} and {mine} and state = 'queued'
    returning {PRESENT_COLUMNS}, true as changed, jobs.owner, jobs.priority, jobs.cost
), given_back as (
    update fair_owners mine set vtime = mine.vtime - charged.cost
    from (select owner, queue, priority, sum(cost)::bigint as cost from cancelled group by owner, queue, priority) charged
    where mine.owner = charged.owner and mine.queue = charged.queue and mine.priority = charged.priority
), asked as (
    update jobs set cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
    where {which} and {mine} and state = 'running'
    returning {PRESENT_COLUMNS}, false as changed, jobs.owner, jobs.priority, jobs.cost, pg_notify('{CANCEL_CHANNEL}', id::text)
)
select cancelled.*, null as notified from cancelled union all select asked.* from asked
"""


_CANCEL: Final = _cancel_statement("id = %(job)s")
_CANCEL_MEMBERS: Final = _cancel_statement("batch = %(batch)s")

_STATE: Final = "select state from jobs where id = %(job)s and (%(owner)s::text is null or owner = %(owner)s)"


def _delete_statement(which: str) -> str:
    return f"""
with gone as (
    delete from jobs where {which} and (%(owner)s::text is null or owner = %(owner)s)
        and state in ('succeeded', 'failed', 'cancelled') returning id, owner, task, request
), noted as (
    insert into usage_notes (owner, what, pictures, used)
    select gone.owner, 'deleted', held.pictures, job_uses(gone.task, gone.request)
    from gone cross join lateral (select count(*)::int as pictures from images where images.job = gone.id) held where held.pictures > 0
), swept as (
    insert into garbage (key) select images.key from images join gone on gone.id = images.job on conflict do nothing
)
select id from gone
"""


_DELETE: Final = _delete_statement("id = %(job)s")
_DELETE_MANY: Final = _delete_statement("id = any (%(jobs)s)")


async def cancel(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID
) -> tuple[State, Change | None] | None:
    """Cancel a job and return its state now, with the change when it ended at once; None when there is no such job."""
    values = {"job": job, "owner": owner}
    while True:
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_CANCEL, values)
            row = await cursor.fetchone()
            if row is not None:
                return State(row["state"]), present(row) if row["changed"] else None
            await cursor.execute(_STATE, values)
            found = await cursor.fetchone()
        if found is None:
            return None
        if State(found["state"]) in TERMINAL:
            return State(found["state"]), None
        # It moved between the two statements (a claim won the race): ask again.


def cancel_now(connection: "psycopg.Connection[Any]", job: UUID) -> Change | None:
    """Cancel a job on an operator's word; return the change when it ended at once."""
    values = {"job": job, "owner": None}
    with connection.cursor(row_factory=dict_row) as cursor:
        # A second time for a job that was claimed or requeued between the two halves of the statement.
        row = cursor.execute(_CANCEL, values).fetchone() or cursor.execute(_CANCEL, values).fetchone()
    return present(row) if row is not None and row["changed"] else None


async def cancel_members(connection: "psycopg.AsyncConnection[Any]", owner: str | None, batch: UUID) -> list[Change]:
    """Cancel all jobs of a batch, and return the changes of those that ended at once."""
    changes: list[Change] = []
    async with connection.cursor(row_factory=dict_row) as cursor:
        # A second time for jobs that were claimed or requeued between the two halves of the statement.
        for _ in range(2):
            await cursor.execute(_CANCEL_MEMBERS, {"batch": batch, "owner": owner})
            changes += [present(row) for row in await cursor.fetchall() if row["changed"]]
    return changes


async def delete(connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID) -> bool:
    """Delete a job that has ended, with its pictures; return whether there was one, raise `JobActive` while it waits or runs."""
    values = {"job": job, "owner": owner}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_DELETE, values)
        if await cursor.fetchone() is not None:
            return True
        await cursor.execute(_STATE, values)
        found = await cursor.fetchone()
    if found is None:
        return False
    raise JobActive(f"The job is {found['state']}: cancel it first.")


async def delete_many(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, jobs: Sequence[UUID]
) -> list[UUID]:
    """Delete those of the jobs that have ended, with their pictures, and return which."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_DELETE_MANY, {"jobs": list(jobs), "owner": owner})
        return [row["id"] for row in await cursor.fetchall()]
