"""Ask the fleet what is not known yet, and wait for it as long as the caller wants."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from broker_api.endpoints import Call, not_found
from broker_api.streaming.waiting import wait_for_end
from jobs.analysing.analyses import AnalysisSource, Grounds, ask_for_entries, open_jobs
from jobs.changes import Change
from models_registry.entries import Kind
from models_registry.library import RefAmbiguous, read_entry_async
from models_registry.records import Entry, Reader

#: Sees what is everyone's.
_ANYONE: Final = Reader("")
#: Jobs one answer waits for.
MOST_AWAITED: Final = 64
_ADAPTERS: Final = tuple(kind for kind in Kind if kind not in {Kind.CHECKPOINT, Kind.PREPROCESSOR})


def reader_of(call: Call) -> Reader:
    """Return who asks."""
    return call.principal.reader


async def grounds_of(call: Call, entry: Entry | None = None) -> Grounds:
    """Return the fleet's models and workers; the model that draws for everyone by default is the one whose text encoder reads."""
    snapshot = call.services.snapshots.now
    if entry is not None and entry.model.ref not in snapshot.catalogue.entries:
        # It may be newer than the snapshot.
        snapshot = await call.services.snapshots.refresh()
    return Grounds(snapshot.catalogue.entries, snapshot.fleet, snapshot.catalogue.seen_by(_ANYONE).default())


async def find_adapter(call: Call, which: str) -> Entry:
    """Return the adapter of an id or name, a LoRA before others of its name, raising `NotFound`."""
    try:
        wanted: UUID | str = UUID(which)
    except ValueError:
        wanted = which
    if "\x00" in which:
        raise not_found()
    reader = reader_of(call)
    async with call.services.pool.connection() as connection:
        found = await read_entry_async(connection, wanted, kinds=(Kind.LORA,), reader=reader)
        if found is None:
            try:
                found = await read_entry_async(connection, wanted, kinds=_ADAPTERS, reader=reader)
            except RefAmbiguous:
                found = None
    if found is None:
        raise not_found()
    return found


async def ask(
    call: Call,
    grounds: Grounds,
    sources: Sequence[AnalysisSource],
    *,
    first: UUID | None = None,
    alone: bool = False,
    again: bool = False,
) -> list[Change]:
    """Ask for what is missing, one entry's first or `alone`, and return the jobs that were made, announced already."""
    changes: list[Change] = []
    async with call.services.pool.connection() as connection:
        for source in sources:
            if first is not None:
                changes += await ask_for_entries(connection, grounds, source, only=[first], again=again)
            if not alone:
                changes += await ask_for_entries(connection, grounds, source, again=again)
    for change in changes:
        call.services.relay.announce(change)
    return changes


async def wait_for_analyses(call: Call, seconds: float) -> None:
    """Wait until the analyses that are asked for have ended, whoever asked, or so long."""
    if seconds <= 0:
        return
    async with call.services.pool.connection() as connection:
        jobs = await open_jobs(connection, MOST_AWAITED)
    if jobs:
        await wait_for_end(call.services.hub, jobs, seconds, call.request.receive)
