"""Read the table of models.

Functions on `psycopg.Connection` are for workers and the command line, those on `AsyncConnection` for the API;
connections are in autocommit mode.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from models_registry.entries import ModelEntry, ModelRef
from models_registry.following import Follower, read_offers
from models_registry.offers import Catalogue
from models_registry.rows import FIELDS, entry_of

_FIND = f"""
SELECT {", ".join(FIELDS)} FROM models
WHERE (kind, name) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND missing_since IS NULL
"""


async def load_catalogue(conn: AsyncConnection[Any]) -> Catalogue:
    """Read all models; who asks again and again keeps a `Follower` instead."""
    return await Follower().refresh(conn)


def read_catalogue(conn: Connection[Any]) -> Catalogue:
    """Read all models in one statement."""
    return read_offers(conn)


def find(conn: Connection[Any], ref: ModelRef) -> ModelEntry | None:
    """Return the offered model of exactly this kind and name, in one statement."""
    return find_all(conn, [ref]).get(ref)


def find_all(conn: Connection[Any], refs: Collection[ModelRef]) -> Mapping[ModelRef, ModelEntry]:
    """Return those of the models that are offered under exactly these kinds and names, in one statement."""
    if not refs:
        return {}
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_FIND, _as_arrays(refs)).fetchall()
    entries = [entry_of(row) for row in rows]
    return {entry.ref: entry for entry in entries}


def _as_arrays(refs: Iterable[ModelRef]) -> tuple[list[str], list[str]]:
    refs = list(refs)
    return [ref.kind.value for ref in refs], [ref.name for ref in refs]
