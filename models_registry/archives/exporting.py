"""Export chosen entries and recipes: what they are, their previews, and their files or what names them."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid4

from infra.database import Connection
from infra.storage import Storage
from models_registry.archives.manifest import ENTRIES, RECIPES, Files
from models_registry.archives.sources import Source, file_sources, preview_source
from models_registry.archives.spools import Spool
from models_registry.archives.writing import MEMBER_OVERHEAD, About, Member, write_archive
from models_registry.entries import Kind
from models_registry.library import COLUMNS, MARKED, VISIBLE, entry_of, who
from models_registry.pins import pin, unpin
from models_registry.recipes.store import COLUMNS as RECIPE_COLUMNS
from models_registry.recipes.store import Recipe
from models_registry.records import Entry, Reader

#: An export may take so long before entries that it has not come to can be deleted again.
PIN_SECONDS: Final = 6 * 3600.0
_BATCH: Final = 200


@dataclass(frozen=True)
class Selection:
    """Which entries and recipes to export; what is None is not asked for, and a selection of nothing is everything."""

    entries: Sequence[UUID] | None = None
    kinds: Sequence[Kind] | None = None
    families: Sequence[str] | None = None
    tag: str | None = None
    #: Only one's own, only those one has active, only favourites.
    own: bool = False
    active: bool = False
    favourite: bool = False
    #: Own recipes with these ids; None for all of them, empty for none.
    recipes: Sequence[UUID] | None = None


_WANTED: Final = f"""
select {COLUMNS}, models.files, models.metadata from models {MARKED}
where {VISIBLE} and (%(ids)s::uuid[] is null or models.id = any (%(ids)s))
  and (%(kinds)s::text[] is null or models.kind = any (%(kinds)s)) and (%(families)s::text[] is null or models.family = any (%(families)s))
  and (%(tag)s::text is null or models.tags @> array[%(tag)s::text]) and (not %(own)s or models.owner = %(owner)s)
  and (not %(active)s or marks.active) and (not %(favourite)s or marks.favourite)
order by models.found_at, models.kind, models.name
"""
_RECIPES: Final = f"""
select {RECIPE_COLUMNS} from recipes
where (owner = %(owner)s or %(is_admin)s) and (%(recipes)s::uuid[] is null or id = any (%(recipes)s)) order by id
"""


@dataclass
class Collected:
    """What an export holds, ready to be written; close it."""

    files: Files
    entries: Spool
    recipes: Spool
    previews: set[str] = field(default_factory=set)
    sources: dict[str, Source] = field(default_factory=dict)
    without_files: list[str] = field(default_factory=list)
    ids: list[UUID] = field(default_factory=list)
    preview_bytes: int = 0

    @property
    def bytes(self) -> int:
        """Return the size that the archive will have, to within some kilobytes."""
        members = 3 + len(self.previews) + len(self.sources)
        named = 4 * 75 * (len(self.previews) + len(self.sources))
        content = sum(source.size for source in self.sources.values())
        return (
            self.entries.bytes + self.recipes.bytes + self.preview_bytes + content + named + members * MEMBER_OVERHEAD
        )

    def members(self, storage: Storage) -> Iterator[Member]:
        """Yield the members in their order."""
        yield self.entries.member
        yield self.recipes.member
        for sha256 in sorted(self.previews):
            yield preview_source(sha256, storage)
        for sha256 in sorted(self.sources):
            yield self.sources[sha256].member

    def about(self, kind: str) -> About:
        """Return what the manifest says."""
        return About(kind, self.files, self.entries.rows, self.recipes.rows, tuple(self.without_files))

    def close(self) -> None:
        """Remove what was spooled."""
        self.entries.close()
        self.recipes.close()


def collect(connection: Connection, storage: Storage, selection: Selection, reader: Reader, files: Files) -> Collected:
    """Read what an export holds, as it was at one moment; files that are away are left out and named."""
    found = Collected(files, Spool(ENTRIES), Spool(RECIPES))
    values = {
        **who(reader), "ids": _listed(selection.entries), "kinds": _listed(selection.kinds), "families": _listed(selection.families),
        "tag": selection.tag, "own": selection.own, "active": selection.active, "favourite": selection.favourite,
        "recipes": _listed(selection.recipes),
    }  # fmt: skip
    with contextlib.ExitStack() as undo:
        undo.callback(found.close)
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            # Files whose hash is not known are read in between.
            connection.execute("set local idle_in_transaction_session_timeout = 0")
            with connection.cursor(f"export_{uuid4().hex}") as cursor:
                cursor.itersize = _BATCH
                for row in cursor.execute(_WANTED, values):
                    _add(found, entry_of(row), storage)
            for row in connection.execute(_RECIPES, values):
                recipe = Recipe.model_validate(row)
                found.recipes.add(recipe)
                if recipe.preview is not None and recipe.preview.sha256 not in found.previews:
                    found.previews.add(recipe.preview.sha256)
                    found.preview_bytes += recipe.preview.bytes
        undo.pop_all()
    return found


def export(connection: Connection, storage: Storage, collected: Collected) -> Iterator[bytes]:
    """Yield the archive; meanwhile its entries cannot be deleted. Raises `SourceChanged` where a file is not as recorded."""
    holder = f"export {uuid4()}"
    if collected.sources:
        pin(connection, collected.ids, holder, PIN_SECONDS)
    try:
        yield from write_archive(collected.members(storage), collected.about("export"))
    finally:
        collected.close()
        unpin(connection, holder)


def _add(found: Collected, entry: Entry, storage: Storage) -> None:
    row = entry.model_dump(mode="json")
    if found.files == "include":
        sources = None if entry.missing_since is not None else file_sources(row, storage)
        if sources is None:
            found.without_files.append(entry.ref)
        else:
            found.sources |= {source.sha256: source for source in sources}
    found.ids.append(entry.id)
    found.entries.add(row)
    for preview in entry.previews:
        if preview.sha256 not in found.previews:
            found.previews.add(preview.sha256)
            found.preview_bytes += preview.bytes


def _listed(given: Sequence[Any] | None) -> list[Any] | None:
    return None if given is None else list(given)
