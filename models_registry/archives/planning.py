"""Decide what becomes of each archived entry: by its content first, then by its name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from infra.database import Connection
from infra.storage import Storage
from models_registry.archives.contents import chunks_of, look_at
from models_registry.archives.reading import Archive
from models_registry.archives.refusals import ArchiveRefused
from models_registry.archives.report import Action, Conflict
from models_registry.contents.shelving import keys_of
from models_registry.detection import inspect
from models_registry.entries import ModelEntry
from models_registry.holders import Holders, nobody
from models_registry.library import VISIBLE, who
from models_registry.reading.bounded_files import Reads
from models_registry.records import Entry, Reader
from models_registry.refusals import ModelRefused
from models_registry.scanning.examining import Examined
from models_registry.scanning.places import is_place

_MOST_RENAMES: Final = 1000
_COLUMNS: Final = "id, name as ref, owner, sha256, fingerprint"
_NAMED: Final = f"select {_COLUMNS} from models where kind = %(kind)s and lower(name) = lower(%(ref)s)"
_SAME: Final = f"""
select {_COLUMNS} from models
where kind = %(kind)s and (sha256 = %(sha256)s or fingerprint = %(fingerprint)s) and missing_since is null and {VISIBLE}
order by lower(name) = lower(%(ref)s) desc, name limit 1
"""


@dataclass(frozen=True)
class Options:
    """How to import."""

    reader: Reader
    conflict: Conflict = "skip"
    dry_run: bool = False
    #: Where entries of a fleet's folders may lie.
    folders: Sequence[Path] = ()
    holders: Holders = nobody


@dataclass(frozen=True)
class Planned:
    """What becomes of one entry."""

    entry: Entry
    action: Action
    ref: str
    #: The row that it meets.
    existing: UUID | None = None
    #: That row has the same content: only what people say of it changes.
    same: bool = False
    #: Its files, looked at; None where it lies in a folder, is here already, or away.
    examined: Examined | None = None
    #: What was found in one of the fleet's folders.
    found: ModelEntry | None = None
    code: str | None = None
    message: str | None = None

    @property
    def keys(self) -> list[str]:
        """Return where the bytes of its files lie in storage."""
        return [] if self.examined is None else keys_of(self.examined)


def plan(
    connection: Connection,
    archive: Archive,
    storage: Storage,
    entry: Entry,
    options: Options,
    taken: set[tuple[str, str]],
) -> Planned:
    """Decide about one entry; `taken` holds the names that entries before it in the archive will have."""
    values = {
        "kind": entry.kind.value, "ref": entry.ref, "sha256": entry.sha256, "fingerprint": entry.fingerprint, **who(options.reader),
    }  # fmt: skip
    same = connection.execute(_SAME, values).fetchone()
    named = connection.execute(_NAMED, values).fetchone()
    if same is not None:
        own = same["ref"].lower() == entry.ref.lower()
        if own and options.conflict == "replace" and may_change(options.reader, same):
            return Planned(entry, "replaced", same["ref"], same["id"], same=True)
        told = "The same file is here." if own else f"The same file is here as {same['ref']}."
        return Planned(entry, "skipped", same["ref"], same["id"], message=told)
    claim = (entry.kind.value, entry.ref.lower())
    if named is None and claim not in taken:
        chosen = Planned(entry, "created", entry.ref)
    elif options.conflict == "rename":
        chosen = Planned(entry, "renamed", _free_ref(connection, entry, taken))
    elif options.conflict == "skip" or named is None:
        return Planned(entry, "skipped", entry.ref, message="Another entry has this name.")
    elif not may_change(options.reader, named):
        told = "Another entry has this name, and is not yours to replace."
        return Planned(entry, "refused", entry.ref, code="name_taken", message=told)
    else:
        chosen = Planned(entry, "replaced", named["ref"], named["id"])
    taken.add((entry.kind.value, chosen.ref.lower()))
    return _with_content(archive, storage, chosen, options)


def may_change(reader: Reader, row: Any) -> bool:
    """Tell whether an entry is the reader's to change."""
    return reader.is_admin or row["owner"] == reader.owner


def _with_content(archive: Archive, storage: Storage, chosen: Planned, options: Options) -> Planned:
    entry = chosen.entry
    try:
        chunks = chunks_of(entry, archive, storage, trusts_storage=options.reader.is_admin)
        if chunks is not None:
            examined = look_at(_called(entry, chosen.ref), chunks, into=None if options.dry_run else storage)
            return replace(chosen, examined=examined)
        return replace(chosen, found=_in_folder(entry, options))
    except ModelRefused as refused:
        return replace(chosen, action="refused", code=refused.code, message=f"Its file {refused.reason}.")
    except ArchiveRefused as refused:
        return replace(chosen, action="refused", code=refused.code, message=refused.message)


def _in_folder(entry: Entry, options: Options) -> ModelEntry | None:
    """Return an entry that lies, with the same content, where it lay; only admins' archives may name paths of this machine."""
    below = any(entry.path.is_relative_to(folder.absolute()) for folder in options.folders)
    if not options.reader.is_admin or not below or ".." in entry.path.parts or not is_place(entry.path):
        return None
    try:
        found = inspect(entry.path, Reads()).entry
    except (ModelRefused, OSError):
        return None
    return found if (found.fingerprint, found.kind) == (entry.fingerprint, entry.kind) else None


def _called(entry: Entry, ref: str) -> Entry:
    name, _, version = ref.partition("@")
    return entry.model_copy(update={"ref": ref, "name": name, "version": version})


def _free_ref(connection: Connection, entry: Entry, taken: set[tuple[str, str]]) -> str:
    tail = f"@{entry.version}" if entry.version else ""
    for number in range(2, _MOST_RENAMES):
        ref = f"{entry.name}-{number}{tail}"
        row = connection.execute(_NAMED, {"kind": entry.kind.value, "ref": ref}).fetchone()
        if row is None and (entry.kind.value, ref.lower()) not in taken:
            return ref
    raise ArchiveRefused(f"No name like {entry.ref} is free")
