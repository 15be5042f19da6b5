"""How far the fleet's look at its models is: entry by entry, and counted."""

from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from pydantic import BaseModel, Field

from jobs.analysing.analyses import KINDS, AnalysisSource
from models_registry.library import VISIBLE, who
from models_registry.records import Reader

AnalysisState = Literal["missing", "queued", "ready", "stale", "failed"]

_KNOWN: Final = """(analyses.source = 'weights' and exists (select from likeness_signatures found
        where found.fingerprint = analyses.content)
    or analyses.source = 'text' and exists (select from likeness_texts found
        where found.encoder = analyses.encoder and found.digest = analyses.content))"""
_STANDING: Final = f"""
select models.id, models.name as ref, models.kind, looked.source,
    case when analyses.model is null then 'missing' when jobs.state in ('queued', 'running') then 'queued'
        when {_KNOWN} then case when analyses.seen_change = models.changed_at then 'ready' else 'stale' end
        when jobs.state = 'failed' then 'failed' else 'missing' end as state,
    case when not {_KNOWN} then jobs.error_message end as message
from models cross join (values ('weights', %(weight_kinds)s::text[]), ('text', %(text_kinds)s::text[])) looked (source, kinds)
left join analyses on analyses.model = models.id and analyses.source = looked.source
left join jobs on jobs.id = analyses.job
where models.missing_since is null and models.kind = any (looked.kinds) and {VISIBLE}
"""
_ENTRIES: Final = f"""
with page as (
    select models.id from models where models.missing_since is null and models.kind = any (%(text_kinds)s) and {VISIBLE}
        and (%(after)s::uuid is null or models.id > %(after)s) and (%(only)s::uuid is null or models.id = %(only)s)
    order by models.id limit %(limit)s
)
select * from ({_STANDING}) standing where id in (select id from page) order by id, source
"""
_COUNTS: Final = f"select source, state, count(*) as entries from ({_STANDING}) standing group by source, state"
_TOTALS: Final = """
select (select count(*) from likeness_comparisons) as comparisons, (select count(*) from taste_feedback where helpful > 0) as helpful,
    (select count(*) from taste_feedback where helpful < 0) as unhelpful
"""


class SourceStatus(BaseModel):
    """How far one source is with an entry."""

    state: AnalysisState = Field(
        description="`stale` is still used, and looked at again; `missing` until somebody asks."
    )
    message: str | None = Field(default=None, description="Why it failed.")


class EntryStatus(BaseModel):
    """What is known of an entry."""

    id: UUID
    ref: str
    kind: str
    weights: SourceStatus | None = Field(default=None, description="LoRAs alone.")
    text: SourceStatus | None = None


class Totals(BaseModel):
    """What is known in all."""

    weights: dict[AnalysisState, int]
    text: dict[AnalysisState, int]
    comparisons: int = Field(description="Pairs of LoRAs whose updates were compared exactly.")
    helpful: int
    unhelpful: int


def _values(reader: Reader) -> dict[str, Any]:
    return {"weight_kinds": list(KINDS["weights"]), "text_kinds": list(KINDS["text"]), **who(reader)}


async def read_statuses(
    connection: "psycopg.AsyncConnection[Any]",
    reader: Reader,
    *,
    after: UUID | None,
    only: UUID | None,
    limit: int,
) -> Sequence[EntryStatus]:
    """Return how far entries are, in the order of their ids."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ENTRIES, _values(reader) | {"after": after, "only": only, "limit": limit})
        rows = await cursor.fetchall()
    found: dict[UUID, EntryStatus] = {}
    for row in rows:
        entry = found.setdefault(row["id"], EntryStatus(id=row["id"], ref=row["ref"], kind=row["kind"]))
        setattr(entry, row["source"], SourceStatus(state=row["state"], message=row["message"]))
    return list(found.values())


async def read_totals(connection: "psycopg.AsyncConnection[Any]", reader: Reader) -> Totals:
    """Count what exists for the reader."""
    counts: dict[AnalysisSource, dict[AnalysisState, int]] = {"weights": {}, "text": {}}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_COUNTS, _values(reader))
        for row in await cursor.fetchall():
            counts[row["source"]][row["state"]] = row["entries"]
        await cursor.execute(_TOTALS)
        totals = await cursor.fetchone() or {}
    return Totals(**counts, **totals)
