"""The files an entry is made of: what they are called below it, and what they hold."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from models_registry.detection import Detected
from models_registry.reading.bounded_files import Reads
from models_registry.reading.hashing import Digests, hash_file, hash_weights
from models_registry.records import File
from models_registry.refusals import FileUnreadable, LinkOutside, NameInvalid


class KeptFile(NamedTuple):
    """One file of an entry."""

    #: Below the entry's folder; of an entry that is one file, below the folder it lies in.
    name: str
    place: Path
    bytes: int
    mtime_ns: int
    #: None until the file was read whole.
    digests: Digests | None

    @property
    def record(self) -> File:
        """Return it as the table keeps it."""
        sha256 = None if self.digests is None else self.digests.sha256
        return File(path=self.name, bytes=self.bytes, mtime_ns=self.mtime_ns, sha256=sha256)


def files_of(detected: Detected) -> list[KeptFile]:
    """Return the files of what was recognised, the one that names it first, with the hashes that came of recognising it."""
    place = detected.entry.path
    root = place if place.is_dir() else place.parent
    found = []
    for path, digests in detected.contents.files.items():
        name = path.relative_to(root).as_posix()
        if not name.isprintable():
            raise NameInvalid(place, "holds a file whose name is not printable UTF-8")
        facts = path.stat()
        found.append(KeptFile(name, path, facts.st_size, facts.st_mtime_ns, digests))
    return sorted(found, key=lambda file: (file.place != place, file.name))


def hash_all(detected: Detected, files: Iterable[KeptFile], reads: Reads) -> list[KeptFile]:
    """Read those files whole that were not yet, each once, raising `NotANumber` for weights that hold a NaN."""
    headers = {header.path: header for header in detected.weights.values()}
    hashed = []
    for file in files:
        header = headers.get(file.place)
        digests = file.digests or (hash_file(file.place, reads) if header is None else hash_weights(header, reads))
        facts = file.place.stat()
        if (facts.st_size, facts.st_mtime_ns) != (file.bytes, file.mtime_ns):
            raise FileUnreadable(file.place, "changed while it was read")
        hashed.append(file._replace(digests=digests))
    return hashed


def content_digest(files: Sequence[KeptFile], *, single: bool) -> str | None:
    """Return the SHA-256 of the one file, or of the list of names and hashes; None while a file was not read whole."""
    if any(file.digests is None for file in files):
        return None
    known = [(file.name, file.digests.sha256) for file in files if file.digests is not None]
    return known[0][1] if single else hashlib.sha256(json.dumps(sorted(known)).encode()).hexdigest()


def refuse_outside(paths: Iterable[Path], roots: Iterable[Path]) -> None:
    """Raise `LinkOutside` for a path that a link leads out of the folders it may lie in; these have no links themselves."""
    roots = list(roots)
    for path in paths:
        try:
            real = path.resolve()
        except (OSError, RuntimeError):
            raise FileUnreadable(path, "is a link that leads to itself") from None
        if not any(real.is_relative_to(root) for root in roots):
            raise LinkOutside(path, "is a link that leads out of the folders that are looked through")
