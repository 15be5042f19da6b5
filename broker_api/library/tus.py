"""/v1/files: uploads in pieces that go on where they were broken off, by the protocol tus 1.0.

Core, creation, checksum, expiration and termination. What arrives is kept in storage piece by piece, also when the connection breaks in the
middle of a request; a request with a checksum is kept whole or not at all.
"""

import base64
import binascii
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from email.utils import format_datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from uuid_utils.compat import uuid7

from broker_api.endpoints import Call, not_found, parse_id
from broker_api.http.answers import json_answer
from broker_api.library.pull_refusals import (
    ChecksumMismatch,
    FileTooLarge,
    OffsetMismatch,
    TooManyDownloads,
    TusUnsupported,
)
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import BodyTimeout, BodyTooLarge, HeaderInvalid, MediaTypeUnsupported, StorageUnavailable
from broker_api.services import Services
from infra.storage import StorageError
from models_registry.pulls.pieces import (
    MOST_OPEN,
    ModelUpload,
    Piece,
    add_upload,
    delete_upload,
    extend_upload,
    piece_key,
    read_upload,
)

VERSION: Final = "1.0.0"
MEDIA_TYPE: Final = "application/offset+octet-stream"
EXTENSIONS: Final = "creation,checksum,expiration,termination"
ALGORITHMS: Final = ("sha1", "sha256", "md5")
#: Bytes of one object in storage, and of one upload in memory.
PIECE: Final = 8 * 1024 * 1024
_RESUMABLE: Final = {"tus-resumable": VERSION}
_LONGEST_METADATA: Final = 8 * 1024
_MOST_DIGITS: Final = 18
_HOUR: Final = 3600


class FileUploadView(BaseModel):
    """A file that arrives in pieces."""

    id: UUID
    metadata: dict[str, str]
    bytes: int
    received: int
    expires_at: AwareDatetime = Field(description="Forgotten then, unless it is gone on with.")
    model: UUID | None = Field(description="The entry that it became.")
    created_at: AwareDatetime


async def describe_tus(call: Call) -> Response:
    """Say what of tus is spoken here."""
    headers = {
        **_RESUMABLE,
        "tus-version": VERSION,
        "tus-extension": EXTENSIONS,
        "tus-max-size": str(call.services.settings.max_model_bytes),
        "tus-checksum-algorithm": ",".join(ALGORITHMS),
    }
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=headers)


async def create_file(call: Call) -> Response:
    """Begin an upload."""
    _check_version(call.request)
    settings = call.services.settings
    size = _number(call.request, "upload-length")
    if size > settings.max_model_bytes:
        raise FileTooLarge(f"At most {settings.max_model_bytes} bytes are taken.", field="Upload-Length")
    metadata = _metadata(call.request.headers.get("upload-metadata", ""))
    async with call.services.pool.connection() as connection:
        made = await add_upload(
            connection,
            uuid7(),
            call.principal.owner,
            metadata,
            size=size,
            seconds=settings.upload_hours * _HOUR,
        )
    if made is None:
        raise TooManyDownloads(f"{MOST_OPEN} uploads of yours are open: finish some, or delete them.")
    headers = {**_headers(made), "location": f"/v1/files/{made.id}"}
    return json_answer(_view(made), HTTPStatus.CREATED, headers)


async def read_file(call: Call) -> Response:
    """Say how much of a file is there; to HEAD by headers alone, as tus wants it."""
    found = await _read(call)
    return json_answer(_view(found), headers=_headers(found))


async def append_file(call: Call) -> Response:
    """Take more bytes of a file."""
    request, services = call.request, call.services
    _check_version(request)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise MediaTypeUnsupported(f"Send the bytes as {MEDIA_TYPE}.", field="Content-Type")
    start = _number(request, "upload-offset")
    checksum = _checksum(request.headers.get("upload-checksum"))
    found = await _read(call)
    if found.received != start or found.model is not None:
        raise _moved(found.received)
    if checksum is None:
        await _append(services, found, request)
    else:
        await _append_checked(services, found, request, *checksum)
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=_headers(await _read(call)))


async def delete_file(call: Call) -> Response:
    """Forget an upload; an entry that it became stays."""
    _check_version(call.request)
    async with call.services.pool.connection() as connection:
        if not await delete_upload(connection, call.principal.owner, _id(call)):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=_RESUMABLE)


async def _append(services: Services, upload: ModelUpload, request: Request) -> None:
    """Keep each piece as soon as it is there."""
    at = upload.received
    async for data in _pieces(request, upload.bytes - at):
        piece = await _store(services, upload.id, at, data)
        if not await _record(services, upload.id, at, [piece]):
            raise _moved(at)
        at += len(data)


async def _append_checked(
    services: Services, upload: ModelUpload, request: Request, algorithm: str, expected: bytes
) -> None:
    """Keep all pieces of a request once its checksum is right, or none."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    pieces: list[Piece] = []
    at = upload.received
    try:
        async for data in _pieces(request, upload.bytes - at, whole=True):
            digest.update(data)
            pieces.append(await _store(services, upload.id, at, data))
            at += len(data)
        _check_digest(algorithm, digest.digest(), expected)
    except BaseException:
        await _drop(services, pieces)
        raise
    if pieces and not await _record(services, upload.id, upload.received, pieces):
        raise _moved(upload.received)


def _check_digest(algorithm: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise ChecksumMismatch(f"The {algorithm} of the request's bytes is another.", field="Upload-Checksum")


async def _pieces(request: Request, most: int, *, whole: bool = False) -> AsyncIterator[bytes]:
    """Yield the body in pieces; of one that breaks off, what came before as well, unless it counts only as a whole."""
    waiting = bytearray()
    seen = 0
    broken: Exception | None = None
    try:
        async for chunk in request.stream():
            seen += len(chunk)
            if seen > most:
                raise FileTooLarge("More bytes come than the upload was announced with.", field="Upload-Length")
            waiting += chunk
            while len(waiting) >= PIECE:
                yield bytes(waiting[:PIECE])
                del waiting[:PIECE]
    except (ClientDisconnect, BodyTimeout, BodyTooLarge) as problem:
        broken = problem
    if waiting and not (broken and whole):
        yield bytes(waiting)
    if broken is not None:
        raise broken


async def _store(services: Services, upload: UUID, start: int, data: bytes) -> Piece:
    piece = Piece(start, len(data), piece_key(upload, start))
    try:
        await services.storage.put_async(piece.key, data)
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not take the bytes: {problem}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None
    return piece


async def _record(services: Services, upload: UUID, start: int, pieces: list[Piece]) -> bool:
    seconds = services.settings.upload_hours * _HOUR
    try:
        async with services.pool.connection() as connection:
            recorded = await extend_upload(connection, upload, start, pieces, seconds=seconds)
    except BaseException:
        await _drop(services, pieces)
        raise
    if not recorded:
        await _drop(services, pieces)
    return recorded


async def _drop(services: Services, pieces: list[Piece]) -> None:
    for piece in pieces:
        # What stays behind, the keeper finds.
        with contextlib.suppress(StorageError):
            await services.storage.delete_async(piece.key)


async def _read(call: Call) -> ModelUpload:
    async with call.services.pool.connection() as connection:
        found = await read_upload(connection, call.principal.owner, _id(call))
    if found is None:
        raise not_found()
    return found


def _id(call: Call) -> UUID:
    return parse_id(call.request.path_params["id"])


def _moved(received: int) -> OffsetMismatch:
    return OffsetMismatch(
        f"The upload goes on from byte {received}.",
        field="Upload-Offset",
        headers={**_RESUMABLE, "upload-offset": str(received)},
    )


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise TusUnsupported(
            f"Send the header `Tus-Resumable: {VERSION}`.",
            field="Tus-Resumable",
            headers={**_RESUMABLE, "tus-version": VERSION},
        )


def _number(request: Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise HeaderInvalid("The header must be a number of bytes.", field=name.title())
    return int(text)


def _metadata(text: str) -> Mapping[str, str]:
    """Read `name base64,name base64`."""
    if len(text) > _LONGEST_METADATA:
        raise HeaderInvalid(f"The header is longer than {_LONGEST_METADATA} bytes.", field="Upload-Metadata")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = pair.partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (ValueError, binascii.Error):
            raise HeaderInvalid("A value is not base64 of UTF-8.", field="Upload-Metadata") from None
        if "\0" in found[name] or not name.isprintable():
            raise HeaderInvalid("A name or value holds characters that cannot be kept.", field="Upload-Metadata")
    return found


def _checksum(text: str | None) -> tuple[str, bytes] | None:
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise HeaderInvalid(f"Use one of {', '.join(ALGORITHMS)}.", field="Upload-Checksum")
    try:
        return algorithm, base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise HeaderInvalid("The checksum is not base64.", field="Upload-Checksum") from None


def _headers(upload: ModelUpload) -> dict[str, str]:
    headers = {
        **_RESUMABLE,
        "upload-offset": str(upload.received),
        "upload-length": str(upload.bytes),
        "upload-expires": format_datetime(upload.expires_at, usegmt=True),
        "cache-control": "no-store",
    }
    if upload.metadata:
        headers["upload-metadata"] = ",".join(
            f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in upload.metadata.items()
        )
    return headers


def _view(upload: ModelUpload) -> FileUploadView:
    return FileUploadView(
        id=upload.id,
        metadata=dict(upload.metadata),
        bytes=upload.bytes,
        received=upload.received,
        expires_at=upload.expires_at,
        model=upload.model,
        created_at=upload.created_at,
    )
