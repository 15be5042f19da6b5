"""What does not agree between the table, the folders and the storage, and how to settle it."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import DictRow, class_row, dict_row, tuple_row
from pydantic import BaseModel

from infra.storage import Storage
from models_registry.content import CONTENT, content_of_key
from models_registry.entries import Kind, ModelRef
from models_registry.holders import LOCK, HoldersAsync, nobody_async

#: What was stored so recently may belong to an entry that is about to be written.
SETTLED: Final = timedelta(hours=1)

_MISSING: Final = """
select id, kind, name as ref, path, owner, missing_since, damage from models
where (missing_since is not null or damage is not null) and (%(after)s::uuid is null or id > %(after)s) order by id limit %(limit)s
"""
_FORGOTTEN: Final = """
select id, kind, name from models where id = any (%(ids)s) and missing_since is not null
    and not exists (select from model_pins where model = models.id and until > now()) for update
"""
_UNPIN_OLD: Final = "delete from model_pins where model = any (%(ids)s) and until <= now()"
_DUPLICATES: Final = """
select sha256, max(weight_bytes) as bytes,
    jsonb_agg(jsonb_build_object('id', id, 'kind', kind, 'ref', name, 'path', path, 'owner', owner) order by found_at) as entries
from models where sha256 is not null and (%(after)s::text is null or sha256 > %(after)s)
group by sha256 having count(*) > 1 order by sha256 limit %(limit)s
"""
_EQUALS: Final = """
select other.id, other.kind, other.name from models kept join models other on other.sha256 = kept.sha256 and other.kind = kept.kind
    and other.id <> kept.id
where kept.id = %(id)s and not exists (select from model_pins where model = other.id and until > now()) for update of other
"""
_THERE: Final = "select id from models where id = %(id)s and sha256 is not null for update"
_DROP: Final = "delete from models where id = any (%(ids)s)"
_ALIAS: Final = """
insert into model_aliases (kind, alias, model) select kind, alias, %(id)s
from unnest(%(kinds)s::text[], %(names)s::text[]) other (kind, alias)
on conflict do nothing
"""
_HAD: Final = """
select sha256 from unnest(%(digests)s::text[]) stored (sha256) where exists (
    select from models where stored_at is not null and files @> jsonb_build_array(jsonb_build_object('sha256', stored.sha256)))
"""
_SWEEP: Final = "insert into garbage (key) select unnest(%(keys)s::text[]) on conflict do nothing"
_BATCH: Final = 1000


class MissingEntry(BaseModel):
    """An entry that cannot be drawn with."""

    id: UUID
    kind: Kind
    ref: str
    path: str
    owner: str | None
    missing_since: datetime | None
    damage: str | None


class EqualEntry(BaseModel):
    """One of several entries of one content."""

    id: UUID
    kind: Kind
    ref: str
    path: str
    owner: str | None


class DuplicateContent(BaseModel):
    """A content that several entries have, the one known longest first."""

    sha256: str
    bytes: int
    entries: list[EqualEntry]


class Orphan(BaseModel):
    """Stored bytes that no entry has."""

    sha256: str
    bytes: int
    stored_at: datetime


async def find_missing(connection: "AsyncConnection[Any]", after: UUID | None, limit: int) -> list[MissingEntry]:
    """Return entries whose files are away or damaged, by id."""
    async with connection.cursor(row_factory=class_row(MissingEntry)) as cursor:
        await cursor.execute(_MISSING, {"after": after, "limit": limit})
        return await cursor.fetchall()


async def forget(
    connection: "AsyncConnection[Any]", ids: Collection[UUID], holders: HoldersAsync = nobody_async
) -> list[UUID]:
    """Delete those of the entries that are missing and that nobody has pinned or holds; return them."""
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(LOCK)
        await cursor.execute(_FORGOTTEN, {"ids": list(ids)})
        free = await _free(connection, await cursor.fetchall(), holders)
        values = {"ids": [row["id"] for row in free]}
        await cursor.execute(_UNPIN_OLD, values)
        await cursor.execute(_DROP, values)
    return values["ids"]


async def find_duplicates(connection: "AsyncConnection[Any]", after: str | None, limit: int) -> list[DuplicateContent]:
    """Return contents that several entries have, by SHA-256."""
    async with connection.cursor(row_factory=class_row(DuplicateContent)) as cursor:
        await cursor.execute(_DUPLICATES, {"after": after, "limit": limit})
        return await cursor.fetchall()


async def keep_one(
    connection: "AsyncConnection[Any]", which: UUID, holders: HoldersAsync = nobody_async
) -> list[UUID] | None:
    """Delete the other entries of the same kind and content, which leave their names to this one; None when there is no such entry.

    Those that somebody has pinned or holds stay.
    """
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(LOCK)
        await cursor.execute(_THERE, {"id": which})
        if await cursor.fetchone() is None:
            return None
        await cursor.execute(_EQUALS, {"id": which})
        others = await _free(connection, await cursor.fetchall(), holders)
        ids = [other["id"] for other in others]
        await cursor.execute(_UNPIN_OLD, {"ids": ids})
        await cursor.execute(_DROP, {"ids": ids})
        values = {"kinds": [other["kind"] for other in others], "names": [other["name"] for other in others]}
        await cursor.execute(_ALIAS, {"id": which, **values})
    return ids


async def find_orphans(
    connection: "AsyncConnection[Any]", storage: Storage, after: str | None, limit: int
) -> list[Orphan]:
    """Return stored bytes that no entry has, by SHA-256; raises `StorageError` as the storage does."""
    now = datetime.now(UTC)
    found = [
        Orphan(sha256=sha256, bytes=each.size, stored_at=each.modified)
        async for each in storage.list_async(CONTENT)
        if (sha256 := content_of_key(each.key)) is not None and now - each.modified >= SETTLED
    ]
    found = sorted((each for each in found if after is None or each.sha256 > after), key=lambda each: each.sha256)
    orphans: list[Orphan] = []
    for start in range(0, len(found), _BATCH):
        orphans.extend(await _without_entry(connection, found[start : start + _BATCH]))
        if len(orphans) >= limit:
            break
    return orphans[:limit]


async def sweep_orphans(connection: "AsyncConnection[Any]", storage: Storage) -> int:
    """Leave all stored bytes that no entry has to the keeper, which looks once more before it removes them; return how many."""
    swept, after = 0, None
    while True:
        orphans = await find_orphans(connection, storage, after, _BATCH)
        await connection.execute(_SWEEP, {"keys": [f"{CONTENT}/{each.sha256}" for each in orphans]})
        swept += len(orphans)
        if len(orphans) < _BATCH:
            return swept
        after = orphans[-1].sha256


async def _free(connection: "AsyncConnection[Any]", rows: Sequence[DictRow], holders: HoldersAsync) -> list[DictRow]:
    refs = [ModelRef(Kind(row["kind"]), row["name"]) for row in rows]
    held = await holders(connection, refs)
    return [row for ref, row in zip(refs, rows, strict=True) if ref not in held]


async def _without_entry(connection: "AsyncConnection[Any]", stored: Sequence[Orphan]) -> list[Orphan]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_HAD, {"digests": [each.sha256 for each in stored]})
        had = {row[0] for row in await cursor.fetchall()}
    return [each for each in stored if each.sha256 not in had]
