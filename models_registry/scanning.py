"""Keep the table of models equal to the folders.

Connections are in autocommit mode.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from infra.advisory_locks import MODEL_SCAN
from models_registry.bounded_files import Reads
from models_registry.detection import detect
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.places import is_place, places
from models_registry.refusals import FileUnreadable, ModelRefused, NameTaken
from models_registry.rows import FIELDS, entry_of, values_of
from models_registry.shelving import is_stored

_READ = f"SELECT {', '.join((*FIELDS, 'missing_since'))} FROM models ORDER BY found_at, name, kind"
_LOCK = f"SELECT pg_advisory_xact_lock({MODEL_SCAN})"
_ADD = f"""
INSERT INTO models ({", ".join(FIELDS)}, weight_bytes)
VALUES ({", ".join(f"%({field})s" for field in FIELDS)}, %(weight_bytes)s)
"""
_CHANGE = f"""
UPDATE models SET {", ".join(f"{field} = %({field})s" for field in FIELDS)}, weight_bytes = %(weight_bytes)s,
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
            cursor.execute(_ADD, values_of(entry))
        for row, entry in changed:
            cursor.execute(_CHANGE, values_of(entry) | {"old_name": row["name"]})
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
        elsewhere = (
            owner is not None
            and owner != path
            and (is_stored(owner) or (not _is_below(owner, roots) and is_place(owner)))
        )
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
    return row["missing_since"] is not None or entry_of(row) != entry


def _ref(row: DictRow) -> ModelRef:
    return ModelRef(Kind(row["kind"]), row["name"])
