"""Which entries have changed since the fleet looked at them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.analysing.analyses import KINDS, AnalysisSource
from models_registry.entries import Kind, ModelRef

# In no order: what cannot be asked now keeps nothing else from being asked.
_OUTDATED: Final = """
select models.id, models.kind, models.name, analyses.encoder from analyses join models on models.id = analyses.model
where analyses.source = %(source)s and analyses.seen_change <> models.changed_at and models.missing_since is null
    and models.kind = any (%(kinds)s)
order by random() limit %(limit)s
"""
_READERS: Final = """
select distinct on (fingerprint) fingerprint, name from models
where kind = 'checkpoint' and fingerprint = any (%(encoders)s) and missing_since is null order by fingerprint, found_at, id
"""


@dataclass(frozen=True)
class Outdated:
    """An entry that is another than when it was looked at."""

    id: UUID
    ref: ModelRef
    #: Fingerprint of the checkpoint that read its text; empty where its weights were looked at.
    encoder: str


def outdated(connection: "psycopg.Connection[Any]", source: AnalysisSource, limit: int) -> list[Outdated]:
    """Return some of the entries of which something else was looked at, file or text, than what they are now."""
    values = {"source": source, "kinds": list(KINDS[source]), "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_OUTDATED, values).fetchall()
    return [Outdated(row["id"], ModelRef(Kind(row["kind"]), row["name"]), row["encoder"]) for row in rows]


def readers_of(connection: "psycopg.Connection[Any]", encoders: Collection[str]) -> Mapping[str, ModelRef]:
    """Return which checkpoint has each of these fingerprints, the one known longest where several have."""
    if not encoders:
        return {}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_READERS, {"encoders": list(encoders)}).fetchall()
    return {row["fingerprint"]: ModelRef(Kind.CHECKPOINT, row["name"]) for row in rows}
