"""Read the table of models.

Functions on `psycopg.Connection` are for workers and the command line, those on `AsyncConnection` for the API;
connections are in autocommit mode.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row

from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import INPAINT
from models_registry.rows import FIELDS, entry_of

#: Shorter beginnings of a fingerprint are names that happen to be hexadecimal.
MIN_HASH = 6
_TITLE = re.compile(r"(?P<name>.*?)(?:\.safetensors)?(?: \[(?P<hash>[0-9a-fA-F]{6,64})\])?", re.DOTALL)

_COLUMNS = ", ".join((*FIELDS, "missing_since"))
_READ = f"SELECT {_COLUMNS} FROM models ORDER BY found_at, name, kind"
_FIND = f"""
SELECT {_COLUMNS} FROM models
WHERE (kind, name) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND missing_since IS NULL
"""
#: A kind and a folded name: what two files must not have in common.
_Claim = tuple[str, str]


@dataclass(frozen=True)
class Catalogue:
    """Hold the models that are offered, in the order in which they were first found."""

    entries: Mapping[ModelRef, ModelEntry]
    #: What is known but whose files are away.
    missing: frozenset[ModelRef]

    def find(self, name: str, kind: Kind = Kind.CHECKPOINT) -> ModelEntry | None:
        """Return the model of this name, title (`name [hash]`, `name.safetensors [hash]`) or unique hash prefix, in any case."""
        exact = self.entries.get(ModelRef(kind, name)) or self._named(kind, name)
        if exact is not None:
            return exact
        parts = _TITLE.fullmatch(name)
        if parts is None:
            return None
        named = self._named(kind, parts["name"])
        if parts["hash"]:
            return named if named is not None and named.fingerprint.startswith(parts["hash"].lower()) else None
        return named or self._hashed(kind, parts["name"].lower())

    def of_kind(self, kind: Kind) -> tuple[ModelEntry, ...]:
        """Return every model of a kind, the one known longest first."""
        return tuple(entry for entry in self.entries.values() if entry.kind is kind)

    def default(self) -> ModelEntry | None:
        """Return the model that draws when a request names none: the one known longest, so that adding models never changes it."""
        return next((entry for entry in self.of_kind(Kind.CHECKPOINT) if entry.variant != INPAINT), None)

    @cached_property
    def _folded(self) -> Mapping[_Claim, ModelEntry]:
        return {_claim(entry.kind, entry.name): entry for entry in self.entries.values()}

    def _named(self, kind: Kind, name: str) -> ModelEntry | None:
        return self._folded.get(_claim(kind, name))

    def _hashed(self, kind: Kind, start: str) -> ModelEntry | None:
        if len(start) < MIN_HASH:
            return None
        matches = [entry for entry in self.of_kind(kind) if entry.fingerprint.startswith(start)]
        return matches[0] if len(matches) == 1 else None


async def load_catalogue(conn: AsyncConnection[Any]) -> Catalogue:
    """Read all models in one statement."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_READ)
        return _catalogue(await cursor.fetchall())


def read_catalogue(conn: Connection[Any]) -> Catalogue:
    """Read all models in one statement."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return _catalogue(cursor.execute(_READ).fetchall())


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


def _claim(kind: str, name: str) -> _Claim:
    return str(kind), name.casefold()


def _as_arrays(refs: Iterable[ModelRef]) -> tuple[list[str], list[str]]:
    refs = list(refs)
    return [ref.kind.value for ref in refs], [ref.name for ref in refs]


def _catalogue(rows: Iterable[DictRow]) -> Catalogue:
    rows = list(rows)
    offered = [entry_of(row) for row in rows if row["missing_since"] is None]
    return Catalogue(
        MappingProxyType({entry.ref: entry for entry in offered}),
        frozenset(_ref(row) for row in rows if row["missing_since"] is not None),
    )


def _ref(row: DictRow) -> ModelRef:
    return ModelRef(Kind(row["kind"]), row["name"])
