"""POST /v1/adapters/upload and /v1/models/upload: take a model's file in, from the form itself or from an upload in pieces."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from broker_api.endpoints import Call, not_found, parse_id
from broker_api.http.answers import json_answer
from broker_api.library.downloads import Described
from broker_api.library.forms import check_room, read_file_form
from broker_api.library.pull_refusals import FormInvalid, UploadUnfinished
from broker_api.library.taking_in import incoming, room_of, take_in_file, view_of
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import StorageUnavailable
from broker_api.services import Services
from infra.storage import Storage, StorageError
from models_registry.contents.shelving import Wanted
from models_registry.entries import Kind
from models_registry.library import read_entry_async
from models_registry.pulls.model_names import ModelName
from models_registry.pulls.pieces import ModelUpload, Piece, finish_upload, read_pieces, read_upload
from models_registry.records import Facts

#: Fields that may come several times, or once with commas.
_LISTS: Final = ("tags", "trigger_words")


class UploadForm(Described):
    """What a form says of the file; texts, as forms have them."""

    name: ModelName
    weight: float | None = Field(default=None, ge=-10, le=10, strict=False)
    upload: str | None = Field(
        default=None, description="Id of an upload in pieces that is complete, in place of `file`."
    )


async def upload_adapter(call: Call) -> Response:
    """Take in a file of any kind."""
    return await _upload(call, None)


async def upload_model(call: Call) -> Response:
    """Take in a checkpoint."""
    return await _upload(call, Kind.CHECKPOINT)


async def _upload(call: Call, kind: Kind | None) -> Response:
    services = call.services
    async with incoming(services.settings) as place:
        form = await read_file_form(call.request, place, room_of(services.settings))
        sent = parse_form(form.fields)
        if (form.filename is None) == (sent.upload is None):
            raise FormInvalid(
                "Send either a file in the field `file`, or the id of an upload in `upload`.", field="file"
            )
        if kind is not None and sent.kind not in {None, kind}:
            raise FormInvalid(f"This path takes the kind {kind} alone; others go to /v1/adapters/upload.", field="kind")
        earlier = None
        if sent.upload is not None:
            earlier = await _read_upload(call, sent.upload)
            if earlier.model is not None:
                # The answer to the first time was lost on its way.
                return await _answer(call, earlier.model, HTTPStatus.OK)
            await _join(services, earlier, place)
        wanted = Wanted(sent.name, sent.version, kind or sent.kind, sent.sha256)
        made = await take_in_file(services, place, wanted, _facts(call.principal.owner, sent))
        if earlier is not None:
            async with services.pool.connection() as connection:
                await finish_upload(connection, earlier.id, made)
    return await _answer(call, made, HTTPStatus.CREATED)


def parse_form(fields: Mapping[str, list[str]]) -> UploadForm:
    """Read the fields of a form; an empty one counts as left out, and one that comes twice is refused unless it is a list."""
    values: dict[str, Any] = {}
    for name, texts in fields.items():
        if name in _LISTS:
            values[name] = [word.strip() for text in texts for word in text.split(",") if word.strip()]
        elif len(texts) > 1:
            raise FormInvalid("The field comes more than once.", field=name[:100])
        elif texts[0]:
            values[name] = texts[0]
    return UploadForm.model_validate(values)


def _facts(owner: str, sent: UploadForm) -> Facts:
    return Facts(
        owner=owner,
        visibility=sent.visibility,
        description=sent.description,
        licence=sent.licence,
        base_model=sent.base_model,
        tags=sent.tags,
        trigger_words=sent.trigger_words,
        weight=sent.weight,
    )


async def _read_upload(call: Call, text: str) -> ModelUpload:
    async with call.services.pool.connection() as connection:
        found = await read_upload(connection, call.principal.owner, parse_id(text))
    if found is None:
        raise not_found()
    if found.received != found.bytes:
        raise UploadUnfinished(f"{found.received} of {found.bytes} bytes have arrived.", field="upload")
    return found


async def _join(services: Services, upload: ModelUpload, place: Path) -> None:
    """Put the pieces of an upload together."""
    async with services.pool.connection() as connection:
        pieces = await read_pieces(connection, upload.id)
    await asyncio.to_thread(check_room, room_of(services.settings), place.parent, upload.bytes)
    try:
        await asyncio.to_thread(_join_pieces, services.storage, pieces, place)
    except StorageError as problem:
        raise StorageUnavailable(
            f"The storage does not give the upload back: {problem}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None


def _join_pieces(storage: Storage, pieces: list[Piece], place: Path) -> None:
    with place.open("wb") as file:
        for piece in pieces:
            for chunk in storage.stream(piece.key):
                file.write(chunk)


async def _answer(call: Call, model: UUID, status: HTTPStatus) -> Response:
    async with call.services.pool.connection() as connection:
        entry = await read_entry_async(connection, model)
    if entry is None:
        raise not_found()
    return json_answer(view_of(entry), status)
