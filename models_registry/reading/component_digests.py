"""Tell which components of a model equal those of another by content: from the hashes of files that were read whole anyway.

Where components lie in one file together, no hash of the file tells them apart, and whoever loads them compares them.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from models_registry.entries import Component, Layout, ModelEntry
from models_registry.reading.hashing import Digests


def with_digests(entry: ModelEntry, weights: Iterable[Path], digests: Mapping[Path, Digests | None]) -> ModelEntry:
    """Return an entry whose components have their digests, as far as the files of their weights were read whole."""
    files = list(weights)
    components = tuple(
        each.model_copy(update={"digest": _digest(_files_of(entry, each, files), digests)}) for each in entry.components
    )
    return entry.model_copy(update={"components": components})


def keep_digests(entry: ModelEntry, before: ModelEntry) -> ModelEntry:
    """Return an entry with the digests that it had before, for files that are the same and were not read whole again."""
    known = {(each.name, each.bytes): each.digest for each in before.components}
    components = tuple(
        each if each.digest else each.model_copy(update={"digest": known.get((each.name, each.bytes), "")})
        for each in entry.components
    )
    return entry.model_copy(update={"components": components})


def without_digests(entry: ModelEntry) -> ModelEntry:
    """Return an entry as it is told from its files' headers alone."""
    components = tuple(each.model_copy(update={"digest": ""}) for each in entry.components)
    return entry.model_copy(update={"components": components})


def _files_of(entry: ModelEntry, component: Component, weights: list[Path]) -> list[Path]:
    """Return the files that hold a component and nothing else."""
    if len(entry.components) == 1:
        return weights
    if entry.layout is Layout.DIFFUSERS:
        return [path for path in weights if path.parent == entry.path / component.name]
    return []


def _digest(files: list[Path], digests: Mapping[Path, Digests | None]) -> str:
    found = [each.sha256 for path in sorted(files) if (each := digests.get(path)) is not None]
    if not files or len(found) < len(files):
        return ""
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()
