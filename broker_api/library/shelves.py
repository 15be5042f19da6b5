"""/v1/library: scans of the model folders, and what does not agree between the table, the folders and the storage."""

from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.refusals import StorageUnavailable
from infra.storage import StorageError
from jobs.cursors import CursorInvalid, decode_cursor, encode_cursor
from jobs.holding import unfinished_naming_async
from jobs.parts import Strict
from models_registry.contents.checks import (
    DuplicateContent,
    MissingEntry,
    Orphan,
    find_duplicates,
    find_missing,
    find_orphans,
    forget,
    keep_one,
    sweep_orphans,
)
from models_registry.scanning.scans import ask_for_scan, read_scan

MOST_LISTED: Final = 200
_SHA256_DIGITS: Final = 64


class AskForScan(Strict):
    """A look through the model folders."""

    again: bool = Field(default=False, description="Open everything, also what has not changed or was taken out.")


class ShelfQuery(Query):
    """Which part of a list."""

    limit: int = Field(default=50, ge=1, le=MOST_LISTED)
    cursor: str | None = None


class Missing(BaseModel):
    """Entries that cannot be drawn with."""

    items: list[MissingEntry]
    next_cursor: str | None


class Duplicates(BaseModel):
    """Contents that several entries have."""

    items: list[DuplicateContent]
    next_cursor: str | None


class Orphans(BaseModel):
    """Stored bytes that no entry has."""

    items: list[Orphan]
    next_cursor: str | None


class Forget(Strict):
    """Entries to forget."""

    ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000, strict=False)]


class Forgotten(BaseModel):
    """Entries that were deleted."""

    deleted: list[UUID]


class KeepOne(Strict):
    """The entry that stays."""

    id: UUID = Field(strict=False)


class OrphansRemoved(BaseModel):
    """Stored bytes that the keeper removes."""

    removed: int


async def request_scan(call: Call) -> Response:
    """Queue a scan."""
    async with call.services.pool.connection() as connection:
        scan = await ask_for_scan(connection, call.principal.owner, again=call.body(AskForScan).again)
    return json_answer(scan, HTTPStatus.ACCEPTED, {"location": f"/v1/library/scans/{scan.id}"})


async def read_one_scan(call: Call) -> Response:
    """Return a scan."""
    which = call.job()
    async with call.services.pool.connection() as connection:
        scan = await read_scan(connection, which)
    if scan is None:
        raise not_found()
    return json_answer(scan)


async def list_missing(call: Call) -> Response:
    """Return a page of entries whose files are away or damaged."""
    query = call.query(ShelfQuery)
    after = None if query.cursor is None else decode_cursor(query.cursor)
    async with call.services.pool.connection() as connection:
        found = await find_missing(connection, after, query.limit + 1)
    page = found[: query.limit]
    return json_answer(
        Missing(items=page, next_cursor=encode_cursor(page[-1].id) if len(found) > query.limit else None)
    )


async def forget_missing(call: Call) -> Response:
    """Delete entries whose files are away and that nobody needs."""
    async with call.services.pool.connection() as connection:
        return json_answer(Forgotten(deleted=await forget(connection, call.body(Forget).ids, unfinished_naming_async)))


async def list_duplicates(call: Call) -> Response:
    """Return a page of contents that several entries have."""
    query = call.query(ShelfQuery)
    after = _digest(query.cursor)
    async with call.services.pool.connection() as connection:
        found = await find_duplicates(connection, after, query.limit + 1)
    page = found[: query.limit]
    return json_answer(Duplicates(items=page, next_cursor=page[-1].sha256 if len(found) > query.limit else None))


async def keep_one_duplicate(call: Call) -> Response:
    """Keep one of several equal entries, and those that somebody needs still."""
    async with call.services.pool.connection() as connection:
        deleted = await keep_one(connection, call.body(KeepOne).id, unfinished_naming_async)
    if deleted is None:
        raise not_found()
    return json_answer(Forgotten(deleted=deleted))


async def list_orphans(call: Call) -> Response:
    """Return a page of stored bytes that no entry has."""
    query = call.query(ShelfQuery)
    after = _digest(query.cursor)
    try:
        async with call.services.pool.connection() as connection:
            found = await find_orphans(connection, call.services.storage, after, query.limit + 1)
    except StorageError:
        raise _away() from None
    page = found[: query.limit]
    return json_answer(Orphans(items=page, next_cursor=page[-1].sha256 if len(found) > query.limit else None))


async def remove_orphans(call: Call) -> Response:
    """Leave stored bytes that no entry has to the keeper."""
    try:
        async with call.services.pool.connection() as connection:
            removed = await sweep_orphans(connection, call.services.storage)
    except StorageError:
        raise _away() from None
    return json_answer(OrphansRemoved(removed=removed))


def _away() -> StorageUnavailable:
    return StorageUnavailable("The storage does not answer; try again later.")


def _digest(cursor: str | None) -> str | None:
    """Return the SHA-256 that a cursor is, raising `CursorInvalid`."""
    if cursor is not None and (len(cursor) != _SHA256_DIGITS or set(cursor) - set("0123456789abcdef")):
        raise CursorInvalid("The cursor is not one this list gave out.", field="cursor")
    return cursor
