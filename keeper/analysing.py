"""Ask anew for what was found out of entries that have changed since: jobs that the fleet gives itself."""

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final
from uuid import UUID

import psycopg

from infra.database import CONNECT, connection_string
from infra.logging import get_logger
from jobs.analysing.analyses import KINDS, AnalysisSource, Grounds, ask_for_entries, is_answered
from jobs.analysing.outdated import outdated, readers_of
from jobs.changes import Change
from jobs.fleet import Fleet
from models_registry.catalogue import find_all

#: Entries that are looked at each time, of each source.
MOST: Final = 100
#: Whoever else asks now must not hold up the sweeping of leases.
_SECONDS: Final = 2.0

NOT_ASKED: Final = "analyses_not_asked"

log = get_logger(__name__)


def ask_anew(connection: "psycopg.Connection[Any]", database_url: str, fleet: Fleet) -> list[Change]:
    """Ask for some of what is no longer right, where a worker answers, and return the changes to announce.

    What nobody has asked for yet stays unasked; texts are read by the checkpoint that read them before.
    """
    changes: list[Change] = []
    if not is_answered(Grounds({}, fleet, None)):
        return changes
    for source in KINDS:
        found = sorted(outdated(connection, source, MOST), key=lambda each: each.encoder)
        readers = readers_of(connection, {each.encoder for each in found} - {""})
        for encoder, group in groupby(found, key=lambda each: each.encoder):
            these, reader = list(group), readers.get(encoder)
            refs = {each.ref for each in these}
            models = find_all(connection, refs if reader is None else refs | {reader})
            grounds = Grounds(models, fleet, None if reader is None else models.get(reader))
            try:
                changes += asyncio.run(_ask(database_url, grounds, source, [each.id for each in these]))
            except psycopg.Error as problem:
                # The next round asks again.
                log.warning(NOT_ASKED, problem=str(problem))
    return changes


async def _ask(database_url: str, grounds: Grounds, source: AnalysisSource, entries: Sequence[UUID]) -> list[Change]:
    # Jobs are stored by the API's own statement, which is asynchronous.
    url = connection_string(database_url, application_name="keeper analyses", statement_seconds=_SECONDS)
    async with await psycopg.AsyncConnection.connect(url, **CONNECT) as connection:
        return await ask_for_entries(connection, grounds, source, only=entries, limit=MOST)
