"""Where the bytes of what is archived come from: storage, or the folders in which entries were found."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from infra.storage import ObjectMissing, Storage, StorageError
from models_registry.archives.manifest import file_member, preview_member
from models_registry.archives.writing import Member, SourceChanged
from models_registry.content import content_key
from models_registry.preview_bytes import preview_key

_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True)
class Source:
    """One file of an entry that can be read."""

    sha256: str
    size: int
    chunks: Callable[[], Iterator[bytes]]

    @property
    def member(self) -> Member:
        """Return it as a member of an archive."""
        return Member(file_member(self.sha256), self.chunks)


def file_sources(row: dict[str, Any], storage: Storage) -> list[Source] | None:
    """Return the files of an entry's row, and write the hashes that it lacks into its `files`; None where one of them is away.

    A file whose hash is not known yet is read for it now.
    """
    found = []
    for file in row["files"]:
        source = _of_storage(file, storage) if row["stored_at"] is not None else _of_folder(row["path"], file)
        if source is None:
            return None
        file["sha256"] = source.sha256
        found.append(source)
    return found or None


def preview_source(sha256: str, storage: Storage) -> Member:
    """Return a preview as a member of an archive."""
    return Member(preview_member(sha256), lambda: _stored(storage, preview_key(sha256)))


def _of_storage(file: dict[str, Any], storage: Storage) -> Source | None:
    sha256 = file["sha256"]
    if sha256 is None:
        return None
    key = content_key(sha256)
    try:
        size = storage.head(key).size
    except ObjectMissing:
        return None
    return Source(sha256, size, lambda: _stored(storage, key))


def _of_folder(path: str, file: dict[str, Any]) -> Source | None:
    place = Path(path)
    root = place if place.is_dir() else place.parent
    found = root / file["path"]
    if not found.is_file():
        return None
    sha256 = file["sha256"]
    if sha256 is None:
        with found.open("rb") as opened:
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    return Source(sha256, found.stat().st_size, lambda: _read(found))


def _stored(storage: Storage, key: str) -> Iterator[bytes]:
    try:
        yield from storage.stream(key)
    except StorageError as problem:
        raise SourceChanged(f"{key} cannot be read: {problem}") from None


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as problem:
        raise SourceChanged(f"{path.name} cannot be read: {problem.strerror}") from None
