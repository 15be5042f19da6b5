"""Backups over HTTP, for admins: made, listed, read, verified, restored, deleted, scheduled."""

import asyncio
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, TypeVar

from pydantic import BaseModel, Field
from starlette.responses import Response, StreamingResponse

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from broker_api.library.archive_connections import own_connection
from broker_api.library.archive_refusals import BackupRunning as Running
from broker_api.library.archive_refusals import refused
from broker_api.library.archives import in_thread
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import NotFound, StorageUnavailable
from infra.database import Connection
from infra.storage import ObjectMissing, Storage, StorageError
from jobs.holding import unfinished_naming
from jobs.parts import Strict
from models_registry.archives.backups import (
    Backup,
    BackupRunning,
    backup_key,
    create_backup,
    delete_backup,
    list_backups,
    read_backup,
    verify_backup,
)
from models_registry.archives.manifest import Files
from models_registry.archives.refusals import ArchiveRefused
from models_registry.archives.restoring import restore_backup
from models_registry.archives.schedule import Schedule, read_schedule, set_schedule

Result = TypeVar("Result")
_LONGEST_HOURS: Final = 24.0 * 366


class CreateBackup(Strict):
    """What a backup holds."""

    files: Files = Field(
        default="reference", description="`include` the models' files themselves, or only their hashes."
    )


class SetSchedule(Strict):
    """When backups are made by themselves."""

    every_hours: float | None = Field(default=None, ge=0.25, le=_LONGEST_HOURS, description="null makes none.")
    keep: int = Field(default=7, ge=1, le=1000, description="How many of these are kept.")
    files: Files = "reference"


class BackupPage(BaseModel):
    """All backups, newest first."""

    items: list[Backup]
    next_cursor: str | None = None


async def create_one_backup(call: Call) -> Response:
    """Make a backup, and answer when it is made."""
    files = call.body(CreateBackup).files
    made = await _work(
        call, lambda connection, storage: create_backup(connection, storage, files, call.principal.owner)
    )
    return json_answer(made, HTTPStatus.CREATED, {"location": f"/v1/archives/backups/{made.id}"})


async def list_all_backups(call: Call) -> Response:
    """Return all backups."""
    return json_answer(BackupPage(items=await _work(call, list_backups)))


async def read_one_backup(call: Call) -> Response:
    """Return a backup."""
    return json_answer(await _found(call))


async def read_backup_content(call: Call) -> Response:
    """Stream a backup's archive."""
    found = await _found(call)
    chunks: Iterator[bytes] = call.services.storage.stream(backup_key(found.id))
    headers = {
        "content-disposition": f'attachment; filename="imagefleet-backup-{found.made_at:%Y%m%d-%H%M%S}.zip"',
        "content-length": str(found.bytes),
        "cache-control": "no-store",
        "etag": f'"{found.sha256}"',
    }
    return StreamingResponse(in_thread(chunks, lambda: None), media_type="application/zip", headers=headers)


async def verify_one_backup(call: Call) -> Response:
    """Read a backup to its end, and say whether it is sound."""
    which = call.job()
    verified = await _work(call, lambda connection, storage: verify_backup(connection, storage, which))
    if verified is None:
        raise not_found()
    return json_answer(verified)


async def restore_one_backup(call: Call) -> Response:
    """Make the library what it was."""
    found = await _found(call)
    return json_answer(
        await _work(call, lambda connection, storage: restore_backup(connection, storage, found, unfinished_naming))
    )


async def delete_one_backup(call: Call) -> Response:
    """Delete a backup."""
    which = call.job()
    if not await _work(call, lambda connection, storage: delete_backup(connection, storage, which)):
        raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def read_backup_schedule(call: Call) -> Response:
    """Return when backups are made by themselves."""
    return json_answer(await _work(call, lambda connection, _: read_schedule(connection)))


async def set_backup_schedule(call: Call) -> Response:
    """Set when backups are made by themselves."""
    wanted = call.body(SetSchedule)

    def change(connection: Connection, _: Storage) -> Schedule:
        return set_schedule(connection, every_hours=wanted.every_hours, keep=wanted.keep, files=wanted.files)

    return json_answer(await _work(call, change))


async def _found(call: Call) -> Backup:
    which = call.job()
    found = await _work(call, lambda connection, _: read_backup(connection, which))
    if found is None:
        raise not_found()
    return found


async def _work(call: Call, work: Callable[[Connection, Storage], Result]) -> Result:
    """Do work in a thread, on a connection of its own; what the registry refuses becomes an answer."""

    def begin() -> Result:
        with own_connection(call.services) as connection:
            return work(connection, call.services.storage)

    try:
        return await asyncio.to_thread(begin)
    except ArchiveRefused as reason:
        raise refused(reason) from None
    except BackupRunning:
        raise Running("Another backup is being made or restored: try again when it is done.") from None
    except ObjectMissing:
        raise NotFound("The backup is gone from storage.") from None
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not answer: {problem}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None
