"""Import an archive: look at all of it first, then write all rows in one transaction, or none."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg
from pydantic import ValidationError

from infra.advisory_locks import MODEL_SCAN
from infra.database import Connection
from infra.storage import ObjectMissing, Storage
from models_registry.archives.entry_rows import write_entry
from models_registry.archives.manifest import ENTRIES, file_member
from models_registry.archives.planning import Options, Planned, plan
from models_registry.archives.previews import check_previews, put_previews
from models_registry.archives.reading import Archive
from models_registry.archives.recipe_rows import import_recipes, read_recipes
from models_registry.archives.refusals import ImportRefused, RowInvalid
from models_registry.archives.report import ImportedEntry, ImportReport
from models_registry.content import content_key
from models_registry.entries import ModelRef
from models_registry.holders import LOCK
from models_registry.library import EntryInUse, RefTaken
from models_registry.preview_bytes import preview_key
from models_registry.recipes.store import Recipe
from models_registry.records import Entry

#: More than this is no archive of one fleet.
MOST_ENTRIES: Final = 200_000

_LOCK: Final = "select pg_advisory_xact_lock(%s)"
_WANTED_AGAIN: Final = "delete from garbage where key = any (%s)"
_ABANDON: Final = "insert into garbage (key) select unnest(%s::text[]) on conflict do nothing"


@dataclass(frozen=True)
class _Content:
    """Everything an archive holds, understood."""

    planned: Sequence[Planned]
    recipes: Sequence[Recipe]
    #: SHA-256 of the previews that rows will show.
    previews: frozenset[str]

    @property
    def keys(self) -> list[str]:
        """Return where the bytes of it lie in storage."""
        return [*map(preview_key, sorted(self.previews)), *(key for each in self.planned for key in each.keys)]


def import_archive(connection: Connection, storage: Storage, archive: Archive, options: Options) -> ImportReport:
    """Import an archive, or with `dry_run` only say what would become of it; raise an `ArchiveRefused` before anything changes."""
    archive.verify()
    entries, recipes = read_entries(archive), read_recipes(archive)
    check_previews(archive, [preview for entry in entries for preview in entry.previews])
    check_previews(archive, [recipe.preview for recipe in recipes if recipe.preview is not None])
    planned: list[Planned] = []
    try:
        taken: set[tuple[str, str]] = set()
        planned.extend(plan(connection, archive, storage, entry, options, taken) for entry in entries)
        planned[:] = _without_held(connection, planned, options)
        content = _Content(planned, recipes, _shown(archive, planned, recipes))
        if options.dry_run:
            return _foreseen(connection, content, options)
        _refuse_any(planned)
        return _carry_out(connection, storage, archive, content, options)
    except BaseException:
        if not options.dry_run:
            # The keeper looks whether anybody has them.
            connection.execute(_ABANDON, ([key for each in planned for key in each.keys],))
        raise


def read_entries(archive: Archive) -> list[Entry]:
    """Return the archive's entries, raising `RowInvalid`."""
    found: list[Entry] = []
    for row in archive.rows(ENTRIES):
        try:
            found.append(Entry.model_validate(row))
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RowInvalid(f"Entry {len(found)} cannot be understood: {where}: {first['msg']}", ENTRIES) from None
        if len(found) > MOST_ENTRIES:
            raise RowInvalid(f"The archive has more than {MOST_ENTRIES} entries", ENTRIES)
    return found


def _shown(archive: Archive, planned: Iterable[Planned], recipes: Iterable[Recipe]) -> frozenset[str]:
    shown = {preview.sha256 for each in planned if each.action != "skipped" for preview in each.entry.previews}
    shown |= {recipe.preview.sha256 for recipe in recipes if recipe.preview is not None}
    return frozenset(sha256 for sha256 in shown if archive.has(f"previews/{sha256}"))


def _without_held(connection: Connection, planned: Sequence[Planned], options: Options) -> list[Planned]:
    """Refuse to replace the files of what somebody needs still."""
    refs = [
        ModelRef(each.entry.kind, each.ref) if each.action == "replaced" and not each.same else None for each in planned
    ]
    held = options.holders(connection, [ref for ref in refs if ref is not None])
    return [
        replace(each, action="refused", code="in_use", message=f"A job that has not ended names {each.ref}.")
        if ref in held
        else each
        for ref, each in zip(refs, planned, strict=True)
    ]


def _refuse_any(planned: Iterable[Planned]) -> None:
    refused = [each for each in planned if each.action == "refused"]
    if refused:
        first = refused[0]
        more = f" ({len(refused) - 1} more; a dry run lists them)" if len(refused) > 1 else ""
        raise ImportRefused(
            f"{first.entry.ref} cannot be imported ({first.code}): {first.message}{more}", first.entry.ref
        )


def _foreseen(connection: Connection, content: _Content, options: Options) -> ImportReport:
    return ImportReport(
        dry_run=True,
        entries=[_told(each, each.existing) for each in content.planned],
        recipes=import_recipes(connection, content.recipes, options, content.previews),
        previews=len(content.previews),
    )


def _carry_out(
    connection: Connection, storage: Storage, archive: Archive, content: _Content, options: Options
) -> ImportReport:
    report = ImportReport(dry_run=False, previews=len(content.previews))
    put_previews(archive, storage, content.previews)
    try:
        with connection.transaction():
            connection.execute(_LOCK, (MODEL_SCAN,))
            connection.execute(LOCK)
            _refuse_any(_without_held(connection, content.planned, options))
            connection.execute(_WANTED_AGAIN, (content.keys,))
            for each in content.planned:
                identity = write_entry(connection, each, options.reader, content.previews, report.warnings)
                report.entries.append(_told(each, identity))
            report.recipes = import_recipes(connection, content.recipes, options, content.previews)
    except (RefTaken, EntryInUse) as problem:
        raise ImportRefused(f"Nothing was imported: {problem.message}") from None
    except psycopg.errors.UniqueViolation:
        raise ImportRefused("Nothing was imported: the library changed meanwhile. Try again.") from None
    # What the keeper was about to remove is gone now.
    put_previews(archive, storage, content.previews)
    for each in content.planned:
        _store_again(storage, archive, each)
    return report


def _store_again(storage: Storage, archive: Archive, each: Planned) -> None:
    for file in each.examined.files if each.examined is not None else ():
        sha256 = "" if file.digests is None else file.digests.sha256
        if not archive.has(file_member(sha256)):
            continue
        try:
            storage.head(content_key(sha256))
        except ObjectMissing:
            with tempfile.NamedTemporaryFile(prefix="imagefleet-import-") as draft:
                for chunk in archive.stream(file_member(sha256)):
                    draft.write(chunk)
                draft.flush()
                storage.put_file(content_key(sha256), Path(draft.name))


def _told(each: Planned, identity: UUID | None) -> ImportedEntry:
    here = each.action == "skipped" or each.same or each.found is not None
    return ImportedEntry(
        kind=each.entry.kind.value,
        ref=each.entry.ref,
        action=each.action,
        as_ref=None if each.action == "refused" else each.ref,
        id=identity,
        files=None if each.action == "refused" else "here" if here else "away" if each.examined is None else "included",
        code=each.code,
        message=each.message,
    )
