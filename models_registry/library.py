"""Read, add, change and delete one entry of the library.

Functions on `psycopg.Connection` are for workers, the keeper and the command line; those on `AsyncConnection`, whose names end in
`_async`, for the API. Each is one transaction, or a part of the caller's. Whom an entry exists for is the reader's matter; who may change
it, the caller's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from models_registry.entries import Kind, ModelEntry
from models_registry.records import FLEET, Entry, Facts, Marks, Reader
from models_registry.versions import version_order

#: What an entry's owner may change.
CHANGEABLE: Final = (
    "family", "visibility", "allowed_keys", "description", "licence", "source", "base_model", "tags", "trigger_words", "weight",
    "weight_min", "weight_max",
)  # fmt: skip
#: What the fleet learns of an entry later.
LEARNT: Final = ("owner", "sha256", "hashes", "files", "metadata", "stored_at", "path", "missing_since")

_PLAIN: Final = (
    "id", "version", "kind", "layout", "family", "variant", "path", "fingerprint", "components", "native_size", "latent_factor",
    "latent_channels", "text_width", "text_layers", "width", "scale", "rank", "vectors", "default_steps", "default_guidance_scale",
    "default_scheduler", "owner",
    "visibility", "allowed_keys", "description", "licence", "source", "base_model", "tags", "trigger_words", "weight", "weight_min",
    "weight_max", "sha256", "hashes", "missing_since", "stored_at",
)  # fmt: skip
#: The columns of an entry but for those that may be long; `models`, and the reader's `marks` beside it.
COLUMNS: Final = f"""{", ".join(f"models.{name}" for name in _PLAIN)}, models.name as ref, models.model_name as name,
    models.weight_bytes as bytes, models.found_at as created_at, models.changed_at as updated_at,
    array(select alias from model_aliases where model = models.id order by alias) as aliases,
    (select coalesce(jsonb_agg(jsonb_build_object('index', index, 'sha256', sha256, 'mime', mime, 'width', width, 'height', height,
        'bytes', bytes) order by index), '[]') from model_previews where model = models.id) as previews,
    marks.favourite as own_favourite, marks.rating as own_rating, marks.active as own_active, marks.position as own_position,
    marks.weight as own_weight"""
_WHOLE: Final = f"{COLUMNS}, models.files, models.metadata"
#: Beside `models` in a `from`: what the reader thinks of each.
MARKED: Final = "left join model_marks marks on marks.model = models.id and marks.owner = %(owner)s"
#: Whom an entry exists for.
VISIBLE: Final = """(%(is_admin)s or models.owner = %(owner)s
    or models.visibility = 'public' and (models.allowed_keys is null or %(key)s = any (models.allowed_keys)))"""

_BY_ID: Final = f"select {_WHOLE}, 0 as place from models {MARKED} where models.id = %(id)s and models.kind = any (%(kinds)s) and {VISIBLE}"
_BY_NAME: Final = f"""
with named (model, place) as (
    select id, case when name = %(ref)s then 0 else 1 end from models where kind = any (%(kinds)s) and lower(name) = lower(%(ref)s)
    union all select model, 2 from model_aliases where kind = any (%(kinds)s) and lower(alias) = lower(%(ref)s)
    union all select id, 3 from models where kind = any (%(kinds)s) and lower(model_name) = lower(%(ref)s)
)
select {_WHOLE}, place from named join models on models.id = named.model {MARKED} where {VISIBLE}
"""
_MANY: Final = f"select {COLUMNS} from models {MARKED} where models.id = any (%(ids)s) and models.kind = any (%(kinds)s) and {VISIBLE}"
_VERSIONS: Final = f"""
select {COLUMNS} from models {MARKED} where models.kind = %(kind)s and lower(models.model_name) = lower(%(name)s) and {VISIBLE}
"""

_MODEL: Final = tuple(ModelEntry.model_fields)
_GIVEN: Final = tuple(name for name in Facts.__dataclass_fields__ if name != "aliases")
_ADD: Final = f"""
insert into models ({", ".join((*_MODEL, "weight_bytes", *_GIVEN))})
values ({", ".join(f"%({name})s" for name in (*_MODEL, "weight_bytes", *_GIVEN))})
on conflict do nothing returning id
"""
_ALIASES: Final = """
insert into model_aliases (kind, alias, model) select kind, unnest(%(aliases)s::text[]), id from models where id = %(id)s
on conflict do nothing returning alias
"""
_NO_ALIASES: Final = "delete from model_aliases where model = %(id)s"
_RENAME: Final = """
update models set name = %(ref)s, changed_at = now() where id = %(id)s
    and not exists (select from models other
        where other.kind = models.kind and lower(other.name) = lower(%(ref)s) and other.id <> models.id)
returning id
"""
_UNPIN_OLD: Final = "delete from model_pins where model = any (%(ids)s) and until <= now()"
_DELETE: Final = "delete from models where id = any (%(ids)s) returning id"


class LibraryRefused(Exception):
    """The library cannot do that with an entry."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: What was given and is at fault.
        self.field = field


class RefTaken(LibraryRefused):
    """Another entry of the kind has this name and version, or this alias."""


class RefAmbiguous(LibraryRefused):
    """Entries of several kinds have this name."""


class EntryInUse(LibraryRefused):
    """The entry is pinned: somebody needs its files."""


def read_entry(
    connection: "Connection[Any]", which: UUID | str, *, kinds: Collection[Kind] = tuple(Kind), reader: Reader = FLEET
) -> Entry | None:
    """Return the entry of this id, or of this name in any case: `name@version`, an alias, or `name` for its newest version.

    Raises `RefAmbiguous` where entries of several of the kinds have the name.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        return _choose(cursor.execute(*_reading(which, kinds, reader)).fetchall(), which)


async def read_entry_async(
    connection: "AsyncConnection[Any]",
    which: UUID | str,
    *,
    kinds: Collection[Kind] = tuple(Kind),
    reader: Reader = FLEET,
) -> Entry | None:
    """Do what `read_entry` does on an event loop."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(*_reading(which, kinds, reader))
        return _choose(await cursor.fetchall(), which)


async def read_many(
    connection: "AsyncConnection[Any]", ids: Collection[UUID], *, kinds: Collection[Kind], reader: Reader
) -> dict[UUID, Entry]:
    """Return those of the entries that exist for the reader, by id, without what may be long of them."""
    values = {"ids": list(ids), "kinds": [kind.value for kind in kinds], **who(reader)}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_MANY, values)
        return {row["id"]: entry_of(row) for row in await cursor.fetchall()}


async def read_versions(connection: "AsyncConnection[Any]", kind: Kind, name: str, *, reader: Reader) -> list[Entry]:
    """Return the versions of one model, the newest first."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_VERSIONS, {"kind": kind.value, "name": name, **who(reader)})
        found = [entry_of(row) for row in await cursor.fetchall()]
    return sorted(found, key=_age, reverse=True)


def create_entry(connection: "Connection[Any]", model: ModelEntry, facts: Facts | None = None) -> UUID:
    """Add an entry whose ref is the model's name, and return its id; raise `RefTaken`."""
    facts = facts or Facts()
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        made = _made(cursor.execute(_ADD, new_row(model, facts)).fetchone(), model.name)
        if facts.aliases:
            _check_aliases(facts.aliases, cursor.execute(_ALIASES, _named(made, facts.aliases)).fetchall())
    return made


async def create_entry_async(connection: "AsyncConnection[Any]", model: ModelEntry, facts: Facts | None = None) -> UUID:
    """Do what `create_entry` does on an event loop."""
    facts = facts or Facts()
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ADD, new_row(model, facts))
        made = _made(await cursor.fetchone(), model.name)
        if facts.aliases:
            await cursor.execute(_ALIASES, _named(made, facts.aliases))
            _check_aliases(facts.aliases, await cursor.fetchall())
    return made


def update_entry(
    connection: "Connection[Any]",
    which: UUID,
    changes: Mapping[str, Any],
    *,
    ref: str | None = None,
    aliases: Collection[str] | None = None,
) -> bool:
    """Change columns of `CHANGEABLE` and `LEARNT`, the ref, all aliases; return whether there was an entry; raise `RefTaken`."""
    found = True
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        if changes:
            found = cursor.execute(*_changing(which, changes)).fetchone() is not None
        if ref is not None and cursor.execute(_RENAME, {"id": which, "ref": ref}).fetchone() is None:
            raise _taken(ref)
        if aliases is not None:
            cursor.execute(_NO_ALIASES, {"id": which})
            _check_aliases(aliases, cursor.execute(_ALIASES, _named(which, aliases)).fetchall())
    return found


async def update_entry_async(
    connection: "AsyncConnection[Any]",
    which: UUID,
    changes: Mapping[str, Any],
    *,
    ref: str | None = None,
    aliases: Collection[str] | None = None,
) -> bool:
    """Do what `update_entry` does on an event loop."""
    found = True
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        if changes:
            await cursor.execute(*_changing(which, changes))
            found = await cursor.fetchone() is not None
        if ref is not None:
            await cursor.execute(_RENAME, {"id": which, "ref": ref})
            if await cursor.fetchone() is None:
                raise _taken(ref)
        if aliases is not None:
            await cursor.execute(_NO_ALIASES, {"id": which})
            await cursor.execute(_ALIASES, _named(which, aliases))
            _check_aliases(aliases, await cursor.fetchall())
    return found


def delete_entries(connection: "Connection[Any]", ids: Sequence[UUID]) -> list[UUID]:
    """Delete all of the entries or none, and return which there were; raise `EntryInUse` where one is pinned."""
    values = {"ids": list(ids)}
    try:
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            cursor.execute(_UNPIN_OLD, values)
            return [row["id"] for row in cursor.execute(_DELETE, values).fetchall()]
    except psycopg.errors.ForeignKeyViolation:
        raise _in_use() from None


async def delete_entries_async(connection: "AsyncConnection[Any]", ids: Sequence[UUID]) -> list[UUID]:
    """Do what `delete_entries` does on an event loop."""
    values = {"ids": list(ids)}
    try:
        async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_UNPIN_OLD, values)
            await cursor.execute(_DELETE, values)
            return [row["id"] for row in await cursor.fetchall()]
    except psycopg.errors.ForeignKeyViolation:
        raise _in_use() from None


def delete_entry(connection: "Connection[Any]", which: UUID) -> bool:
    """Delete one entry, and return whether there was one; raise `EntryInUse` where it is pinned."""
    return bool(delete_entries(connection, [which]))


def who(reader: Reader) -> dict[str, Any]:
    """Return the values that `MARKED` and `VISIBLE` ask for."""
    return {"owner": reader.owner, "key": reader.key, "is_admin": reader.is_admin}


def entry_of(row: DictRow) -> Entry:
    """Return the entry of a row that has `COLUMNS`."""
    own = {name: row.pop(f"own_{name}") for name in Marks.model_fields}
    marks = Marks() if own["active"] is None else Marks(**own)
    return Entry.model_validate({**row, "marks": marks})


def new_row(model: ModelEntry, facts: Facts) -> dict[str, Any]:
    """Return the columns of a new entry."""
    drawn = model.model_dump(mode="json")
    said = {name: value for name, value in facts.values().items() if name != "aliases"}
    return {
        **drawn,
        "components": Jsonb(drawn["components"]),
        "weight_bytes": model.bytes,
        **{name: _column(name, value) for name, value in said.items()},
    }


def _column(name: str, value: Any) -> Any:
    if name == "files":
        return Jsonb([each if isinstance(each, Mapping) else each.model_dump() for each in value])
    if name in {"hashes", "metadata"}:
        return Jsonb(dict(value))
    if name == "path":
        return str(value)
    if name in {"tags", "trigger_words"} or (name == "allowed_keys" and value is not None):
        return list(value)
    return value


def _changing(which: UUID, changes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    unknown = sorted(changes.keys() - {*CHANGEABLE, *LEARNT})
    if unknown:
        raise KeyError(f"no such column of an entry can be changed: {', '.join(unknown)}")
    settings = ", ".join(f"{name} = %({name})s" for name in changes)
    values = {name: _column(name, value) for name, value in changes.items()}
    return f"update models set {settings}, changed_at = now() where id = %(which)s returning id", values | {
        "which": which
    }


def _reading(which: UUID | str, kinds: Iterable[Kind], reader: Reader) -> tuple[str, dict[str, Any]]:
    values = {"kinds": [kind.value for kind in kinds], **who(reader)}
    if isinstance(which, UUID):
        return _BY_ID, values | {"id": which}
    return _BY_NAME, values | {"ref": which}


def _choose(rows: list[DictRow], which: UUID | str) -> Entry | None:
    found = [(row.pop("place"), entry_of(row)) for row in rows]
    nearest = min((place for place, _ in found), default=0)
    best: dict[Kind, Entry] = {}
    for place, entry in found:
        if place == nearest and (entry.kind not in best or _age(entry) > _age(best[entry.kind])):
            best[entry.kind] = entry
    if len(best) > 1:
        kinds = ", ".join(sorted(best))
        raise RefAmbiguous(f"Entries of the kinds {kinds} are named {str(which)[:100]!r}: say which, or give the id.")
    return next(iter(best.values()), None)


def _age(entry: Entry) -> Any:
    # One whose files are away is no version to draw with.
    return (entry.missing_since is None, version_order(entry.version), entry.created_at, entry.id)


def _made(row: DictRow | None, ref: str) -> UUID:
    if row is None:
        raise _taken(ref)
    made: UUID = row["id"]
    return made


def _named(which: UUID, aliases: Collection[str]) -> dict[str, Any]:
    return {"id": which, "aliases": list(aliases)}


def _check_aliases(wanted: Collection[str], stored: Collection[DictRow]) -> None:
    missing = sorted(set(wanted) - {row["alias"] for row in stored})
    if missing:
        raise RefTaken(f"The alias {missing[0][:100]!r} is another entry's of this kind, or given twice.", "aliases")


def _taken(ref: str) -> RefTaken:
    return RefTaken(f"An entry of this kind is named {ref[:100]!r} already.", "name")


def _in_use() -> EntryInUse:
    return EntryInUse("The entry is in use: somebody needs its files still.")
