"""Which entry a path means, and whether the caller may change it."""

from typing import Final
from uuid import UUID

from broker_api.endpoints import Call, not_found
from broker_api.library.entry_refusals import NameAmbiguous
from broker_api.library.entry_views import may_change
from broker_api.refusals import Forbidden
from infra.database import AsyncConnection
from models_registry.entries import Kind
from models_registry.library import RefAmbiguous, read_entry_async
from models_registry.records import Entry

MODELS: Final = "/v1/models"
_ADAPTERS: Final = tuple(kind for kind in Kind if kind is not Kind.CHECKPOINT)
_UUID_LENGTH: Final = 36


def kinds_of(call: Call) -> tuple[Kind, ...]:
    """Return the kinds that the path is about."""
    return (Kind.CHECKPOINT,) if is_models(call) else _ADAPTERS


def is_models(call: Call) -> bool:
    """Tell whether the path is about checkpoints."""
    path: str = call.request.scope["route_path"]
    return path.startswith(MODELS)


async def entry_of_path(call: Call, connection: AsyncConnection) -> Entry:
    """Return the entry of the path's id or name, raising `NotFound`, alike for an unknown and a foreign one, or `NameAmbiguous`."""
    text: str = call.request.path_params["id"]
    if "\x00" in text or not text.isprintable():
        raise not_found()
    try:
        found = await read_entry_async(
            connection, _id_or_name(text), kinds=kinds_of(call), reader=call.principal.reader
        )
    except RefAmbiguous as problem:
        raise NameAmbiguous(problem.message, field="id") from None
    if found is None:
        raise not_found()
    return found


async def changeable_entry(call: Call, connection: AsyncConnection) -> Entry:
    """Return the entry of the path, raising `Forbidden` besides when it is not the caller's to change."""
    found = await entry_of_path(call, connection)
    if not may_change(found, call.principal.reader):
        raise Forbidden("Only who added it, or an admin, may change it.")
    return found


def _id_or_name(text: str) -> UUID | str:
    try:
        return UUID(text) if len(text) == _UUID_LENGTH else text
    except ValueError:
        return text
