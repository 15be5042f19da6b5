"""Recognise what a file or folder holds, from plain JSON and safetensors headers alone; no library opens anything here."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.entries import Layout, ModelEntry
from models_registry.findings import Findings
from models_registry.kinds import (
    controlnets,
    embeddings,
    loras,
    preprocessors,
    upscalers,
    vaes,
)
from models_registry.kinds.checkpoints import files, folders
from models_registry.reading.bounded_files import Reads
from models_registry.reading.component_digests import with_digests
from models_registry.reading.configs import Config, read_config
from models_registry.reading.fingerprint import Contents, read_contents
from models_registry.reading.safetensors_header import Header, read_header
from models_registry.refusals import ClassRefused, CodeRefused, FolderTooLarge, NameInvalid, Unrecognised

INDEX: Final = "model_index.json"
CONFIG: Final = "config.json"
CODE_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyd", ".so"})
MAX_FILES: Final = 1_000
MAX_NAME: Final = 200
#: No size of a real model comes near.
MAX_FACT: Final = 1_000_000
_NUMBERS: Final = (
    "native_size",
    "latent_factor",
    "latent_channels",
    "text_width",
    "text_layers",
    "width",
    "scale",
    "rank",
    "vectors",
)

#: Tried in this order; each returns None for what is not its own, and raises for what is its own and cannot be used.
_OF_FILES: Final[tuple[Callable[[Header, Reads], Findings | None], ...]] = (
    # What lies among annotators may look like anything.
    preprocessors.from_file,
    loras.from_file,
    files.from_file,
    controlnets.from_file,
    embeddings.from_file,
    vaes.from_file,
    upscalers.from_file,
)
#: The class that a component's config.json names → what reads it.
_OF_CLASSES: Final[Mapping[str, Callable[[Config, Reads], Findings]]] = MappingProxyType(
    {
        "ControlNetModel": controlnets.from_unet_folder,
        "SD3ControlNetModel": controlnets.from_sd3_folder,
        "FluxControlNetModel": controlnets.from_flux_folder,
        "QwenImageControlNetModel": controlnets.from_qwenimage_folder,
        "AutoencoderKL": vaes.from_folder,
        "AutoencoderTiny": vaes.tiny_from_folder,
    }
)


class Detected(NamedTuple):
    """Tell what a file or folder is, and which files it needs."""

    entry: ModelEntry
    contents: Contents
    #: By names that do not depend on where the files lie.
    weights: Mapping[str, Header]


def detect(place: Path, reads: Reads) -> ModelEntry:
    """Recognise one file or folder, raising a `ModelRefused` that says why it is not offered."""
    return inspect(place, reads).entry


def inspect(place: Path, reads: Reads) -> Detected:
    """Recognise one file or folder as `detect` does, and say which files it is made of."""
    name = model_name(place)
    layout, found = _in_folder(place, reads) if place.is_dir() else (Layout.SINGLE_FILE, _in_file(place, reads))
    facts = found._asdict()
    for fact in _NUMBERS:
        if (facts[fact] or 0) > MAX_FACT:
            raise Unrecognised(place, f"has a {fact.replace('_', ' ')} that no model has")
    weights, others = facts.pop("weights"), facts.pop("others")
    contents = read_contents(weights, others, reads)
    entry = ModelEntry(name=name, layout=layout, path=place, fingerprint=contents.fingerprint, **facts)
    entry = with_digests(entry, (header.path for header in weights.values()), contents.files)
    return Detected(entry, contents, weights)


def model_name(place: Path) -> str:
    """Return the name that a file or folder gives its model, raising `NameInvalid` when people could not write it."""
    name = place.name if place.is_dir() else place.name.removesuffix(place.suffix)
    # A name that is not UTF-8 arrives with lone surrogates, which are not printable either.
    if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip() or not str(place).isprintable():
        raise NameInvalid(place, f"has a path that is not printable UTF-8, or a name longer than {MAX_NAME} characters")
    return name


def _in_folder(folder: Path, reads: Reads) -> tuple[Layout, Findings]:
    _refuse_code(folder)
    if (folder / INDEX).is_file():
        return Layout.DIFFUSERS, folders.from_folder(read_config(folder / INDEX, reads), reads)
    if not (folder / CONFIG).is_file():
        return Layout.FOLDER, preprocessors.from_folder(folder, reads)
    config = read_config(folder / CONFIG, reads)
    named = config.values.get("_class_name")
    known = _OF_CLASSES.get(named) if isinstance(named, str) else None
    if known is None:
        raise ClassRefused(config.path, f"names the class {str(named)[:60]!r}, which is not on the list of known ones")
    return Layout.DIFFUSERS, known(config, reads)


def _in_file(path: Path, reads: Reads) -> Findings:
    header = read_header(path, reads)
    for recognise in _OF_FILES:
        found = recognise(header, reads)
        if found is not None:
            return found
    first = min(header.tensors)
    raise Unrecognised(path, f"holds tensors of no model that is known here: {first[:80]!r} and others")


def _refuse_code(folder: Path) -> None:
    seen = 0
    for place, _, names in os.walk(folder):
        seen += len(names)
        if seen > MAX_FILES:
            raise FolderTooLarge(folder, f"holds more than {MAX_FILES} files; a model folder holds one model")
        for file in names:
            if Path(file).suffix.lower() in CODE_SUFFIXES:
                raise CodeRefused(Path(place) / file, "is program code; a model folder must hold none")
