"""Scans that were asked for: written down by the API, done by the keeper, followed by whoever asked."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field

from models_registry.entries import Kind, ModelRef
from models_registry.reading.header_facts import clean
from models_registry.scanning.scan import Progress, ScanReport

#: Of each list in a report, so many are kept; the figures count all.
MOST_TOLD: Final = 1000
_COLUMNS: Final = "id, again, state, created_at, started_at, finished_at, seen, opened, report"
_ASK: Final = f"insert into model_scans (requested_by, again) values (%(by)s, %(again)s) returning {_COLUMNS}"
_READ: Final = f"select {_COLUMNS} from model_scans where id = %(id)s"
_BEGIN: Final = f"""
update model_scans set state = 'running', started_at = now(), seen = 0, opened = 0
where id = (select id from model_scans where state = 'queued' order by created_at limit 1) returning {_COLUMNS}
"""
_TELL: Final = "update model_scans set seen = %(seen)s, opened = %(opened)s where id = %(id)s"
_END: Final = "update model_scans set state = %(state)s, finished_at = now(), report = %(report)s where id = %(id)s"
_AGAIN: Final = "update model_scans set state = 'queued', started_at = null where state = 'running'"
_FORGET: Final = "delete from model_scans where finished_at < now() - interval '7 days'"


class RefusedPlace(BaseModel):
    """Something that looks like a model and is not offered."""

    path: str
    code: str
    reason: str


class NamedEntry(BaseModel):
    """An entry by what jobs call it."""

    kind: Kind
    ref: str


class FoundByScan(BaseModel):
    """What a scan found; lists are cut where they are long."""

    found: int = Field(description="How many entries are there.")
    added: list[NamedEntry]
    changed: list[NamedEntry]
    missing: list[NamedEntry]
    refused: list[RefusedPlace]
    error: str | None = Field(default=None, description="Why the scan failed.")


class LibraryScan(BaseModel):
    """A look through the fleet's model folders."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    again: bool = Field(
        description="Whether everything is opened, also what has not changed or was taken out of the library."
    )
    state: Literal["queued", "running", "done", "failed"]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    seen: int = Field(description="Files and folders looked at so far.")
    opened: int = Field(description="Those of them that were opened, because they are new or have changed.")
    report: FoundByScan | None


async def ask_for_scan(connection: "AsyncConnection[Any]", by: str, *, again: bool) -> LibraryScan:
    """Write a scan down; the keeper begins it when it has done those before."""
    async with connection.cursor(row_factory=class_row(LibraryScan)) as cursor:
        await cursor.execute(_ASK, {"by": by, "again": again})
        found = await cursor.fetchone()
    if found is None:
        raise LookupError("an insert returned no row")
    return found


async def read_scan(connection: "AsyncConnection[Any]", which: UUID) -> LibraryScan | None:
    """Return a scan, or None."""
    async with connection.cursor(row_factory=class_row(LibraryScan)) as cursor:
        await cursor.execute(_READ, {"id": which})
        return await cursor.fetchone()


def begin_scan(connection: "Connection[Any]") -> LibraryScan | None:
    """Take the scan that waits longest; None when none does."""
    with connection.cursor(row_factory=class_row(LibraryScan)) as cursor:
        return cursor.execute(_BEGIN).fetchone()


def tell_scan(connection: "Connection[Any]", which: UUID, progress: Progress) -> None:
    """Write down how far a scan is."""
    connection.execute(_TELL, {"id": which, "seen": progress.seen, "opened": progress.opened})


def end_scan(connection: "Connection[Any]", which: UUID, report: ScanReport | None, error: str | None = None) -> None:
    """Write down what a scan found, or why it failed."""
    told = _found(report, error)
    connection.execute(
        _END,
        {"id": which, "state": "done" if error is None else "failed", "report": Jsonb(told.model_dump(mode="json"))},
    )


def restart_scans(connection: "Connection[Any]") -> None:
    """Let scans begin anew whose keeper is gone, and forget those of long ago."""
    connection.execute(_AGAIN)
    connection.execute(_FORGET)


def _found(report: ScanReport | None, error: str | None) -> FoundByScan:
    if report is None:
        return FoundByScan(found=0, added=[], changed=[], missing=[], refused=[], error=clean(error or "", 500))
    return FoundByScan(
        found=len(report.found),
        added=_named(report.added),
        changed=_named(report.changed),
        missing=_named(report.missing),
        refused=[
            RefusedPlace(path=clean(str(path)), code=code, reason=clean(reason))
            for path, code, reason in report.refused[:MOST_TOLD]
        ],
    )


def _named(refs: Sequence[ModelRef]) -> list[NamedEntry]:
    return [NamedEntry(kind=ref.kind, ref=ref.name) for ref in refs[:MOST_TOLD]]
