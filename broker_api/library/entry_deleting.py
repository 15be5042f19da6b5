"""Delete entries that nobody needs: no pin holds them, and no unfinished job names them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from infra.database import AsyncConnection
from jobs.holding import unfinished_naming_async
from models_registry.entries import ModelRef
from models_registry.holders import LOCK
from models_registry.library import EntryInUse, delete_entries_async
from models_registry.records import Entry

_PINNED: Final = "select distinct model from model_pins where model = any (%(ids)s) and until > now()"


async def delete_all(connection: AsyncConnection, entries: Sequence[Entry]) -> Mapping[UUID, str]:
    """Delete all of the entries, or none and say why not by id; inside the caller's transaction."""
    values: dict[str, Any] = {"ids": [entry.id for entry in entries]}
    # A job that is accepted between the look at the jobs and the commit is refused its model by the worker that claims it.
    await connection.execute(LOCK)
    named = await unfinished_naming_async(connection, [ModelRef(entry.kind, entry.ref) for entry in entries])
    pinned = {row["model"] for row in await (await connection.execute(_PINNED, values)).fetchall()}
    refused = {
        entry.id: f"A job that has not ended names {entry.ref}."
        if ModelRef(entry.kind, entry.ref) in named
        else f"Somebody needs the files of {entry.ref} still."
        for entry in entries
        if ModelRef(entry.kind, entry.ref) in named or entry.id in pinned
    }
    if refused:
        return refused
    try:
        await delete_entries_async(connection, values["ids"])
    except EntryInUse as problem:
        # It was pinned in this moment.
        return {entry.id: problem.message for entry in entries}
    return {}
