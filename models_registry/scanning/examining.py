"""Look at one file or folder that may be a model, and keep of it what the library wants to know."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from models_registry.detection import inspect
from models_registry.entries import Layout, ModelEntry
from models_registry.files import KeptFile, content_digest, files_of, hash_all, refuse_outside
from models_registry.reading.bounded_files import Reads
from models_registry.reading.component_digests import with_digests
from models_registry.reading.header_facts import header_facts


class Examined(NamedTuple):
    """A file or folder that may become an entry."""

    entry: ModelEntry
    #: The one that names it first.
    files: Sequence[KeptFile]
    #: What the headers say.
    said: Mapping[str, Any]

    @property
    def sha256(self) -> str | None:
        """Return the SHA-256 of the one file, or of the list of names and hashes; None while a file was not read whole."""
        return content_digest(self.files, single=self.is_single)

    @property
    def hashes(self) -> dict[str, str]:
        """Return what else sites look the one file up by."""
        digests = self.files[0].digests if self.is_single else None
        return {} if digests is None else digests.by_name()

    @property
    def is_single(self) -> bool:
        """Tell whether one file names it."""
        return self.entry.layout is Layout.SINGLE_FILE


def examine(place: Path, roots: Iterable[Path], reads: Reads, *, whole: bool) -> Examined:
    """Recognise and check a file or folder, raising a `ModelRefused`; nothing of it may lie outside of the roots.

    With `whole` every file is read to its end, no part of it twice but its header and what the fingerprint is made of; without, only
    what is small is.
    """
    refuse_outside([place], roots)
    detected = inspect(place, reads)
    files = files_of(detected)
    refuse_outside([file.place for file in files], roots)
    entry = detected.entry
    if whole:
        files = hash_all(detected, files, reads)
        weights = (header.path for header in detected.weights.values())
        entry = with_digests(entry, weights, {file.place: file.digests for file in files})
    return Examined(entry, files, header_facts(detected.weights.values()))
