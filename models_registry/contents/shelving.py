"""Take a file or folder in as an entry: recognise, check and hash it, keep its bytes in storage, and write the row.

The bytes lie once under their SHA-256, whoever brought them, and are stored before the row: a row always has its bytes.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from psycopg import AsyncConnection, Connection

from infra.storage import Storage
from models_registry.content import STORED, content_key
from models_registry.detection import MAX_NAME
from models_registry.entries import Kind, ModelEntry
from models_registry.library import RefTaken, create_entry, create_entry_async
from models_registry.reading.bounded_files import Reads
from models_registry.reading.header_facts import suggestions
from models_registry.records import Facts
from models_registry.refusals import HashMismatch, KindMismatch, LinkOutside, NameInvalid, NameTaken
from models_registry.scanning.examining import Examined, examine
from models_registry.versions import join_ref

#: What a single file is called there, whatever it was called.
_FILE: Final = "model.safetensors"
#: A name with one of these means something else in a path, in a prompt, or before a version.
_NOT_IN_NAMES: Final = frozenset("/\\:<>@")

#: Bytes that are wanted again must not be removed.
_WANTED_AGAIN: Final = "delete from garbage where key = any (%(keys)s)"
# Others may have the same bytes: the keeper looks before it removes them.
_ABANDON: Final = "insert into garbage (key) select unnest(%(keys)s::text[]) on conflict do nothing"


@dataclass(frozen=True)
class Wanted:
    """What an entry is to be called, and what its file was announced as."""

    name: str
    version: str = ""
    kind: Kind | None = None
    #: Of a single file, in hex digits.
    sha256: str | None = None

    @property
    def ref(self) -> str:
        """Return what a job names it by."""
        return join_ref(self.name, self.version)


class Shelved(NamedTuple):
    """An entry that was taken in."""

    id: UUID
    entry: ModelEntry
    sha256: str


def take_in(
    connection: "Connection[Any]",
    path: Path,
    wanted: Wanted,
    facts: Facts | None = None,
    *,
    storage: Storage | None,
    reads: Reads | None = None,
) -> Shelved:
    """Make a file or folder an entry, raising a `ModelRefused` that says why it is none; nothing is left of what was refused.

    The bytes are copied into storage, and `path` is the caller's to remove; without a storage the entry stays where it lies. What people
    left out of the facts is taken from the header, where that says it. Raises `StorageError` as the storage does.
    """
    examined = check(path, wanted, reads or Reads())
    keep(storage, examined)
    entry, given = as_entry(examined, facts or Facts(), stored=storage is not None)
    try:
        with connection.transaction():
            connection.execute(_WANTED_AGAIN, {"keys": keys_of(examined)})
            made = create_entry(connection, entry, given)
    except RefTaken as problem:
        if storage is not None:
            connection.execute(_ABANDON, {"keys": keys_of(examined)})
        raise NameTaken(path, _reason(problem)) from None
    # What the keeper was about to remove is gone now.
    keep(storage, examined)
    return Shelved(made, entry, examined.sha256 or "")


async def take_in_async(
    connection: "AsyncConnection[Any]",
    path: Path,
    wanted: Wanted,
    facts: Facts | None = None,
    *,
    storage: Storage | None,
    reads: Reads | None = None,
) -> Shelved:
    """Do as `take_in` does, from an event loop; files are read and stored in a thread."""
    examined = await asyncio.to_thread(check, path, wanted, reads or Reads())
    await asyncio.to_thread(keep, storage, examined)
    entry, given = as_entry(examined, facts or Facts(), stored=storage is not None)
    try:
        async with connection.transaction():
            await connection.execute(_WANTED_AGAIN, {"keys": keys_of(examined)})
            made = await create_entry_async(connection, entry, given)
    except RefTaken as problem:
        if storage is not None:
            await connection.execute(_ABANDON, {"keys": keys_of(examined)})
        raise NameTaken(path, _reason(problem)) from None
    await asyncio.to_thread(keep, storage, examined)
    return Shelved(made, entry, examined.sha256 or "")


def check(path: Path, wanted: Wanted, reads: Reads) -> Examined:
    """Recognise, check and hash a file or folder, raising a `ModelRefused`; nothing is written."""
    check_name(path, wanted)
    if path.is_symlink():
        raise LinkOutside(path, "is a link; only files themselves are taken in")
    found = examine(path, [(path if path.is_dir() else path.parent).resolve()], reads, whole=True)
    if wanted.kind is not None and found.entry.kind is not wanted.kind:
        raise KindMismatch(path, f"is a {found.entry.kind}, and was announced as a {wanted.kind}")
    if wanted.sha256 is not None and found.sha256 != wanted.sha256.lower():
        raise HashMismatch(
            path, f"has the SHA-256 {found.sha256}, and was announced with {wanted.sha256.lower()[:64]!r}"
        )
    return found._replace(entry=found.entry.model_copy(update={"name": wanted.ref}))


def keys_of(examined: Examined) -> list[str]:
    """Return where the bytes of what was read whole lie in storage."""
    return sorted({content_key(file.digests.sha256) for file in examined.files if file.digests is not None})


def check_name(path: Path, wanted: Wanted) -> None:
    """Raise `NameInvalid` unless people can write the name and the version in a prompt and in a path."""
    for word in (wanted.name, wanted.version):
        if _NOT_IN_NAMES & set(word) or word.startswith(".") or word != word.strip() or not word.isprintable():
            reason = "must not have spaces around it, begin with a full stop, or hold /, \\, :, <, >, @ or what is not printable"
            raise NameInvalid(path, f"cannot be called {word[:80]!r}: a name or version {reason}")
    if not wanted.name or len(wanted.ref) > MAX_NAME:
        raise NameInvalid(path, f"needs a name of at most {MAX_NAME} characters, its version included")


def keep(storage: Storage | None, examined: Examined) -> None:
    """Store the bytes of what was examined, where they are not stored already."""
    for file in examined.files:
        if storage is not None and file.digests is not None:
            storage.put_file(content_key(file.digests.sha256), file.place)


def as_entry(examined: Examined, facts: Facts, *, stored: bool) -> tuple[ModelEntry, Facts]:
    """Return what is written down of what was examined."""
    entry, said, files = examined.entry, examined.said, examined.files
    if stored:
        place = Path(STORED) / (examined.sha256 or "")
        if examined.is_single:
            files = [file._replace(name=_stored_name(file.name)) for file in files]
        entry = entry.model_copy(update={"path": place / _FILE if examined.is_single else place})
    return entry, replace(
        facts,
        **{name: getattr(facts, name) or value for name, value in suggestions(said).items()},
        sha256=examined.sha256,
        hashes=examined.hashes,
        files=[file.record for file in files],
        metadata={**said, **facts.metadata},
        stored_at=datetime.now(UTC) if stored else None,
    )


def _stored_name(name: str) -> str:
    """Return what a single file, or a file in the folder beside it, is called in storage, whatever it was called."""
    beside = Path(name).parts[1:]
    return Path(f"{Path(_FILE).stem}.config", *beside).as_posix() if beside else _FILE


def _reason(problem: RefTaken) -> str:
    return f"cannot be taken in: {problem.message[:1].lower()}{problem.message[1:].removesuffix('.')}"
