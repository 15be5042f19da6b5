"""How much there is now: jobs, pictures, bytes."""

from typing import Any, Final

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

#: Pictures and uploads counted out; with more there are at least so many.
MOST_COUNTED: Final = 100_000


class Totals(BaseModel):
    """How much an owner has, or everyone together."""

    queued: int
    running: int
    succeeded_today: int = Field(description="Ended since midnight, UTC.")
    failed_today: int
    cancelled_today: int
    pictures: int
    uploads: int
    stored_bytes: int = Field(description="Of pictures and uploads.")
    counted_all: bool = Field(description=f"False when there are more than {MOST_COUNTED} pictures or uploads.")


def _statement(owner: str | None) -> str:
    """Return the statement; only what is asked for is part of it, so that the indexes serve it."""
    own = "" if owner is None else "and jobs.owner = %(owner)s"
    mine = "" if owner is None else "join jobs on jobs.id = images.job where jobs.owner = %(owner)s"
    uploaded = "" if owner is None else "where owner = %(owner)s"
    ended = " ".join(f"count(*) filter (where state = '{state}') as {state}_today," for state in _ENDS).rstrip(",")
    return f"""
        select active.queued, active.running, today.*, drawn.pictures, sent.uploads,
            (drawn.bytes + sent.bytes)::bigint as stored_bytes, drawn.pictures <= {MOST_COUNTED} and sent.uploads <= {MOST_COUNTED}
            as counted_all
        from (select count(*) filter (where state = 'queued') as queued, count(*) filter (where state = 'running') as running
                from jobs where state in ('queued', 'running') {own}) active,
            (select {ended} from jobs where finished_at >= date_trunc('day', now()) {own}) today,
            (select count(*) as pictures, coalesce(sum(bytes), 0) as bytes
                from (select images.bytes from images {mine} limit {MOST_COUNTED + 1}) counted) drawn,
            (select count(*) as uploads, coalesce(sum(bytes), 0) as bytes
                from (select bytes from uploads {uploaded} limit {MOST_COUNTED + 1}) counted) sent"""


_ENDS: Final = ("succeeded", "failed", "cancelled")


async def read_totals(connection: "psycopg.AsyncConnection[Any]", owner: str | None) -> Totals:
    """Return how much an owner (None: everyone) has now."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_statement(owner), {"owner": owner})
        row = await cursor.fetchone()
    return Totals.model_validate(row)
