"""Find the files and folders below a folder that may be models."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from models_registry.detection import CONFIG, INDEX
from models_registry.kinds.preprocessors import is_annotators
from models_registry.kinds.single_files import config_folder
from models_registry.reading.bounded_files import Reads, open_bounded
from models_registry.reading.configs import MAX_CONFIG_BYTES
from models_registry.reading.weights import PICKLE_SUFFIXES
from models_registry.refusals import FolderMissing, FolderTooLarge, ModelRefused, PickleRefused, Unrecognised

MAX_DEPTH = 4
MAX_FOLDERS = 10_000
#: Folders that every diffusers model has: one of them without an index beside it is a model in pieces.
_PIECES = frozenset({"unet", "vae", "text_encoder", "transformer"})
_SAFETENSORS = ".safetensors"


def places(
    root: Path, reads: Reads, is_known: Callable[[Path], bool] = lambda _: False
) -> Iterator[Path | ModelRefused]:
    """Yield the models at or below `root` by name, and a refusal for each thing that looks like a model and is none.

    A folder that is known to be one place, as it is now, is not opened.
    """
    if not root.is_dir():
        yield FolderMissing(root, "is not a folder here")
        return
    yield from _below(root, MAX_DEPTH, set(), reads, is_known)


def is_place(path: Path) -> bool:
    """Tell whether something that may be a model is there."""
    return path.is_file() or any((path / name).is_file() for name in (INDEX, CONFIG)) or _has_weights(path)


def _below(
    folder: Path, depth: int, seen: set[tuple[int, int]], reads: Reads, is_known: Callable[[Path], bool]
) -> Iterator[Path | ModelRefused]:
    if (folder / INDEX).is_file() or (
        (folder / CONFIG).is_file() and (is_known(folder) or _is_component(folder, reads))
    ):
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
        entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [Path(entry.path) for entry in entries if _is_folder(entry)]
    # Other programs keep loose VAEs in a folder called `vae`.
    if any(place.name in _PIECES and (place / CONFIG).is_file() for place in folders):
        yield Unrecognised(folder, f"holds parts of a model and no {INDEX}, which says what they are")
        return
    files = [Path(entry.path) for entry in entries if not _is_folder(entry)]
    # What lies beside a single file describes it, and is no model of its own.
    beside = {config_folder(path) for path in files if path.suffix.lower() == _SAFETENSORS}
    if is_annotators(folder.parent) and _has_weights(folder):
        # The networks of one annotator.
        yield folder
        files = [path for path in files if path.suffix.lower() != _SAFETENSORS]
    for path in files:
        yield from _loose_file(path)
    if depth > 0:
        for place in (each for each in folders if each not in beside):
            yield from _below(place, depth - 1, seen, reads, is_known)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself must not hide what lies beside it.
        return False


def _is_component(folder: Path, reads: Reads) -> bool:
    """Tell whether the folder's configuration is diffusers'; other programs use the same name for theirs."""
    with open_bounded(folder / CONFIG, reads) as file:
        return b'"_class_name"' in file.read_at(0, MAX_CONFIG_BYTES)


def _has_weights(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix.lower() == _SAFETENSORS for path in folder.iterdir())


def _loose_file(path: Path) -> Iterator[Path | ModelRefused]:
    suffix = path.suffix.lower()
    if suffix == _SAFETENSORS:
        yield path
    elif suffix in PICKLE_SUFFIXES:
        yield PickleRefused(path, "is a pickle, which can run code when it is opened; only safetensors are opened")
    elif suffix == ".gguf":
        yield Unrecognised(path, "is a GGUF file; only safetensors are supported yet")
