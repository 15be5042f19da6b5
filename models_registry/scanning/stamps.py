"""Tell by names, sizes and times alone whether anything about a model has changed; nothing is opened."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from models_registry.detection import MAX_FILES
from models_registry.kinds.single_files import config_folder

#: Part of every stamp: with another number everything is looked at anew, because this program has learnt to read more.
RULES: Final = 2


def stamp_of(place: Path) -> str:
    """Return what changes when a file of a model, or of the folder beside it, appears, changes or goes."""
    digest = hashlib.sha256(f"{RULES}".encode())
    for path in _files(place):
        try:
            facts = path.stat()
            told = f"{facts.st_size}\0{facts.st_mtime_ns}"
        except OSError as problem:
            # A link to nowhere is a fact as well.
            told = f"{problem.errno}"
        digest.update(f"{os.path.relpath(path, place.parent)}\0{told}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from _below(place)
        return
    yield place
    yield from _below(config_folder(place))


def _below(folder: Path) -> Iterator[Path]:
    seen = 0
    for inner, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            seen += 1
            if seen > MAX_FILES:
                # What has more is no model.
                return
            yield Path(inner) / file
