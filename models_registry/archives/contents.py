"""Look at the files of an archived entry as at any file that is brought: nothing an archive says of them is believed."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from infra.storage import ObjectMissing, Storage
from models_registry.archives.manifest import file_member
from models_registry.archives.reading import Archive
from models_registry.archives.refusals import ArchiveTooLarge, RowInvalid
from models_registry.content import content_key
from models_registry.contents.shelving import Wanted, check, check_name, keep
from models_registry.entries import Kind, Layout
from models_registry.reading.bounded_files import Reads
from models_registry.records import Entry, File
from models_registry.scanning.examining import Examined

#: Longer paths of an entry's files are no paths of a model.
_LONGEST_PATH: Final = 300
#: What annotators' weights must lie in.
_ANNOTATORS: Final = "annotators"

Chunks = Callable[[File], Iterator[bytes]]


def chunks_of(entry: Entry, archive: Archive, storage: Storage, *, trusts_storage: bool) -> Chunks | None:
    """Return how to read an entry's files: out of the archive, else, for who may, out of storage; None where they are away."""
    if not entry.files or any(file.sha256 is None for file in entry.files):
        return None
    if all(archive.has(file_member(file.sha256 or "")) for file in entry.files):
        return lambda file: archive.stream(file_member(file.sha256 or ""))
    if trusts_storage and all(_is_stored(storage, file) for file in entry.files):
        return lambda file: storage.stream(content_key(file.sha256 or ""))
    return None


def look_at(entry: Entry, chunks: Chunks, *, into: Storage | None) -> Examined:
    """Lay an entry's files out, examine them, and keep their bytes in storage where one is given; nothing else is left.

    Raises a `ModelRefused` for what is no model, or not the one it claims to be.
    """
    check_name(Path(entry.name), Wanted(entry.name, entry.version))
    size = sum(file.bytes for file in entry.files)
    with tempfile.TemporaryDirectory(prefix="imagefleet-import-") as folder:
        free = shutil.disk_usage(folder).free
        if size > free:
            raise ArchiveTooLarge(f"{entry.ref} has {size} bytes, and {free} are free to lay it out")
        place = _lay_out(entry, chunks, Path(folder))
        examined = check(place, Wanted(entry.name, entry.version, entry.kind, entry.sha256), Reads())
        keep(into, examined)
    return examined


def _lay_out(entry: Entry, chunks: Chunks, folder: Path) -> Path:
    single = entry.layout is Layout.SINGLE_FILE
    root = folder / (_ANNOTATORS if entry.kind is Kind.PREPROCESSOR else "models")
    place = root / (f"{entry.name}.safetensors" if single else entry.name)
    for number, file in enumerate(entry.files):
        parts = _parts(file)
        if not single:
            target = place.joinpath(*parts)
        elif number == 0:
            target = place
        else:
            target = root.joinpath(f"{entry.name}.config", *parts[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as out:
            for chunk in chunks(file):
                out.write(chunk)
    return place


def _parts(file: File) -> tuple[str, ...]:
    path = PurePosixPath(file.path)
    parts = path.parts
    odd = any(part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts)
    if path.is_absolute() or odd or not parts or len(file.path) > _LONGEST_PATH:
        raise RowInvalid(f"A file of an entry lies at {file.path[:200]!r}, which is no path below it")
    return parts


def _is_stored(storage: Storage, file: File) -> bool:
    try:
        return storage.head(content_key(file.sha256 or "")).size == file.bytes
    except ObjectMissing:
        return False
