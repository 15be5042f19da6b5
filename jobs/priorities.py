"""Move a waiting job to another priority, to where it would stand had it been sent with that priority now."""

from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.changes import PRESENT_COLUMNS, Change, present
from jobs.errors import RequestRefused
from jobs.states import State

#: What its event names as the reason.
REASON: Final = "priority_changed"


class JobNotWaiting(RequestRefused):
    """The job runs or has ended, so its priority matters no more."""

    code = "job_not_waiting"
    status = 409


# The job is sent back under an epoch of its own, so that its followers hear of it as of any other return. Its owner is given back what it
# was charged for in the old priority and charged in the new one, in the order in which all writers lock those rows: two jobs that change
# places never wait for each other.
_CHANGE: Final = f"""
with mine as materialized (
    select id, owner, queue, priority, cost from jobs
    where id = %(job)s and (%(owner)s::text is null or owner = %(owner)s) and state = 'queued' and priority <> %(priority)s
    for update
), promised as (
    insert into fair_owners as promise (owner, queue, priority, vtime)
    select mine.owner, mine.queue, moved.priority, coalesce(clock.vtime, 0) + mine.cost
    from mine cross join lateral (values (%(priority)s::smallint), (mine.priority)) moved (priority)
        left join fair_clock clock on clock.queue = mine.queue and clock.priority = moved.priority
    where moved.priority = %(priority)s or exists (select from fair_owners known
        where known.owner = mine.owner and known.queue = mine.queue and known.priority = moved.priority)
    order by moved.priority
    on conflict (owner, queue, priority) do update set vtime = case when promise.priority = %(priority)s
        then greatest(excluded.vtime, promise.vtime + (select cost from mine)) else promise.vtime - (select cost from mine) end
    returning priority, vtime
)
update jobs set priority = %(priority)s, fair_order = promised.vtime - mine.cost, epoch = jobs.epoch + 1, state_seq = 1,
    requeue_reason = '{REASON}', request = jsonb_set(jobs.request, '{{priority}}', to_jsonb(%(priority)s::int)),
    -- The event's time; a job that rests goes on resting.
    available_at = greatest(jobs.available_at, clock_timestamp())
from mine join promised on promised.priority = %(priority)s
where jobs.id = mine.id and jobs.state = 'queued'
returning {PRESENT_COLUMNS}
"""

_NOW: Final = "select state, priority from jobs where id = %(job)s and (%(owner)s::text is null or owner = %(owner)s)"


async def change_priority(
    connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID, priority: int
) -> tuple[bool, Change | None]:
    """Give a waiting job another priority, 0 (first) to 9; return whether there is such a job, and the change if it had another.

    Raise `JobNotWaiting` when it runs or has ended.
    """
    values = {"job": job, "owner": owner, "priority": priority}
    async with connection.cursor(row_factory=dict_row) as cursor:
        while True:
            await cursor.execute(_CHANGE, values)
            row = await cursor.fetchone()
            if row is not None:
                return True, present(row)
            await cursor.execute(_NOW, values)
            found = await cursor.fetchone()
            if found is None:
                return False, None
            if found["state"] != State.QUEUED:
                raise JobNotWaiting(f"The job is {found['state']}: only one that waits can change its priority.")
            if found["priority"] == priority:
                return True, None
            # It came back into its queue between the two statements: try again.
