"""Keep the table of models equal to the folders, and read it back.

Functions on `psycopg.Connection` are for workers and the command line, those on `AsyncConnection` for the API;
connections are in autocommit mode.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from infra.advisory_locks import MODEL_SCAN
from models_registry.bounded_files import Reads
from models_registry.detection import detect
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import INPAINT
from models_registry.places import is_place, places
from models_registry.refusals import FileUnreadable, ModelRefused, NameTaken

#: Shorter beginnings of a fingerprint are names that happen to be hexadecimal.
MIN_HASH = 6
_TITLE = re.compile(r"(?P<name>.*?)(?:\.safetensors)?(?: \[(?P<hash>[0-9a-fA-F]{6,64})\])?", re.DOTALL)

#: What a row and an entry have in common, by the same names.
_FIELDS = (
    "name", "kind", "layout", "family", "variant", "path", "fingerprint", "components", "native_size", "latent_factor",
    "latent_channels", "text_width", "scale", "rank", "vectors", "default_steps", "default_guidance_scale",
    "default_scheduler",
)  # fmt: skip
_COLUMNS = ", ".join((*_FIELDS, "missing_since"))
_READ = f"SELECT {_COLUMNS} FROM models ORDER BY found_at, name, kind"
_FIND = f"""
SELECT {_COLUMNS} FROM models
WHERE (kind, name) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND missing_since IS NULL
"""
_LOCK = f"SELECT pg_advisory_xact_lock({MODEL_SCAN})"
_ADD = f"""
INSERT INTO models ({", ".join(_FIELDS)}, weight_bytes)
VALUES ({", ".join(f"%({field})s" for field in _FIELDS)}, %(weight_bytes)s)
"""
_CHANGE = f"""
UPDATE models SET {", ".join(f"{field} = %({field})s" for field in _FIELDS)}, weight_bytes = %(weight_bytes)s,
    changed_at = now(), missing_since = NULL
WHERE kind = %(kind)s AND name = %(old_name)s
"""
_MISS = """
UPDATE models SET missing_since = now()
WHERE (kind, name) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND missing_since IS NULL
"""

#: A kind and a folded name: what two files must not have in common.
_Claim = tuple[str, str]


class Refusal(NamedTuple):
    """Say why one path is not offered as a model."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class ScanReport:
    """Say what a scan saw; by kind and name, refusals with the file at fault."""

    found: tuple[ModelRef, ...]
    added: tuple[ModelRef, ...]
    changed: tuple[ModelRef, ...]
    missing: tuple[ModelRef, ...]
    refused: tuple[Refusal, ...]


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
    entries = [_entry(row) for row in rows]
    return {entry.ref: entry for entry in entries}


def scan(conn: Connection[Any], folders: Sequence[Path], reads: Reads | None = None) -> ScanReport:
    """Look through the folders, then bring the table up to date in one transaction; `reads` counts what was read."""
    # Not resolved: a link has the name that its maker wants the model to have.
    roots = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100
    seen, refused = _look(roots, reads or Reads())
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_LOCK)
        rows = {_claim(row["kind"], row["name"]): row for row in cursor.execute(_READ).fetchall()}
        entries = _choose(seen, rows, roots, refused)
        added = [entry for claim, entry in entries.items() if claim not in rows]
        changed = [
            (rows[claim], entry) for claim, entry in entries.items() if claim in rows and _differs(rows[claim], entry)
        ]
        for entry in added:
            cursor.execute(_ADD, _values(entry))
        for row, entry in changed:
            cursor.execute(_CHANGE, _values(entry) | {"old_name": row["name"]})
        away = [_ref(row) for claim, row in rows.items() if claim not in entries and _is_below(row["path"], roots)]
        if away:
            cursor.execute(_MISS, _as_arrays(away))
    return ScanReport(
        found=tuple(sorted(entry.ref for entry in entries.values())),
        added=tuple(sorted(entry.ref for entry in added)),
        changed=tuple(sorted(entry.ref for _, entry in changed)),
        missing=tuple(sorted(away)),
        refused=tuple(sorted(Refusal(refusal.path, refusal.code, refusal.reason) for refusal in refused)),
    )


def _look(roots: Sequence[Path], reads: Reads) -> tuple[dict[Path, ModelEntry], list[ModelRefused]]:
    seen: dict[Path, ModelEntry] = {}
    refused: dict[Path, ModelRefused] = {}
    for root in roots:
        try:
            for place in places(root, reads):
                if isinstance(place, ModelRefused):
                    refused[place.path] = place
                elif place not in seen:
                    _detect_into(place, seen, refused, reads)
        except OSError as error:
            refused[root] = FileUnreadable(root, f"cannot be looked through: {error.strerror}: {error.filename}")
    return seen, list(refused.values())


def _detect_into(place: Path, seen: dict[Path, ModelEntry], refused: dict[Path, ModelRefused], reads: Reads) -> None:
    try:
        seen[place] = detect(place, reads)
    except ModelRefused as refusal:
        refused[place] = refusal
    except OSError as error:
        refused[place] = FileUnreadable(place, f"cannot be read: {error.strerror}: {error.filename}")


def _choose(
    seen: Mapping[Path, ModelEntry],
    rows: Mapping[_Claim, DictRow],
    roots: Sequence[Path],
    refused: list[ModelRefused],
) -> dict[_Claim, ModelEntry]:
    """Give each name to one place: the one that has it already if it is still there, else the first."""
    chosen: dict[_Claim, ModelEntry] = {}
    # Stable, so that places without a claim of their own keep the order they were found in.
    for path, entry in sorted(seen.items(), key=lambda item: _owner(item[1], rows) != item[0]):
        claim = _claim(entry.kind, entry.name)
        owner = chosen[claim].path if claim in chosen else _owner(entry, rows)
        elsewhere = owner is not None and owner != path and not _is_below(owner, roots) and is_place(owner)
        if claim in chosen or elsewhere:
            refused.append(NameTaken(path, f"has the same name as {owner}; rename one of the two"))
        else:
            chosen[claim] = entry
    return chosen


def _owner(entry: ModelEntry, rows: Mapping[_Claim, DictRow]) -> Path | None:
    row = rows.get(_claim(entry.kind, entry.name))
    return None if row is None else Path(row["path"])


def _claim(kind: str, name: str) -> _Claim:
    return str(kind), name.casefold()


def _as_arrays(refs: Iterable[ModelRef]) -> tuple[list[str], list[str]]:
    refs = list(refs)
    return [ref.kind.value for ref in refs], [ref.name for ref in refs]


def _is_below(path: str | Path, roots: Iterable[Path]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)


def _differs(row: DictRow, entry: ModelEntry) -> bool:
    return row["missing_since"] is not None or _entry(row) != entry


def _catalogue(rows: Iterable[DictRow]) -> Catalogue:
    rows = list(rows)
    offered = [_entry(row) for row in rows if row["missing_since"] is None]
    return Catalogue(
        MappingProxyType({entry.ref: entry for entry in offered}),
        frozenset(_ref(row) for row in rows if row["missing_since"] is not None),
    )


def _ref(row: DictRow) -> ModelRef:
    return ModelRef(Kind(row["kind"]), row["name"])


def _entry(row: DictRow) -> ModelEntry:
    return ModelEntry.model_validate({key: value for key, value in row.items() if key != "missing_since"})


def _values(entry: ModelEntry) -> dict[str, Any]:
    values = entry.model_dump(mode="json")
    return values | {"components": Jsonb(values["components"]), "weight_bytes": entry.bytes}
