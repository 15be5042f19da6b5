"""Find the jobs that one client made: by a label that its door gave them, or by its idempotency key."""

from typing import Any, Final, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from jobs.states import State

#: Nobody has more jobs open through one door; what is older is not listed.
MOST_ACTIVE: Final = 1000

_ACTIVE: Final = """select id, state, request -> 'labels' ->> %(shown)s from jobs
where owner = %(owner)s and state in ('queued', 'running') and request -> 'labels' ->> %(label)s = %(value)s
order by (state = 'running') desc, id desc limit %(most)s"""
_BY_KEY: Final = "select id from jobs where owner = %(owner)s and idempotency_key = %(key)s"


class Active(NamedTuple):
    """A job that waits or runs."""

    job: UUID
    state: State
    #: The value of the label that was asked for.
    shown: str | None


async def active(
    connection: "psycopg.AsyncConnection[Any]", owner: str, label: str, value: str, *, shown: str
) -> list[Active]:
    """Return an owner's unfinished jobs whose label has this value, running ones first, then the newest."""
    values = {"owner": owner, "label": label, "value": value, "shown": shown, "most": MOST_ACTIVE}
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_ACTIVE, values)
        return [Active(job, State(state), text) for job, state, text in await cursor.fetchall()]


async def by_idempotency_key(connection: "psycopg.AsyncConnection[Any]", owner: str, key: str) -> UUID | None:
    """Return the job that an idempotency key has made, whatever became of it."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_BY_KEY, {"owner": owner, "key": key})
        found = await cursor.fetchone()
    return None if found is None else found[0]
