"""Restore a backup: everything is checked first, then all tables are made what they were, in one transaction."""

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from psycopg.types.json import Jsonb
from pydantic import BaseModel

from infra.advisory_locks import MODEL_SCAN
from infra.database import Connection
from infra.storage import Storage
from models_registry.archives.backups import TABLES, Backup, alone, opened, stored_columns
from models_registry.archives.manifest import digest_of, table_member
from models_registry.archives.previews import put_previews
from models_registry.archives.reading import Archive
from models_registry.archives.refusals import ArchiveNewer, ManifestInvalid, RestoreBlocked, RowInvalid
from models_registry.content import CONTENT, content_key
from models_registry.entries import Kind, ModelRef
from models_registry.holders import LOCK, Holders, nobody

_BATCH: Final = 200
_LOCK: Final = "select pg_advisory_xact_lock(%s)"
_PINNED: Final = """
select models.name from model_pins join models on models.id = model_pins.model
where model_pins.until > now() and not models.id = any (%s::uuid[]) limit 1
"""
_NOW: Final = "select id, kind, name, fingerprint from models"
_UNPIN: Final = "delete from model_pins where not model = any (%s::uuid[])"
_GONE: Final = "delete from models where not id = any (%s::uuid[])"
#: So that two entries may swap their names.
_NAMELESS: Final = "update models set name = id::text"


class Restored(BaseModel):
    """What a restore brought back."""

    backup: Backup
    entries: int
    recipes: int
    #: Names of entries whose files are neither in the backup nor in storage.
    without_files: list[str]


def restore_backup(connection: Connection, storage: Storage, backup: Backup, holders: Holders = nobody) -> Restored:
    """Make the library what it was, raising an `ArchiveRefused` or `BackupRunning` before anything has changed.

    Entries keep their ids, so that what else knows them still does; such as the backup does not have are deleted.
    """
    with alone(connection), opened(storage, backup) as archive:
        archive.verify()
        if archive.manifest.kind != "backup":
            raise ManifestInvalid("The archive is an export: import it")
        columns = {table: _columns(connection, archive, table) for table in TABLES}
        ids = [row["id"] for row in archive.rows(table_member("models"))]
        previews = {
            digest for name in archive.zip.namelist() if name.startswith("previews/") and (digest := digest_of(name))
        }
        put_previews(archive, storage, previews)
        _put_files(archive, storage)
        here = {found.key for found in storage.list(CONTENT)}
        away: list[str] = []
        with connection.transaction():
            connection.execute("set local statement_timeout = 0")
            connection.execute(_LOCK, (MODEL_SCAN,))
            connection.execute(LOCK)
            pinned = connection.execute(_PINNED, (ids,)).fetchone()
            if pinned is not None:
                raise RestoreBlocked(f"{pinned['name']} is in use, and the backup does not have it")
            _refuse_held(connection, archive, holders)
            connection.execute(_UNPIN, (ids,))
            for table in TABLES[1:]:
                # What an older backup does not know stays as it is.
                if archive.has(table_member(table)):
                    connection.execute(f"delete from {table}")
            connection.execute(_GONE, (ids,))
            connection.execute(_NAMELESS)
            counts = {
                table: _write(connection, table, columns[table], _rows(archive, table, here, away)) for table in TABLES
            }
        # What the keeper removed in between.
        put_previews(archive, storage, previews)
        _put_files(archive, storage)
    return Restored(backup=backup, entries=counts["models"], recipes=counts["recipes"], without_files=away)


def _refuse_held(connection: Connection, archive: Archive, holders: Holders) -> None:
    """Raise `RestoreBlocked` where what somebody needs would be gone, be called otherwise or have other files."""
    then = {row["id"]: (row["kind"], row["name"], row["fingerprint"]) for row in archive.rows(table_member("models"))}
    refs = [
        ModelRef(Kind(row["kind"]), row["name"])
        for row in connection.execute(_NOW).fetchall()
        if then.get(str(row["id"])) != (row["kind"], row["name"], row["fingerprint"])
    ]
    held = sorted(ref.name for ref in holders(connection, refs))
    if held:
        raise RestoreBlocked(f"A job that has not ended names {held[0]}, which the backup has not, or with other files")


def _columns(connection: Connection, archive: Archive, table: str) -> list[str]:
    """Return the columns that the backup has of a table, raising `ArchiveNewer` for such as are not known here."""
    known = stored_columns(connection, table)
    found: set[str] = set()
    for row in archive.rows(table_member(table)):
        if not isinstance(row, dict):
            raise RowInvalid(f"{table_member(table)} has a line that is no row", table_member(table))
        found |= row.keys()
    unknown = sorted(found - set(known))
    if unknown:
        raise ArchiveNewer(f"The backup was made by another version: {table} has no column {', '.join(unknown[:5])}")
    return [name for name in known if name in found]


def _rows(archive: Archive, table: str, here: set[str], away: list[str]) -> Iterator[dict[str, Any]]:
    for row in archive.rows(table_member(table)):
        if table == "models" and row["stored_at"] is not None:
            keys = {content_key(file["sha256"] or "") for file in row["files"]}
            if not keys <= here:
                away.append(row["name"])
                row["missing_since"] = row["missing_since"] or row["changed_at"]
        yield row


def _write(connection: Connection, table: str, columns: list[str], rows: Iterator[dict[str, Any]]) -> int:
    if not columns:
        return 0
    named = ", ".join(f'"{name}"' for name in columns)
    again = ""
    if table == "models":
        again = "on conflict (id) do update set " + ", ".join(f'"{name}" = excluded."{name}"' for name in columns)
    statement = f"insert into {table} ({named}) select {named} from jsonb_populate_recordset(null::{table}, %s) {again}"
    count = 0
    while batch := list(islice(rows, _BATCH)):
        connection.execute(statement, (Jsonb(batch),))
        count += len(batch)
    return count


def _put_files(archive: Archive, storage: Storage) -> None:
    here = {found.key for found in storage.list(CONTENT)}
    for name in archive.zip.namelist():
        sha256 = digest_of(name)
        if sha256 is None or not name.startswith("files/") or content_key(sha256) in here:
            continue
        with tempfile.NamedTemporaryFile(prefix="imagefleet-restore-") as draft:
            for chunk in archive.stream(name):
                draft.write(chunk)
            draft.flush()
            storage.put_file(content_key(sha256), Path(draft.name))
