"""Pictures that clients sent: who may use which, and where their bytes are.

The bytes lie once under their SHA-256, whoever sent them; a row says that an owner has them. Bytes are stored before the row, and removed
after the last row is gone: a row always has its bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row, tuple_row

#: What the keys of uploads begin with.
FOLDER: Final = "uploads"


@dataclass(frozen=True)
class Upload:
    """What is known of a picture without its bytes."""

    sha256: str
    mime: str
    #: As it is shown: its EXIF orientation counts.
    width: int
    height: int
    bytes: int
    #: The brightest pixel's luminance, 0 … 255: an all-black mask is noticed without decoding it again.
    brightest: int


@dataclass(frozen=True)
class JobPicture:
    """A picture of a succeeded job, which may become an upload."""

    job: UUID
    index: int
    key: str
    sha256: str


_COLUMNS: Final = "sha256, mime, width, height, bytes, brightest"

# Used just now: retention leaves it alone until the job that names it is stored.
_USE: Final = f"""
update uploads set used_at = now() where owner = %(owner)s and sha256 = any (%(digests)s) returning {_COLUMNS}
"""

_JOB_PICTURES: Final = """
select images.job, images.index, images.key, images.sha256
from unnest(%(jobs)s::uuid[], %(indexes)s::int[]) wanted (job, index)
join images on images.job = wanted.job and images.index = wanted.index
join jobs on jobs.id = images.job and jobs.owner = %(owner)s and jobs.state = 'succeeded'
"""

_KEEP: Final = """
with kept as (
    insert into uploads as mine (owner, sha256, mime, width, height, bytes, brightest)
    select %(owner)s, sent.* from unnest(%(digests)s::text[], %(mimes)s::text[], %(widths)s::int[], %(heights)s::int[],
        %(sizes)s::bigint[], %(brightest)s::smallint[]) sent
    on conflict (owner, sha256) do update set used_at = now()
    returning sha256, created_at = now() as created
), wanted_again as (
    delete from garbage where key = any (%(keys)s)
)
select sha256 from kept where created
"""

# Others may have the same bytes: the keeper looks before it removes them.
_ABANDON: Final = "insert into garbage (key) select unnest(%(keys)s::text[]) on conflict do nothing"

_READ: Final = f"""
select {_COLUMNS} from uploads where sha256 = %(sha256)s and (%(owner)s::text is null or owner = %(owner)s) limit 1
"""


def upload_key(sha256: str) -> str:
    """Return the storage key of an upload's bytes."""
    return f"{FOLDER}/{sha256[:2]}/{sha256}"


def upload_of_key(key: str) -> str | None:
    """Return the SHA-256 of the upload whose bytes lie under a key; None for any other key."""
    return key.rpartition("/")[2] if key.startswith(f"{FOLDER}/") else None


async def use_uploads(
    connection: "psycopg.AsyncConnection[Any]", owner: str, digests: Sequence[str]
) -> dict[str, Upload]:
    """Return those of an owner's uploads, by SHA-256, and keep them from being retired for now."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        # In one order: requests that share pictures must not wait for each other's rows.
        await cursor.execute(_USE, {"owner": owner, "digests": sorted(digests)})
        return {row["sha256"]: Upload(**row) for row in await cursor.fetchall()}


async def find_job_pictures(
    connection: "psycopg.AsyncConnection[Any]", owner: str, wanted: Sequence[tuple[UUID, int]]
) -> dict[tuple[UUID, int], JobPicture]:
    """Return those of the pictures, by job and index, that an owner's succeeded jobs made."""
    values = {"owner": owner, "jobs": [job for job, _ in wanted], "indexes": [index for _, index in wanted]}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_JOB_PICTURES, values)
        return {(row["job"], row["index"]): JobPicture(**row) for row in await cursor.fetchall()}


async def keep_uploads(
    connection: "psycopg.AsyncConnection[Any]", owner: str, uploads: Sequence[Upload]
) -> frozenset[str]:
    """Record uploads whose bytes are stored; return the SHA-256 of those the owner did not have before.

    From now on the keeper leaves the bytes alone; what it was about to remove is gone when this returns, so look for them once more.
    """
    sent = sorted({upload.sha256: upload for upload in uploads}.values(), key=lambda upload: upload.sha256)
    values = {
        "owner": owner,
        "digests": [upload.sha256 for upload in sent],
        "mimes": [upload.mime for upload in sent],
        "widths": [upload.width for upload in sent],
        "heights": [upload.height for upload in sent],
        "sizes": [upload.bytes for upload in sent],
        "brightest": [upload.brightest for upload in sent],
        "keys": [upload_key(upload.sha256) for upload in sent],
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_KEEP, values)
        return frozenset(row[0] for row in await cursor.fetchall())


async def abandon_uploads(connection: "psycopg.AsyncConnection[Any]", digests: Sequence[str]) -> None:
    """Leave the bytes of uploads that could not be kept to the keeper."""
    await connection.execute(_ABANDON, {"keys": [upload_key(sha256) for sha256 in digests]})


async def read_upload(connection: "psycopg.AsyncConnection[Any]", owner: str | None, sha256: str) -> Upload | None:
    """Return an upload of this owner (None: of anyone), or None."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_READ, {"owner": owner, "sha256": sha256})
        row = await cursor.fetchone()
    return None if row is None else Upload(**row)
