"""Keep the table of models equal to the folders, and read it back.

Functions on `psycopg.Connection` are for workers and the command line, those on `AsyncConnection` for the API;
connections are in autocommit mode.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from infra.advisory_locks import MODEL_SCAN
from models_registry.bounded_files import Reads
from models_registry.detection import INDEX, detect
from models_registry.entries import ModelEntry
from models_registry.folders import model_folders
from models_registry.refusals import FileUnreadable, ModelRefused, NameTaken

#: Shorter beginnings of a fingerprint are names that happen to be hexadecimal.
MIN_HASH = 6
_TITLE = re.compile(r"(?P<name>.*?)(?:\.safetensors)?(?: \[(?P<hash>[0-9a-fA-F]{6,64})\])?", re.DOTALL)

_COLUMNS = (
    "name, kind, layout, family, variant, path, fingerprint, components, native_size, latent_factor, latent_channels,"
    " default_steps, default_guidance_scale, default_scheduler, missing_since"
)
_READ = f"SELECT {_COLUMNS} FROM models ORDER BY found_at, name"
_FIND = f"SELECT {_COLUMNS} FROM models WHERE name = %s AND missing_since IS NULL"
_LOCK = f"SELECT pg_advisory_xact_lock({MODEL_SCAN})"
_ADD = """
INSERT INTO models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size,
    latent_factor, latent_channels, default_steps, default_guidance_scale, default_scheduler)
VALUES (%(name)s, %(kind)s, %(layout)s, %(family)s, %(variant)s, %(path)s, %(fingerprint)s, %(components)s,
    %(weight_bytes)s, %(native_size)s, %(latent_factor)s, %(latent_channels)s, %(default_steps)s,
    %(default_guidance_scale)s, %(default_scheduler)s)
"""
_CHANGE = """
UPDATE models SET name = %(name)s, kind = %(kind)s, layout = %(layout)s, family = %(family)s, variant = %(variant)s,
    path = %(path)s, fingerprint = %(fingerprint)s, components = %(components)s, weight_bytes = %(weight_bytes)s,
    native_size = %(native_size)s, latent_factor = %(latent_factor)s, latent_channels = %(latent_channels)s,
    default_steps = %(default_steps)s, default_guidance_scale = %(default_guidance_scale)s,
    default_scheduler = %(default_scheduler)s, changed_at = now(), missing_since = NULL
WHERE name = %(old_name)s
"""
_MISS = "UPDATE models SET missing_since = now() WHERE name = ANY(%s) AND missing_since IS NULL"


class Refusal(NamedTuple):
    """Say why one path is not offered as a model."""

    path: Path
    code: str
    reason: str


@dataclass(frozen=True)
class ScanReport:
    """Say what a scan saw; names in order, refusals with the file at fault."""

    found: tuple[str, ...]
    added: tuple[str, ...]
    changed: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[Refusal, ...]


@dataclass(frozen=True)
class Catalogue:
    """Hold the models that are offered, in the order in which they were first found."""

    entries: Mapping[str, ModelEntry]
    #: Names that are known but whose files are away.
    missing: frozenset[str]

    def find(self, name: str) -> ModelEntry | None:
        """Return the model of this name, title (`name [hash]`, `name.safetensors [hash]`) or unique hash prefix, in any case."""
        exact = self.entries.get(name) or self._named(name)
        if exact is not None:
            return exact
        parts = _TITLE.fullmatch(name)
        if parts is None:
            return None
        named = self._named(parts["name"])
        if parts["hash"]:
            return named if named is not None and named.fingerprint.startswith(parts["hash"].lower()) else None
        return named or self._hashed(parts["name"].lower())

    def default(self) -> ModelEntry | None:
        """Return the model that draws when a request names none: the one known longest, so that adding models never changes it."""
        return next(iter(self.entries.values()), None)

    def _named(self, name: str) -> ModelEntry | None:
        folded = name.casefold()
        return next((entry for entry in self.entries.values() if entry.name.casefold() == folded), None)

    def _hashed(self, start: str) -> ModelEntry | None:
        if len(start) < MIN_HASH:
            return None
        matches = [entry for entry in self.entries.values() if entry.fingerprint.startswith(start)]
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


def find(conn: Connection[Any], name: str) -> ModelEntry | None:
    """Return the offered model of exactly this name, in one statement."""
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_FIND, (name,)).fetchone()
        return None if row is None else _entry(row)


def scan(conn: Connection[Any], folders: Sequence[Path], reads: Reads | None = None) -> ScanReport:
    """Look through the folders, then bring the table up to date in one transaction; `reads` counts what was read."""
    # Not resolved: a link has the name that its maker wants the model to have.
    roots = [Path(os.path.abspath(folder)) for folder in folders]  # noqa: PTH100
    seen, refused = _look(roots, reads or Reads())
    with conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_LOCK)
        rows = {row["name"].casefold(): row for row in cursor.execute(_READ).fetchall()}
        entries = _choose(seen, rows, roots, refused)
        added = [entry for folded, entry in entries.items() if folded not in rows]
        changed = [
            (rows[folded], entry)
            for folded, entry in entries.items()
            if folded in rows and _differs(rows[folded], entry)
        ]
        for entry in added:
            cursor.execute(_ADD, _values(entry))
        for row, entry in changed:
            cursor.execute(_CHANGE, _values(entry) | {"old_name": row["name"]})
        away = sorted(
            row["name"] for folded, row in rows.items() if folded not in entries and _is_below(row["path"], roots)
        )
        if away:
            cursor.execute(_MISS, (away,))
    return ScanReport(
        found=tuple(sorted(entry.name for entry in entries.values())),
        added=tuple(sorted(entry.name for entry in added)),
        changed=tuple(sorted(entry.name for _, entry in changed)),
        missing=tuple(away),
        refused=tuple(sorted(Refusal(refusal.path, refusal.code, refusal.reason) for refusal in refused)),
    )


def _look(roots: Sequence[Path], reads: Reads) -> tuple[dict[Path, ModelEntry], list[ModelRefused]]:
    seen: dict[Path, ModelEntry] = {}
    refused: dict[Path, ModelRefused] = {}
    for root in roots:
        try:
            for place in model_folders(root):
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
    rows: Mapping[str, DictRow],
    roots: Sequence[Path],
    refused: list[ModelRefused],
) -> dict[str, ModelEntry]:
    """Give each name to one folder: the one that has it already if it is still there, else the first."""
    chosen: dict[str, ModelEntry] = {}
    # Stable, so that folders without a claim of their own keep the order they were found in.
    for path, entry in sorted(seen.items(), key=lambda item: _owner(item[1], rows) != item[0]):
        folded = entry.name.casefold()
        owner = chosen[folded].path if folded in chosen else _owner(entry, rows)
        elsewhere = owner is not None and owner != path and not _is_below(owner, roots) and (owner / INDEX).is_file()
        if folded in chosen or elsewhere:
            refused.append(NameTaken(path, f"has the same name as {owner}; rename one of the two folders"))
        else:
            chosen[folded] = entry
    return chosen


def _owner(entry: ModelEntry, rows: Mapping[str, DictRow]) -> Path | None:
    row = rows.get(entry.name.casefold())
    return None if row is None else Path(row["path"])


def _is_below(path: str | Path, roots: Iterable[Path]) -> bool:
    return any(Path(path).is_relative_to(root) for root in roots)


def _differs(row: DictRow, entry: ModelEntry) -> bool:
    return row["missing_since"] is not None or _entry(row) != entry


def _catalogue(rows: Iterable[DictRow]) -> Catalogue:
    rows = list(rows)
    offered = {row["name"]: _entry(row) for row in rows if row["missing_since"] is None}
    return Catalogue(
        MappingProxyType(offered), frozenset(row["name"] for row in rows if row["missing_since"] is not None)
    )


def _entry(row: DictRow) -> ModelEntry:
    return ModelEntry.model_validate({key: value for key, value in row.items() if key != "missing_since"})


def _values(entry: ModelEntry) -> dict[str, Any]:
    values = entry.model_dump(mode="json")
    return values | {"components": Jsonb(values["components"]), "weight_bytes": entry.bytes}
