"""Write the rows of one imported entry, inside the transaction of the import."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from infra.database import Connection
from models_registry.archives.planning import Planned
from models_registry.content import STORED
from models_registry.contents.shelving import as_entry
from models_registry.entries import ModelEntry
from models_registry.library import create_entry, delete_entries, update_entry
from models_registry.preview_bytes import preview_key
from models_registry.reading.component_digests import without_digests
from models_registry.records import Entry, Facts, Marks, Reader

#: What people say of an entry.
_SAID: Final = (
    "description", "licence", "source", "base_model", "tags", "trigger_words", "weight", "weight_min", "weight_max",
)  # fmt: skip
_FREE_ALIASES: Final = """
select wanted.alias from unnest(%(aliases)s::text[]) wanted(alias) where not exists (select from model_aliases known
    where known.kind = %(kind)s and lower(known.alias) = lower(wanted.alias) and known.model <> %(id)s)
"""
_OTHERS_MARKS: Final = "select to_jsonb(model_marks) as mark from model_marks where model = %s"
_MARKS_BACK: Final = """
insert into model_marks (owner, model, favourite, rating, active, position, weight, changed_at)
select owner, %(id)s, favourite, rating, active, position, weight, changed_at
from jsonb_populate_recordset(null::model_marks, %(marks)s) on conflict do nothing
"""
_MARK: Final = """
insert into model_marks (owner, model, favourite, rating, active, position, weight)
values (%(owner)s, %(model)s, %(favourite)s, %(rating)s, %(active)s, %(position)s, %(weight)s)
on conflict (owner, model) do update set favourite = excluded.favourite, rating = excluded.rating, active = excluded.active,
    position = excluded.position, weight = excluded.weight, changed_at = now()
"""
_NO_PREVIEWS: Final = "delete from model_previews where model = %s"
_PREVIEW: Final = """
insert into model_previews (model, index, sha256, mime, width, height, bytes, key)
values (%(model)s, %(index)s, %(sha256)s, %(mime)s, %(width)s, %(height)s, %(bytes)s, %(key)s) on conflict do nothing
"""


def write_entry(
    connection: Connection, each: Planned, reader: Reader, previews: Collection[str], warnings: list[str]
) -> UUID | None:
    """Write an entry as it was planned, with aliases, previews and the reader's marks, and return its id.

    Raises `RefTaken` or `EntryInUse` where the library has changed since, or an entry to be replaced is in use.
    """
    if each.action == "skipped":
        return each.existing
    entry = each.entry
    marks: list[Any] = []
    if each.same and each.existing is not None:
        identity = each.existing
        update_entry(connection, identity, {name: getattr(entry, name) for name in _SAID})
        connection.execute(_NO_PREVIEWS, (identity,))
    else:
        if each.existing is not None:
            marks = [row["mark"] for row in connection.execute(_OTHERS_MARKS, (each.existing,)).fetchall()]
            delete_entries(connection, [each.existing])
        identity = create_entry(connection, *_row(each, reader))
        if each.examined is None and each.found is None:
            update_entry(connection, identity, {"missing_since": datetime.now(UTC)})
    _write_aliases(connection, identity, entry, warnings)
    for preview in entry.previews:
        if preview.sha256 in previews:
            values = {**preview.model_dump(), "model": identity, "key": preview_key(preview.sha256)}
            connection.execute(_PREVIEW, values)
    if marks:
        connection.execute(_MARKS_BACK, {"id": identity, "marks": Jsonb(marks)})
    if entry.marks != Marks():
        connection.execute(_MARK, {**entry.marks.model_dump(), "owner": reader.owner, "model": identity})
    return identity


def _row(each: Planned, reader: Reader) -> tuple[ModelEntry, Facts]:
    """Return an entry as its files say, and what the archive says of it; only an admin's archive says whose it is."""
    entry = each.entry
    said = {name: getattr(entry, name) for name in _SAID}
    facts = Facts(
        owner=entry.owner if reader.is_admin else reader.owner,
        visibility=entry.visibility,
        allowed_keys=entry.allowed_keys if reader.is_admin else None,
        metadata=entry.metadata,
        **said,
    )
    if each.examined is not None:
        model, learnt = as_entry(each.examined, facts, stored=True)
        # What people left empty stays empty.
        return model.model_copy(update={"name": each.ref}), replace(learnt, **said)
    facts = replace(facts, sha256=entry.sha256, hashes=entry.hashes, files=entry.files, stored_at=None)
    if each.found is not None:
        return each.found.model_copy(update={"name": each.ref}), facts
    path = entry.path if reader.is_admin else Path(STORED) / entry.fingerprint[:64]
    # Nobody here has read the bytes: what an archive says of them makes them equal to no other model's.
    return without_digests(entry.model).model_copy(update={"name": each.ref, "path": path}), facts


def _write_aliases(connection: Connection, identity: UUID, entry: Entry, warnings: list[str]) -> None:
    if not entry.aliases:
        return
    values = {"aliases": list(entry.aliases), "kind": entry.kind.value, "id": identity}
    free = [row["alias"] for row in connection.execute(_FREE_ALIASES, values).fetchall()]
    update_entry(connection, identity, {}, aliases=free)
    warnings.extend(
        f"{entry.ref} is not called {alias!r} here: another entry is." for alias in entry.aliases if alias not in free
    )
