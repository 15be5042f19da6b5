"""One entry of the library: read, added from a file that the fleet sees, changed, marked, deleted; its versions, and what it fits."""

import os
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from broker_api.library.entry_deleting import delete_all
from broker_api.library.entry_finding import changeable_entry, entry_of_path, is_models, kinds_of
from broker_api.library.entry_forms import AddEntry, ChangeEntry, CompatibilityPage, CompatibilityQuery, Fit, SetMarks
from broker_api.library.entry_lists import AdapterPage, ModelPage, default_ref, uses_of
from broker_api.library.entry_refusals import InUse, PathRefused
from broker_api.library.entry_views import (
    AdapterDetail,
    OneModel,
    OpenAIModel,
    adapter_detail,
    adapter_view,
    door_of,
    model_detail,
    model_view,
)
from broker_api.library.file_refusals import refused
from broker_api.library.refusals import NameTaken
from infra.database import AsyncConnection
from infra.settings import Settings
from jobs.errors import ModelUnknown
from jobs.holding import unfinished_naming_async
from models_registry.compatibility import mismatch
from models_registry.contents import shelving
from models_registry.entries import ANY_FAMILY, Kind, ModelRef
from models_registry.holders import LOCK
from models_registry.library import RefTaken, read_entry_async, read_versions, update_entry_async
from models_registry.marks import mark
from models_registry.records import Entry, Facts
from models_registry.refusals import ModelRefused, NameInvalid
from models_registry.versions import join_ref

#: Without a model in the question, so many checkpoints are answered for.
_MOST_FITS = 200


async def read_one_entry(call: Call) -> Response:
    """Return an entry with everything that is known of it."""
    async with call.services.pool.connection() as connection:
        found = await entry_of_path(call, connection)
    return await _shown(call, found)


async def change_one_entry(call: Call) -> Response:
    """Change what is said of an entry; renaming waits until no unfinished job names it."""
    changes = call.body(ChangeEntry)
    given: dict[str, Any] = {name: getattr(changes, name) for name in changes.model_fields_set}
    aliases = given.pop("aliases", None)
    async with call.services.pool.connection() as connection:
        entry = await changeable_entry(call, connection)
        changes.check_range(entry.weight_min, entry.weight_max)
        ref = _new_ref(entry, given.pop("name", entry.name), given.pop("version", entry.version))
        async with connection.transaction():
            if ref is not None:
                await _refuse_in_use(connection, entry)
            try:
                await update_entry_async(connection, entry.id, given, ref=ref, aliases=aliases)
            except RefTaken as problem:
                raise NameTaken(problem.message, field=problem.field) from None
        entry = await _again(call, connection, entry)
    return await _shown(call, entry)


async def delete_one_entry(call: Call) -> Response:
    """Delete an entry that nobody needs any more."""
    async with call.services.pool.connection() as connection:
        entry = await changeable_entry(call, connection)
        async with connection.transaction():
            refused = await delete_all(connection, [entry])
            if refused:
                raise InUse(refused[entry.id])
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def add_entry(call: Call) -> Response:
    """Take a file or folder below the fleet's model folders in as an entry, where it lies."""
    wanted = call.body(AddEntry)
    path = _below_folders(wanted.path, call.services.settings)
    named = shelving.Wanted(
        name=wanted.name or path.stem, version=wanted.version, kind=None if wanted.kind is None else Kind(wanted.kind)
    )
    facts = Facts(owner=call.principal.owner, **wanted.facts())
    async with call.services.pool.connection() as connection:
        try:
            made = await shelving.take_in_async(connection, path, named, facts, storage=None)
        except ModelRefused as problem:
            raise refused(problem) from None
        found = await read_entry_async(connection, made.id)
    if found is None:
        raise PathRefused("The entry was deleted in the same moment.", field="path")
    view = await _detail(call, found)
    return json_answer(view, HTTPStatus.CREATED, {"location": door_of(found)})


async def list_entry_versions(call: Call) -> Response:
    """Return all versions of one model, the newest first."""
    reader = call.principal.reader
    async with call.services.pool.connection() as connection:
        entry = await entry_of_path(call, connection)
        found = await read_versions(connection, entry.kind, entry.name, reader=reader)
    uses = await uses_of(call, found)
    if not is_models(call):
        return json_answer(AdapterPage(items=[adapter_view(each, reader, uses(each)) for each in found]))
    default = await default_ref(call)
    items = [model_view(each, reader, uses(each), is_default=each.ref == default) for each in found]
    return json_answer(ModelPage(items=items, data=[OpenAIModel(id=each.ref) for each in found]))


async def set_marks(call: Call) -> Response:
    """Set what the caller thinks of an entry; what is left out stays."""
    given = call.body(SetMarks)
    async with call.services.pool.connection() as connection:
        entry = await entry_of_path(call, connection)
        marks = {name: getattr(given, name) for name in given.model_fields_set}
        async with connection.transaction():
            await mark(connection, call.principal.owner, [entry.id], marks)
        entry = await _again(call, connection, entry)
    return json_answer(entry.marks)


async def check_compatibility(call: Call) -> Response:
    """Say which checkpoints an adapter fits, and why not the others."""
    asked = call.query(CompatibilityQuery).model
    catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    async with call.services.pool.connection() as connection:
        adapter = (await entry_of_path(call, connection)).model
    if asked is None:
        checkpoints = catalogue.of_kind(Kind.CHECKPOINT)[:_MOST_FITS]
    else:
        found = catalogue.find(asked)
        if found is None:
            raise ModelUnknown(f"No model is named {asked[:100]!r}.", field="model")
        checkpoints = (found,)
    items = []
    for checkpoint in checkpoints:
        problem = None if adapter.family == ANY_FAMILY else mismatch(adapter, checkpoint)
        items.append(Fit(model=checkpoint.name, fits=problem is None, reason=problem))
    return json_answer(CompatibilityPage(items=items))


def _below_folders(text: str, settings: Settings) -> Path:
    folders = [Path(folder) for folder in settings.models.split(os.pathsep) if folder]
    folders.append(settings.home.absolute() / "models")
    # Not followed: where a link leads, `take_in` looks.
    path = Path(os.path.abspath(text))  # noqa: PTH100
    if not any(path != folder and path.is_relative_to(os.path.abspath(folder)) for folder in folders):  # noqa: PTH100
        raise PathRefused("The path is not below one of the fleet's model folders.", field="path")
    if not path.exists():
        raise PathRefused("There is nothing at this path.", field="path")
    return path


def _new_ref(entry: Entry, name: str, version: str) -> str | None:
    ref = join_ref(name, version)
    if ref == entry.ref:
        return None
    try:
        shelving.check_name(entry.path, shelving.Wanted(name=name, version=version))
    except NameInvalid as problem:
        answer = refused(problem)
        answer.field = "name"
        raise answer from None
    return ref


async def _refuse_in_use(connection: AsyncConnection, entry: Entry) -> None:
    ref = ModelRef(entry.kind, entry.ref)
    await connection.execute(LOCK)
    if ref in await unfinished_naming_async(connection, [ref]):
        raise InUse(f"A job that has not ended names {entry.ref}: it cannot be renamed yet.")


async def _again(call: Call, connection: AsyncConnection, entry: Entry) -> Entry:
    found = await read_entry_async(connection, entry.id, kinds=kinds_of(call), reader=call.principal.reader)
    return entry if found is None else found


async def _shown(call: Call, entry: Entry) -> Response:
    return json_answer(await _detail(call, entry))


async def _detail(call: Call, entry: Entry) -> AdapterDetail | OneModel:
    reader, uses = call.principal.reader, (await uses_of(call, [entry]))(entry)
    if entry.kind is Kind.CHECKPOINT:
        return model_detail(entry, reader, uses, is_default=entry.ref == await default_ref(call))
    return adapter_detail(entry, reader, uses)
