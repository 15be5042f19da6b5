"""Read whole what was only looked at, and put into storage what nodes asked for: work for the background, one entry at a time."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from infra.storage import Storage
from models_registry.content import STORED
from models_registry.contents.shelving import keep, keys_of
from models_registry.reading.bounded_files import Reads
from models_registry.refusals import FileUnreadable, ModelRefused
from models_registry.rows import values_of
from models_registry.scanning.examining import Examined, examine
from models_registry.scanning.stamps import stamp_of

_COLUMNS: Final = "id, kind, path, fingerprint, files, damage"
_UNHASHED: Final = f"""
select {_COLUMNS} from models where sha256 is null and missing_since is null and files <> '[]' and not starts_with(path, '{STORED}')
    and id <> all (%(passed)s) order by found_at limit 1
"""
_WANTED: Final = f"""
select {_COLUMNS} from models where wanted_at is not null and not starts_with(path, '{STORED}') and id <> all (%(passed)s)
order by wanted_at limit 1
"""
_HASHED: Final = """
update models set files = %(files)s, sha256 = %(sha256)s, hashes = %(hashes)s, components = %(components)s, changed_at = now()
where id = %(id)s and files = %(before)s
"""
_WANTED_AGAIN: Final = "delete from garbage where key = any (%(keys)s)"
_STORED: Final = """
update models set stored_at = now(), wanted_at = null, damage = null, changed_at = now()
where id = %(id)s and files = %(files)s
"""
_REFUSED: Final = """
with refused as (
    update models set missing_since = now(), damage = %(reason)s, wanted_at = null, changed_at = now() where id = %(id)s
)
insert into model_places (path, stamp, refused_path, code, reason) values (%(path)s, %(stamp)s, %(at)s, %(code)s, %(reason)s)
on conflict (path) do update set stamp = excluded.stamp, model = null, refused_path = excluded.refused_path, code = excluded.code,
    reason = excluded.reason
"""


def hash_next(connection: "Connection[Any]", passed: Collection[UUID], reads: Reads | None = None) -> UUID | None:
    """Read one entry whole that was not yet, and return which; None when there is none, but for those passed over.

    An entry whose weights turn out to hold a NaN is not offered any more. One whose files are not to be read here is left as it is.
    """
    row = _next(connection, _UNHASHED, passed)
    if row is None:
        return None
    _hash(connection, row, reads or Reads())
    return row["id"]  # type: ignore[no-any-return]


def store_next(
    connection: "Connection[Any]", storage: Storage, passed: Collection[UUID], reads: Reads | None = None
) -> UUID | None:
    """Put one entry into storage that a node asked for, and return which; None when there is none, but for those passed over.

    Raises `StorageError` as the storage does.
    """
    row = _next(connection, _WANTED, passed)
    if row is None:
        return None
    examined = _hash(connection, row, reads or Reads())
    if examined is not None:
        _store(connection, storage, row, examined)
    return row["id"]  # type: ignore[no-any-return]


def _next(connection: "Connection[Any]", statement: str, passed: Collection[UUID]) -> DictRow | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, {"passed": list(passed)}).fetchone()


def _hash(connection: "Connection[Any]", row: DictRow, reads: Reads) -> Examined | None:
    """Read an entry's files whole and write their hashes down; None when they are not here as they were."""
    path = Path(row["path"])
    stamp = stamp_of(path)
    try:
        # Where its links may lead, the scan has decided.
        examined = examine(path, [Path("/")], reads, whole=True)
    except FileUnreadable:
        return None
    except ModelRefused as refusal:
        if path.exists():
            values = {"id": row["id"], "path": str(path), "stamp": stamp, "at": str(refusal.path)}
            connection.execute(_REFUSED, {**values, "code": refusal.code, "reason": refusal.reason})
        return None
    except OSError:
        return None
    if (examined.entry.kind, examined.entry.fingerprint) != (row["kind"], row["fingerprint"]):
        # The next scan will tell what it is now.
        return None
    values = {
        "id": row["id"],
        "before": Jsonb(row["files"]),
        "files": _as_json(examined),
        "sha256": examined.sha256,
        "hashes": Jsonb(examined.hashes),
        "components": values_of(examined.entry)["components"],
    }
    connection.execute(_HASHED, values)
    return examined


def _store(connection: "Connection[Any]", storage: Storage, row: DictRow, examined: Examined) -> None:
    keys = keys_of(examined)
    if row["damage"] is not None:
        for key in keys:
            # An object is never changed, so the damaged one must go before it can come again.
            storage.delete(key)
    keep(storage, examined)
    with connection.transaction():
        connection.execute(_WANTED_AGAIN, {"keys": keys})
        connection.execute(_STORED, {"id": row["id"], "files": _as_json(examined)})
    # What the keeper was about to remove is gone now.
    keep(storage, examined)


def _as_json(examined: Examined) -> Jsonb:
    return Jsonb([file.record.model_dump() for file in examined.files])
