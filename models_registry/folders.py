"""Find the places below a folder that may be models."""

import os
from collections.abc import Iterator
from pathlib import Path

from models_registry.detection import INDEX, PICKLE_SUFFIXES
from models_registry.refusals import FolderMissing, FolderTooLarge, ModelRefused, PickleRefused, Unrecognised

MAX_DEPTH = 4
MAX_FOLDERS = 10_000
#: Folders that every diffusers model has: one of them without an index is a model in pieces.
_PIECES = frozenset({"unet", "vae", "text_encoder", "transformer"})


def model_folders(root: Path) -> Iterator[Path | ModelRefused]:
    """Yield the model folders at or below `root` by name, and a refusal for each thing that looks like a model and is none."""
    if not root.is_dir():
        yield FolderMissing(root, "is not a folder here")
        return
    yield from _below(root, MAX_DEPTH, set())


def _below(folder: Path, depth: int, seen: set[tuple[int, int]]) -> Iterator[Path | ModelRefused]:
    if (folder / INDEX).is_file():
        yield folder
        return
    facts = folder.stat()
    # A link may lead back up.
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    if len(seen) > MAX_FOLDERS:
        yield FolderTooLarge(folder, f"was not looked into: {MAX_FOLDERS} folders were searched before it")
        return
    with os.scandir(folder) as found:
        places = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [Path(entry.path) for entry in places if entry.is_dir()]
    if any(place.name in _PIECES for place in folders):
        yield Unrecognised(folder, f"holds parts of a model and no {INDEX}, which says what they are")
        return
    for entry in places:
        loose = None if entry.is_dir() else _loose_file(Path(entry.path))
        if loose is not None:
            yield loose
    if depth > 0:
        for place in folders:
            yield from _below(place, depth - 1, seen)


def _loose_file(path: Path) -> ModelRefused | None:
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        return PickleRefused(path, "is a pickle, which can run code when it is opened; only safetensors are opened")
    if suffix in {".safetensors", ".gguf"}:
        return Unrecognised(path, "is a single file; only diffusers folders are supported yet")
    return None
