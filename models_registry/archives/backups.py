"""Backups of the whole library: made, listed, verified, deleted. Their bytes lie in storage, and are found there when the table is lost."""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from uuid import UUID, uuid4

from pydantic import BaseModel
from uuid_utils.compat import uuid7

from infra.advisory_locks import BACKUP
from infra.database import Connection
from infra.storage import Storage
from models_registry.archives.manifest import Files, table_member
from models_registry.archives.reading import Archive, open_archive
from models_registry.archives.refusals import ArchiveDamaged, ArchiveRefused
from models_registry.archives.sources import Source, file_sources, preview_source
from models_registry.archives.spools import Spool
from models_registry.archives.writing import About, Member, write_archive

#: What is backed up, in the order in which it is restored. What hangs on `models` beside it can be learnt again, or is a passing need.
TABLES: Final = (
    "models", "model_aliases", "model_previews", "model_marks", "recipes", "taste_feedback", "taste_preferences",
)  # fmt: skip
FOLDER: Final = "backups"
#: No backup of ours is larger.
MOST_BYTES: Final = 2**50

_TRY: Final = "select pg_try_advisory_lock(%s) as mine"
_LET_GO: Final = "select pg_advisory_unlock(%s)"
_STORED: Final = """
select attname as name from pg_attribute
where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
"""
_COLUMNS: Final = "id, made_at, made_by, files, bytes, sha256, entries, recipes, verified_at, damage"
_RECORD: Final = f"""
insert into backups (id, made_at, made_by, files, bytes, sha256, entries, recipes)
values (%(id)s, coalesce(%(made_at)s, now()), %(made_by)s, %(files)s, %(bytes)s, %(sha256)s, %(entries)s, %(recipes)s)
on conflict (id) do nothing returning {_COLUMNS}
"""
_LIST: Final = f"select {_COLUMNS} from backups order by made_at desc, id desc"
_READ: Final = f"select {_COLUMNS} from backups where id = %s"
_VERIFIED: Final = f"update backups set verified_at = now(), damage = %s where id = %s returning {_COLUMNS}"
_DELETE: Final = "delete from backups where id = %s returning id"


class BackupRunning(Exception):
    """Another backup is being made or restored."""


class Backup(BaseModel):
    """A backup."""

    id: UUID
    made_at: datetime
    made_by: str | None
    files: Files
    bytes: int
    sha256: str
    entries: int
    recipes: int
    verified_at: datetime | None
    damage: str | None


def backup_key(backup: UUID) -> str:
    """Return where a backup lies in storage."""
    return f"{FOLDER}/{backup}.zip"


@contextlib.contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Hold the one right to make or restore backups, raising `BackupRunning`."""
    row = connection.execute(_TRY, (BACKUP,)).fetchone()
    if row is None or not row["mine"]:
        raise BackupRunning
    try:
        yield
    finally:
        connection.execute(_LET_GO, (BACKUP,))


def create_backup(connection: Connection, storage: Storage, files: Files, made_by: str | None) -> Backup:
    """Make a backup of everything as it is at one moment, and return it; raise `BackupRunning` or `StorageError`."""
    with alone(connection), contextlib.ExitStack() as undo:
        spools = {table: Spool(table_member(table)) for table in TABLES}
        for spool in spools.values():
            undo.callback(spool.close)
        previews: set[str] = set()
        sources: dict[str, Source] = {}
        away: list[str] = []
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            connection.execute("set local idle_in_transaction_session_timeout = 0")
            for table, spool in spools.items():
                for row in _rows(connection, table):
                    if table == "models" and files == "include":
                        _add_sources(row, storage, sources, away)
                    _add_preview(table, row, previews)
                    spool.add(row)
        about = About("backup", files, spools["models"].rows, spools["recipes"].rows, tuple(away))
        members = [
            *(spool.member for spool in spools.values()),
            *(preview_source(sha256, storage) for sha256 in sorted(previews)),
            *(sources[sha256].member for sha256 in sorted(sources)),
        ]
        return _keep(connection, storage, members, about, made_by)


def list_backups(connection: Connection, storage: Storage) -> list[Backup]:
    """Return all backups, newest first, also those that lie in storage alone."""
    known = {row["id"] for row in connection.execute(_LIST).fetchall()}
    for found in list(storage.list(FOLDER)):
        name = found.key.removeprefix(f"{FOLDER}/").removesuffix(".zip")
        with contextlib.suppress(ValueError, ArchiveRefused):
            if (identity := UUID(name)) not in known and found.key == backup_key(identity):
                _adopt(connection, storage, identity)
    return [Backup.model_validate(row) for row in connection.execute(_LIST).fetchall()]


def read_backup(connection: Connection, backup: UUID) -> Backup | None:
    """Return a backup, or None."""
    row = connection.execute(_READ, (backup,)).fetchone()
    return None if row is None else Backup.model_validate(row)


def verify_backup(connection: Connection, storage: Storage, backup: UUID) -> Backup | None:
    """Read a backup to its end, record whether it is sound, and return it; None where there is none."""
    found = read_backup(connection, backup)
    if found is None:
        return None
    damage = None
    try:
        with opened(storage, found) as archive:
            archive.verify()
    except ArchiveRefused as reason:
        damage = reason.message
    row = connection.execute(_VERIFIED, (damage, backup)).fetchone()
    return None if row is None else Backup.model_validate(row)


def delete_backup(connection: Connection, storage: Storage, backup: UUID) -> bool:
    """Delete a backup, and return whether there was one."""
    with connection.transaction():
        if connection.execute(_DELETE, (backup,)).fetchone() is None:
            return False
        # Before the commit: what lies in storage would be found again.
        storage.delete(backup_key(backup))
    return True


@contextlib.contextmanager
def opened(storage: Storage, backup: Backup) -> Iterator[Archive]:
    """Fetch a backup and open it, raising `ArchiveDamaged` where its bytes are not those that were recorded."""
    with fetched(storage, backup.id) as (file, sha256):
        if sha256 != backup.sha256:
            raise ArchiveDamaged("The backup has other bytes than were recorded when it was made")
        yield open_archive(file, MOST_BYTES)


@contextlib.contextmanager
def fetched(storage: Storage, backup: UUID) -> Iterator[tuple[BinaryIO, str]]:
    """Copy a backup out of storage into a file that goes with the context; yields it and its SHA-256."""
    digest = hashlib.sha256()
    with tempfile.TemporaryFile(prefix="imagefleet-backup-") as file:
        for chunk in storage.stream(backup_key(backup)):
            digest.update(chunk)
            file.write(chunk)
        file.seek(0)
        yield cast("BinaryIO", file), digest.hexdigest()


def stored_columns(connection: Connection, table: str) -> list[str]:
    """Return the columns of a table but for those that Postgres computes."""
    return [row["name"] for row in connection.execute(_STORED, (table,)).fetchall()]


def _rows(connection: Connection, table: str) -> Iterator[dict[str, Any]]:
    columns = ", ".join(f'"{name}"' for name in stored_columns(connection, table))
    with connection.cursor(f"backup_{uuid4().hex}") as cursor:
        cursor.itersize = 200
        for row in cursor.execute(f"select to_jsonb(chosen) as row from (select {columns} from {table}) chosen"):
            yield row["row"]


def _add_sources(row: dict[str, Any], storage: Storage, sources: dict[str, Source], away: list[str]) -> None:
    found = None if row["missing_since"] is not None else file_sources(row, storage)
    if found is None:
        away.append(row["name"])
    else:
        sources |= {source.sha256: source for source in found}


def _add_preview(table: str, row: dict[str, Any], previews: set[str]) -> None:
    if table == "model_previews":
        previews.add(row["sha256"])
    elif table == "recipes" and row["preview"] is not None:
        previews.add(row["preview"]["sha256"])


def _keep(connection: Connection, storage: Storage, members: list[Member], about: About, made_by: str | None) -> Backup:
    identity = uuid7()
    digest, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(prefix="imagefleet-backup-") as draft:
        for chunk in write_archive(members, about):
            draft.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        draft.flush()
        storage.put_file(backup_key(identity), Path(draft.name))
    values = {
        "id": identity, "made_at": None, "made_by": made_by, "files": about.files, "bytes": size, "sha256": digest.hexdigest(),
        "entries": about.entries, "recipes": about.recipes,
    }  # fmt: skip
    return Backup.model_validate(connection.execute(_RECORD, values).fetchone())


def _adopt(connection: Connection, storage: Storage, identity: UUID) -> None:
    """Record a backup that lies in storage alone, as one does after the database was lost."""
    with fetched(storage, identity) as (file, sha256):
        size = file.seek(0, 2)
        manifest = open_archive(file, MOST_BYTES).manifest
        if manifest.kind != "backup":
            return
        values = {
            "id": identity, "made_at": manifest.made_at, "made_by": None, "files": manifest.files, "bytes": size, "sha256": sha256,
            "entries": manifest.entries, "recipes": manifest.recipes,
        }  # fmt: skip
        connection.execute(_RECORD, values)
