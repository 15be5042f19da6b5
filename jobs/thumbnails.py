"""Smaller copies of pictures: recorded when they are made, gone with their picture."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.reading import StoredImage


@dataclass(frozen=True)
class NewThumbnail:
    """A thumbnail whose bytes are in storage."""

    job: UUID
    index: int
    #: Longest side, pixels.
    size: int
    bytes: int
    sha256: str
    key: str


_FIND: Final = """select key, sha256, bytes from thumbnails
where job = %(job)s and index = %(index)s and size = %(size)s"""

# Of two that were made at once the first counts; of a picture deleted meanwhile none.
_RECORD: Final = """
insert into thumbnails (job, index, size, bytes, sha256, key)
select %(job)s, %(index)s, %(size)s, %(bytes)s, %(sha256)s, %(key)s from images where job = %(job)s and index = %(index)s for key share
on conflict do nothing
"""

MIME: Final = "image/webp"


async def find_thumbnail(
    connection: "psycopg.AsyncConnection[Any]", job: UUID, index: int, size: int
) -> StoredImage | None:
    """Return where a thumbnail lies, or None when it was not made yet."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_FIND, {"job": job, "index": index, "size": size})
        row = await cursor.fetchone()
    return None if row is None else StoredImage(mime=MIME, **row)


async def record_thumbnail(connection: "psycopg.AsyncConnection[Any]", made: NewThumbnail) -> StoredImage | None:
    """Record a thumbnail and return the one that counts; None when its picture is gone."""
    await connection.execute(_RECORD, vars(made))
    return await find_thumbnail(connection, made.job, made.index, made.size)
