"""Files that arrive in pieces: each is an object in storage, so that any process may take the next one and none is lost with a disk."""

import itertools
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from infra.storage import Storage

#: What the keys of pieces begin with.
FOLDER: Final = "pieces"
#: Uploads of one owner that have not become entries.
MOST_OPEN: Final = 200
_BATCH: Final = 1000
#: A piece that is not recorded by then never will be.
STRAY: Final = timedelta(hours=1)

_COLUMNS: Final = "id, owner, metadata, bytes, received, expires_at, model, created_at"
_ADD: Final = f"""
with locked as (select pg_advisory_xact_lock(hashtextextended('model uploads ' || %(owner)s, 0)))
insert into model_uploads (id, owner, metadata, bytes, expires_at)
select %(id)s, %(owner)s, %(metadata)s, %(bytes)s, now() + make_interval(secs => %(seconds)s) from locked
where (select count(*) from model_uploads where owner = %(owner)s and model is null) < {MOST_OPEN}
returning {_COLUMNS}
"""
_READ: Final = f"select {_COLUMNS} from model_uploads where id = %(id)s and owner = %(owner)s and expires_at > now()"
# Of two requests that go on from the same byte one adds its pieces, and the other finds that the upload has moved on.
_EXTEND: Final = """
with extended as (
    update model_uploads set received = received + %(more)s, expires_at = now() + make_interval(secs => %(seconds)s)
    where id = %(id)s and received = %(start)s and received + %(more)s <= bytes and model is null
    returning id, received
), added as (
    insert into model_upload_pieces (upload, start, bytes, key)
    select extended.id, sent.* from extended, unnest(%(starts)s::bigint[], %(sizes)s::bigint[], %(keys)s::text[]) sent
)
select received from extended
"""
_PIECES: Final = "select start, bytes, key from model_upload_pieces where upload = %(id)s order by start"
_DELETE: Final = "delete from model_uploads where id = %(id)s and owner = %(owner)s returning id"
# The bytes are in the library now; the row stays until it expires, for whoever asks again what became of it.
_FINISH: Final = """
with done as (update model_uploads set model = %(model)s where id = %(id)s returning id)
delete from model_upload_pieces using done where upload = done.id
"""
_EXPIRE: Final = f"""
delete from model_uploads where id in (select id from model_uploads where expires_at <= now() limit {_BATCH})
"""
_KNOWN: Final = "select key from model_upload_pieces where key = any (%(keys)s)"


@dataclass(frozen=True)
class ModelUpload:
    """A file on its way."""

    id: UUID
    owner: str
    metadata: Mapping[str, str]
    bytes: int
    received: int
    expires_at: datetime
    model: UUID | None
    created_at: datetime


class Piece(NamedTuple):
    """Some bytes of an upload, in storage."""

    start: int
    bytes: int
    key: str


def piece_key(upload: UUID, start: int) -> str:
    """Return a key that no other piece has, also of the same bytes: what was stored twice is recorded once."""
    return f"{FOLDER}/{upload}/{start}-{secrets.token_hex(6)}"


async def add_upload(
    connection: "AsyncConnection[Any]",
    identity: UUID,
    owner: str,
    metadata: Mapping[str, str],
    *,
    size: int,
    seconds: float,
) -> ModelUpload | None:
    """Begin an upload; None when its owner has as many open ones as one may have."""
    values = {"id": identity, "owner": owner, "metadata": Jsonb(dict(metadata)), "bytes": size, "seconds": seconds}
    return await _one(connection, _ADD, values)


async def read_upload(connection: "AsyncConnection[Any]", owner: str, identity: UUID) -> ModelUpload | None:
    """Return an owner's upload, or None."""
    return await _one(connection, _READ, {"id": identity, "owner": owner})


async def extend_upload(
    connection: "AsyncConnection[Any]", identity: UUID, start: int, pieces: Sequence[Piece], *, seconds: float
) -> bool:
    """Record stored pieces that go on from `start`; return False when the upload does not end there any more."""
    values = {
        "id": identity,
        "start": start,
        "more": sum(piece.bytes for piece in pieces),
        "seconds": seconds,
        "starts": [piece.start for piece in pieces],
        "sizes": [piece.bytes for piece in pieces],
        "keys": [piece.key for piece in pieces],
    }
    cursor = await connection.execute(_EXTEND, values)
    return await cursor.fetchone() is not None


async def read_pieces(connection: "AsyncConnection[Any]", identity: UUID) -> list[Piece]:
    """Return the pieces of an upload in their order."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_PIECES, {"id": identity})
        return [Piece(**row) for row in await cursor.fetchall()]


async def delete_upload(connection: "AsyncConnection[Any]", owner: str, identity: UUID) -> bool:
    """Forget an upload, leaving its pieces to `garbage`; return whether there was one."""
    cursor = await connection.execute(_DELETE, {"id": identity, "owner": owner})
    return await cursor.fetchone() is not None


async def finish_upload(connection: "AsyncConnection[Any]", identity: UUID, model: UUID) -> None:
    """Record what an upload became, leaving its pieces to `garbage`."""
    await connection.execute(_FINISH, {"id": identity, "model": model})


def expire_uploads(connection: "Connection[Any]") -> int:
    """Forget a batch of uploads that nobody goes on with, and return how many."""
    return connection.execute(_EXPIRE).rowcount


def remove_strays(connection: "Connection[Any]", storage: Storage, age: timedelta = STRAY) -> int:
    """Remove pieces that no upload has, left by processes that died between storing and recording them; return how many."""
    removed = 0
    for page in _pages(storage, datetime.now(UTC) - age):
        for key in sorted(set(page) - _known_pieces(connection, page)):
            storage.delete(key)
            removed += 1
    return removed


def _pages(storage: Storage, before: datetime) -> Iterator[list[str]]:
    old = (found.key for found in storage.list(FOLDER) if found.modified < before)
    while page := list(itertools.islice(old, _BATCH)):
        yield page


def _known_pieces(connection: "Connection[Any]", keys: Collection[str]) -> frozenset[str]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return frozenset(row["key"] for row in cursor.execute(_KNOWN, {"keys": list(keys)}).fetchall())


async def _one(connection: "AsyncConnection[Any]", statement: str, values: dict[str, Any]) -> ModelUpload | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        row = await cursor.fetchone()
    return None if row is None else ModelUpload(**row)
