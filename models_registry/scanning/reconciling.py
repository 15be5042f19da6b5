"""Bring the table of models up to date with what a scan found, inside the scan's transaction.

A row keeps its id, its marks and the name that people gave it for as long as its content can be followed: first by its path, then, when
that is empty, by content, then by name.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from models_registry.content import is_stored
from models_registry.entries import Kind, Layout, ModelEntry, ModelRef
from models_registry.library import RefTaken, create_entry
from models_registry.reading.component_digests import keep_digests, without_digests
from models_registry.reading.header_facts import suggestions
from models_registry.records import Facts, File
from models_registry.refusals import ModelRefused, NameTaken
from models_registry.rows import FIELDS, entry_of, values_of
from models_registry.scanning.examining import Examined
from models_registry.scanning.places import is_place

_RECORDS: Final = ("files", "sha256", "hashes", "metadata")
_COLUMNS: Final = ", ".join(("id", *FIELDS, *_RECORDS, "missing_since", "stored_at", "damage"))
_CANDIDATES: Final = f"""
select {_COLUMNS} from models where path = any (%(paths)s) or fingerprint = any (%(fingerprints)s)
    or (kind, lower(name)) in (select * from unnest(%(kinds)s::text[], %(names)s::text[]))
order by found_at, name, kind
"""
_CHANGE: Final = f"""
update models set {", ".join(f"{name} = %({name})s" for name in (*FIELDS, *_RECORDS, "weight_bytes"))}, changed_at = now(),
    missing_since = null, damage = null, wanted_at = null,
    -- Others are stored bytes of before.
    stored_at = case when sha256 = %(sha256)s then stored_at end
where id = %(id)s
"""
_ALIAS: Final = """
insert into model_aliases (kind, alias, model) values (%(kind)s, %(alias)s, %(id)s) on conflict do nothing
"""
_OTHERS: Final = """
select from models where kind = %(kind)s and lower(name) = lower(%(name)s) and name <> %(before)s
"""
_BACK: Final = """
update models set missing_since = null, changed_at = now() where id = any (%(ids)s) and missing_since is not null and damage is null
returning id
"""
_THERE: Final = "select id, kind, name from models where id = any (%(ids)s) and missing_since is null"
_AWAY: Final = """
select id, kind, name from models where id <> all (%(there)s) and exists (
    select from unnest(%(roots)s::text[]) root where path = root or starts_with(path, rtrim(root, '/') || '/'))
"""
_MISS: Final = """
update models set missing_since = now(), changed_at = now() where id = any (%(ids)s) and missing_since is null
"""


@dataclass
class Outcome:
    """What a scan changed in the table."""

    #: The entry at each path.
    at: dict[Path, UUID] = field(default_factory=dict)
    found: list[ModelRef] = field(default_factory=list)
    added: list[ModelRef] = field(default_factory=list)
    changed: list[ModelRef] = field(default_factory=list)
    missing: list[ModelRef] = field(default_factory=list)
    refused: list[ModelRefused] = field(default_factory=list)


def reconcile(
    connection: "Connection[Any]", seen: Mapping[Path, Examined], unchanged: Mapping[Path, UUID], roots: Sequence[Path]
) -> Outcome:
    """Write down what was seen anew, and what is back or away; `unchanged` is what was not looked into."""
    outcome = Outcome()
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_CANDIDATES, _wanted(seen.values())).fetchall()
        chosen = _choose(seen, rows, {*seen, *unchanged}, roots)
        for path, examined in seen.items():
            try:
                _write(connection, path, examined, chosen.get(path), outcome)
            except NameTaken as refusal:
                outcome.refused.append(refusal)
        back = {row["id"] for row in cursor.execute(_BACK, {"ids": list(unchanged.values())}).fetchall()}
        for row in cursor.execute(_THERE, {"ids": list(unchanged.values())}).fetchall():
            outcome.found.append(_ref(row))
            if row["id"] in back:
                outcome.changed.append(_ref(row))
        there = [*outcome.at.values(), *unchanged.values()]
        away = cursor.execute(_AWAY, {"there": there, "roots": [str(root) for root in roots]}).fetchall()
        cursor.execute(_MISS, {"ids": [row["id"] for row in away]})
    outcome.missing.extend(map(_ref, away))
    return outcome


def _wanted(seen: Collection[Examined]) -> dict[str, Any]:
    return {
        "paths": [str(each.entry.path) for each in seen],
        "fingerprints": [each.entry.fingerprint for each in seen],
        "kinds": [each.entry.kind.value for each in seen],
        "names": [each.entry.name.lower() for each in seen],
    }


def _choose(
    seen: Mapping[Path, Examined], rows: Sequence[DictRow], there: Collection[Path], roots: Sequence[Path]
) -> dict[Path, DictRow | NameTaken]:
    """Give each place the row that it continues, or the reason why it gets none; what is left out is new."""
    chosen: dict[Path, DictRow | NameTaken] = {}
    claimed: set[UUID] = set()
    free = {row["id"] for row in rows if _is_free(Path(row["path"]), there, roots)}

    def claim(path: Path, found: Iterable[DictRow]) -> None:
        row = next((row for row in found if row["id"] not in claimed), None)
        if row is not None and path not in chosen:
            chosen[path] = row
            claimed.add(row["id"])

    by_path = _index(rows, lambda row: (row["kind"], row["path"]))
    by_content = _index((row for row in rows if row["id"] in free), lambda row: (row["kind"], row["fingerprint"]))
    by_name = _index(rows, lambda row: (row["kind"], row["name"].lower()))
    for path, each in seen.items():
        claim(path, by_path[each.entry.kind, str(path)])
    for path, each in seen.items():
        same = by_content[each.entry.kind, each.entry.fingerprint]
        claim(path, sorted(same, key=lambda row, name=each.entry.name: row["name"] != name))  # type: ignore[misc]
    for path, each in seen.items():
        for row in by_name[each.entry.kind, each.entry.name.lower()]:
            if path in chosen:
                break
            if row["id"] in free and row["id"] not in claimed:
                claim(path, [row])
            else:
                owner = next((str(at) for at, other in chosen.items() if other is row), row["path"])
                chosen[path] = NameTaken(path, f"has the same name as {owner}; rename one of the two")
    return chosen


def _is_free(path: Path, there: Collection[Path], roots: Sequence[Path]) -> bool:
    """Tell whether the place that a row names is empty: its files were moved, or replaced by others elsewhere."""
    if path in there or is_stored(path):
        return False
    return any(path.is_relative_to(root) for root in roots) or not is_place(path)


def _write(
    connection: "Connection[Any]", path: Path, examined: Examined, row: DictRow | NameTaken | None, outcome: Outcome
) -> None:
    if isinstance(row, NameTaken):
        raise row
    if row is None:
        records = _records(examined, None)
        facts = Facts(**suggestions(examined.said), **records)
        try:
            outcome.at[path] = create_entry(connection, examined.entry, facts)
        except RefTaken:
            raise NameTaken(path, "has the same name as another one; rename one of the two") from None
        outcome.added.append(examined.entry.ref)
        outcome.found.append(examined.entry.ref)
        return
    before = entry_of(row)
    records = _records(examined, row)
    entry = examined.entry.model_copy(update={"name": _name(connection, before, examined.entry)})
    if examined.sha256 is None and records["sha256"] is not None:
        # The hashes are those of before, and so are the digests.
        entry = keep_digests(entry, before)
    outcome.at[path] = row["id"]
    outcome.found.append(entry.ref)
    # Whether a digest is known is no change of the model.
    differs = without_digests(entry) != without_digests(before) or row["missing_since"] is not None
    if differs:
        outcome.changed.append(entry.ref)
    if differs or entry != before or any(row[name] != value for name, value in _as_json(records).items()):
        values = {name: Jsonb(value) if name != "sha256" else value for name, value in _as_json(records).items()}
        connection.execute(_CHANGE, {**values_of(entry), **values, "id": row["id"]})
        if entry.name.lower() != before.name.lower():
            connection.execute(_ALIAS, {"kind": entry.kind.value, "alias": before.name, "id": row["id"]})


def _name(connection: "Connection[Any]", before: ModelEntry, now: ModelEntry) -> str:
    """Return what an entry is called from now on: by the file, unless people called it otherwise or the name is another's."""
    if before.name != _file_name(before) or before.name == now.name:
        return before.name
    others = connection.execute(_OTHERS, {"kind": now.kind.value, "name": now.name, "before": before.name}).fetchone()
    return now.name if others is None else before.name


def _file_name(entry: ModelEntry) -> str:
    return entry.path.stem if entry.layout is Layout.SINGLE_FILE else entry.path.name


def _records(examined: Examined, row: DictRow | None) -> dict[str, Any]:
    """Return the facts of the files; the hashes of what was read whole before stay while size and time are the same."""
    files, sha256, hashes = [file.record for file in examined.files], examined.sha256, examined.hashes
    if row is not None and sha256 is None and row["fingerprint"] == examined.entry.fingerprint:
        before = [File.model_validate(each) for each in row["files"]]
        if [(each.bytes, each.mtime_ns) for each in before] == [(each.bytes, each.mtime_ns) for each in files]:
            files = [now.model_copy(update={"sha256": then.sha256}) for now, then in zip(files, before, strict=True)]
            sha256, hashes = row["sha256"], row["hashes"]
    return {"files": files, "sha256": sha256, "hashes": hashes, "metadata": dict(examined.said)}


def _as_json(records: Mapping[str, Any]) -> dict[str, Any]:
    return {**records, "files": [file.model_dump() for file in records["files"]]}


def _index(rows: Iterable[DictRow], key: Callable[[DictRow], tuple[str, str]]) -> dict[tuple[str, str], list[DictRow]]:
    found: dict[tuple[str, str], list[DictRow]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def _ref(row: DictRow) -> ModelRef:
    return ModelRef(Kind(row["kind"]), row["name"])
