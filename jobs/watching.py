"""Which jobs one who watches an owner should hear of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.changes import PRESENT_COLUMNS, Change, present

#: Of one owner's jobs so many that wait, run, came or ended are looked at; what waits beyond them is seen when it runs.
MOST_OF_EACH: Final = 500


@dataclass(frozen=True)
class Owned:
    """The present state of a job, and whose it is."""

    owner: str
    change: Change


# A job that came and went between two looks is found by its end.
_IN_MOTION: Final = f"""
select {PRESENT_COLUMNS}, jobs.owner from (
    select found.id from unnest(%(owners)s::text[]) wanted (owner) cross join lateral (
        (select id from jobs where jobs.owner = wanted.owner and state = 'running' order by id limit {MOST_OF_EACH})
        union (select id from jobs where jobs.owner = wanted.owner and state = 'queued' order by id limit {MOST_OF_EACH})
        union (select id from jobs where jobs.owner = wanted.owner and finished_at > now() - make_interval(secs => %(seconds)s)
            order by finished_at desc limit {MOST_OF_EACH})) found
) seen join jobs using (id) order by jobs.id
"""


async def jobs_in_motion(
    connection: "psycopg.AsyncConnection[Any]", owners: Sequence[str], *, ended_within: float
) -> list[Owned]:
    """Return the jobs of these owners that wait, run, or ended within so many seconds, oldest first."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_IN_MOTION, {"owners": list(owners), "seconds": ended_within})
        return [Owned(row["owner"], present(row)) for row in await cursor.fetchall()]


def jobs_of(found: Sequence[Owned], owner: str) -> dict[UUID, Change]:
    """Return the changes of one owner by job."""
    return {each.change.job: each.change for each in found if each.owner == owner}
