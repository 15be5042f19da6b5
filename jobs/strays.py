"""Pictures in storage that no row refers to: their writer was killed between storing and recording them."""

import re
from collections.abc import Collection, Iterable
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

#: What the keys of jobs' pictures begin with.
PICTURES: Final = "jobs"
_KEY: Final = re.compile(rf"{PICTURES}/([0-9a-f-]{{36}})/\d+-[^/]+")

# The writer of a running job may still record what it stored; any other can no more.
_LEAVE: Final = """
insert into garbage (key) select key from unnest(%(jobs)s::uuid[], %(keys)s::text[]) stored (job, key)
where not exists (select from images where images.job = stored.job and images.key = stored.key)
    and not exists (select from thumbnails where thumbnails.job = stored.job and thumbnails.key = stored.key)
    and not exists (select from jobs where jobs.id = stored.job and jobs.state = 'running')
on conflict do nothing returning key
"""
# A smaller copy may have been made anew since.
_UNUSED: Final = """
select from garbage where key = %(key)s and not exists (select from images where job = %(job)s and key = %(key)s)
    and not exists (select from thumbnails where job = %(job)s and key = %(key)s) for update
"""


def leave_strays(connection: "psycopg.Connection[Any]", keys: Collection[str]) -> list[str]:
    """Leave those of the objects to `garbage` that no row refers to and nobody can record any more; return their keys."""
    found = list(_of_jobs(keys))
    values = {"jobs": [job for job, _ in found], "keys": [key for _, key in found]}
    with connection.cursor(row_factory=tuple_row) as cursor:
        return [row[0] for row in cursor.execute(_LEAVE, values).fetchall()]


def is_unused_picture(connection: "psycopg.Connection[Any]", key: str) -> bool:
    """Tell whether no row refers to an object any more; call it inside a transaction that also removes it."""
    return all(
        connection.execute(_UNUSED, {"job": job, "key": key}).fetchone() is not None for job, key in _of_jobs([key])
    )


def _of_jobs(keys: Iterable[str]) -> Iterable[tuple[UUID, str]]:
    """Yield the keys that are those of pictures, with their jobs; what else lies there is somebody else's."""
    for key in keys:
        if (found := _KEY.fullmatch(key)) is not None:
            try:
                yield UUID(found[1]), key
            except ValueError:
                continue
