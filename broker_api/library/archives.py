"""Export and import: archives as they stream out, and as they come in over the disk."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO, Final, Self, cast
from uuid import UUID

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from broker_api.library.archive_connections import own_connection
from broker_api.library.archive_refusals import refused
from broker_api.library.recipe_views import reader_of
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import MediaTypeUnsupported, StorageUnavailable
from broker_api.services import Services
from infra.database import Connection
from infra.settings import Settings
from infra.storage import StorageError
from jobs.holding import unfinished_naming
from jobs.parts import Name, Strict
from models_registry.archives.exporting import Collected, Selection, collect, export
from models_registry.archives.importing import import_archive
from models_registry.archives.manifest import Files
from models_registry.archives.planning import Options
from models_registry.archives.reading import open_archive
from models_registry.archives.refusals import ArchiveInvalid, ArchiveRefused
from models_registry.archives.report import Conflict, ImportReport
from models_registry.entries import Kind
from models_registry.records import Reader

MEDIA_TYPES: Final = ("application/zip", "application/octet-stream")
MOST_CHOSEN: Final = 10_000
_FORM: Final = "multipart/form-data"
_FIELD: Final = "file"
#: Written to the disk at once.
_BATCH: Final = 1024 * 1024


class ArchiveFilter(Strict):
    """Which entries, where no ids are given; all that is said must hold."""

    kinds: Annotated[list[Kind], Field(strict=False, max_length=10)] | None = None
    families: Annotated[list[Name], Field(max_length=20)] | None = None
    tag: Name | None = None
    own: bool = Field(default=False, description="Only those one has added.")
    active: bool = Field(default=False, description="Only those of one's stack.")
    favourite: bool = False


class Export(Strict):
    """What to export: by default every entry that one sees, and one's recipes."""

    entries: list[UUID] | None = Field(default=None, max_length=MOST_CHOSEN, description="Ids; none for an empty list.")
    filter: ArchiveFilter | None = None
    recipes: list[UUID] | None = Field(
        default=None, max_length=MOST_CHOSEN, description="Ids of recipes; left out, all."
    )
    files: Files = Field(default="reference", description="`include` the files themselves, or only their hashes.")

    @model_validator(mode="after")
    def _chooses_once(self) -> Self:
        if self.entries is not None and self.filter is not None:
            raise PydanticCustomError("selection_twice", "Choose by `entries` or by `filter`, not by both")
        return self

    @property
    def selection(self) -> Selection:
        """Return it as the registry takes it."""
        chosen = self.filter or ArchiveFilter()
        return Selection(
            entries=self.entries, kinds=chosen.kinds, families=chosen.families, tag=chosen.tag, own=chosen.own, active=chosen.active,
            favourite=chosen.favourite, recipes=self.recipes,
        )  # fmt: skip


class Estimate(BaseModel):
    """What an export would be."""

    entries: int
    recipes: int
    previews: int
    files: int
    bytes: int = Field(description="Size of the archive, to within some kilobytes.")
    without_files: list[str] = Field(description="Entries whose files are away: they would be exported without them.")


class ImportQuery(Query):
    """How to import."""

    dry_run: bool = Field(default=False, description="Only say what would become of the archive: nothing is stored.")
    conflict: Conflict = Field(default="skip", description="What to do where an entry of another content has the name.")


async def estimate_export(call: Call) -> Response:
    """Say how large an export would be."""
    wanted = call.body(Export)

    def look() -> Estimate:
        with own_connection(call.services) as connection:
            found = _collect(call.services, connection, wanted, reader_of(call))
        found.close()
        return Estimate(
            entries=found.entries.rows, recipes=found.recipes.rows, previews=len(found.previews), files=len(found.sources),
            bytes=found.bytes, without_files=found.without_files,
        )  # fmt: skip

    return json_answer(await asyncio.to_thread(look))


async def export_archive(call: Call) -> Response:
    """Stream an archive."""
    wanted, services = call.body(Export), call.services
    undo = ExitStack()

    def begin() -> Iterator[bytes]:
        connection = undo.enter_context(own_connection(services))
        try:
            found = _collect(services, connection, wanted, reader_of(call))
        except BaseException:
            undo.close()
            raise
        return export(connection, services.storage, found)

    chunks = await asyncio.to_thread(begin)
    name = f"imagefleet-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"
    return StreamingResponse(
        in_thread(chunks, undo.close),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"},
    )


async def import_one_archive(call: Call) -> Response:
    """Import an archive that comes as the body, or as a form's field."""
    query = call.query(ImportQuery)
    settings = call.services.settings
    options = Options(reader_of(call), query.conflict, query.dry_run, model_folders(settings), unfinished_naming)

    def take(file: BinaryIO) -> ImportReport:
        with own_connection(call.services) as connection:
            return import_archive(
                connection, call.services.storage, open_archive(file, settings.max_model_bytes), options
            )

    report = await with_body(call.request, take)
    return json_answer(report, HTTPStatus.OK if query.dry_run else HTTPStatus.CREATED)


async def with_body(request: Request, take: Callable[[BinaryIO], Any]) -> Any:
    """Call a function, in a thread, with the archive of a request, as it lies on the disk; an `ArchiveRefused` becomes an answer."""
    media_type = request.headers.get("content-type", MEDIA_TYPES[-1]).partition(";")[0].strip().lower()
    try:
        if media_type == _FORM:
            return await _with_form(request, take)
        if media_type not in MEDIA_TYPES:
            raise MediaTypeUnsupported(
                f"This path does not read {media_type[:100]!r}: send the archive as `application/zip`, or as the field "
                f"`{_FIELD}` of a form.",
                field="Content-Type",
            )
        with tempfile.TemporaryFile(prefix="imagefleet-archive-") as file:
            await _spool(request, file)
            return await asyncio.to_thread(take, cast("BinaryIO", file))
    except ArchiveRefused as reason:
        raise refused(reason) from None
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not answer: {problem}. Nothing was imported.",
            headers={"retry-after": str(RETRY_SECONDS)},
        ) from None


async def in_thread(chunks: Iterator[bytes], close: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield what an iterator yields in a thread, and close it and all it stands on, also when nobody wants the rest."""
    pending: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            pending = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            chunk = await asyncio.shield(pending)
            if chunk is None:
                return
            if chunk:
                yield chunk
    finally:
        if pending is not None and not pending.done():
            await asyncio.wait([pending])
        await asyncio.to_thread(_end, chunks, close)


def model_folders(settings: Settings) -> list[Path]:
    """Return the folders in which the fleet's entries lie."""
    return [settings.home.absolute() / "models", *(Path(each) for each in settings.models.split(os.pathsep) if each)]


def _end(chunks: Iterator[bytes], close: Callable[[], None]) -> None:
    ending = getattr(chunks, "close", None)
    if ending is not None:
        ending()
    close()


def _collect(services: Services, connection: Connection, wanted: Export, reader: Reader) -> Collected:
    try:
        return collect(connection, services.storage, wanted.selection, reader, wanted.files)
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not answer: {problem}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None


async def _spool(request: Request, file: IO[bytes]) -> None:
    waiting: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        waiting.append(chunk)
        size += len(chunk)
        if size >= _BATCH:
            await asyncio.to_thread(file.write, b"".join(waiting))
            waiting, size = [], 0
    await asyncio.to_thread(file.write, b"".join(waiting))


async def _with_form(request: Request, take: Callable[[BinaryIO], Any]) -> Any:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            sent = form.get(_FIELD)
            if isinstance(sent, UploadFile):
                return await asyncio.to_thread(take, sent.file)
    except HTTPException as problem:
        raise ArchiveInvalid(f"The form cannot be read: {problem.detail}") from None
    raise ArchiveInvalid(f"The form has no file in the field `{_FIELD}`")
