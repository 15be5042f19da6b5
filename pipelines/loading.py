"""From a catalogue entry to a loaded family, from local files alone.

It does not decide what stays loaded, and keeps nothing: the caller owns the family and closes it.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import diffusers
import torch

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Layout, ModelEntry
from models_registry.families import FAMILIES
from pipelines.components import Components
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.families.flux import Flux
from pipelines.families.pipes import neutral_options
from pipelines.families.sd2 import StableDiffusion2
from pipelines.families.sd3 import StableDiffusion3
from pipelines.families.sd15 import StableDiffusion15
from pipelines.families.sdxl import StableDiffusionXL
from pipelines.loaders import LOADERS
from pipelines.original.checkpoint import read_checkpoint
from pipelines.previews import preview_matrix
from pipelines.reading import CONFIG, LIBRARIES, check_component, name_failure, quieten, read_component, read_json
from pipelines.shelf import Shelf

FAMILY_CLASSES: Mapping[str, type[Family]] = MappingProxyType(
    {family.name: family for family in (StableDiffusion15, StableDiffusion2, StableDiffusionXL, StableDiffusion3, Flux)}
)

_INDEX = "model_index.json"
#: Named in folders and never loaded: nothing here judges pictures.
_UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: Stable Diffusion 3 draws without its third text encoder, which weighs more than everything else.
_MAY_LACK = ("text_encoder_3", "tokenizer_3")
#: Components without weights.
_TOOLS = ("Tokenizer", "TokenizerFast", "Scheduler")


class _Part(NamedTuple):
    """One component of a folder."""

    name: str
    path: Path
    cls: Any


def load(
    entry: ModelEntry,
    device: torch.device | str,
    dtype: torch.dtype | None = None,
    counters: Counters | None = None,
    shelf: Shelf | None = None,
) -> Family:
    """Load a model onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`.

    `dtype` None takes float32 on a CPU, whatever is stored, and half precision elsewhere. What jobs add to the model is taken from the
    shelf, which may serve several models of one device and precision: what two of them have in common is then there once. Left out, the
    model has one of its own.
    """
    counters = Counters() if counters is None else counters
    family = FAMILY_CLASSES.get(entry.family)
    if family is None:
        raise ModelDamaged(f"no pipeline draws with a {entry.family} model")
    device = torch.device(device)
    dtype = default_dtype(device) if dtype is None else dtype
    shelf = Shelf(LOADERS, device, dtype, counters) if shelf is None else shelf
    quieten()
    single = entry.layout is Layout.SINGLE_FILE
    pipe = (read_checkpoint if single else _read_folder)(entry, shelf.components, dtype)
    # A single file has no folder of its own to bring a matrix in.
    preview = name_failure(entry.path, lambda: preview_matrix(None if single else entry.path, pipe.vae))
    counters.loads += 1
    return family(pipe, entry, preview, counters, shelf)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the precision a device draws in: CPUs have no fast half precision."""
    return torch.float16 if device.type in {"cuda", "mps"} else torch.float32


def _read_folder(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    index = _read_index(entry)
    parts = [
        _find_part(entry.path, name, value)
        for name, value in sorted(index.items())
        if _is_part(name, value) and not _is_left_out(entry.path, name)
    ]
    # Everything is looked at before the first gigabyte is read.
    variants = {part.name: check_component(part.path, has_weights=_has_weights(part)) for part in parts}
    digests = {each.name: each.digest for each in entry.components}
    models = {
        part.name: components.take(
            digests.get(part.name, ""),
            part.cls,
            read_json(part.path / CONFIG),
            dtype,
            lambda part=part: _read_part(part, variants[part.name], dtype),  # type: ignore[misc]
        )
        for part in parts
        if _has_weights(part)
    }
    here = {part.name for part in parts}
    left_out = dict.fromkeys(name for name in _MAY_LACK if name not in here)
    return name_failure(entry.path, lambda: _assemble(entry.path, index, {**left_out, **models}))


def _read_part(part: _Part, variant: str | None, dtype: torch.dtype) -> Any:
    return name_failure(part.path, lambda: read_component(part.cls, part.path, variant, dtype))


def _read_index(entry: ModelEntry) -> Mapping[str, Any]:
    path = entry.path / _INDEX
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    index = read_json(path)
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in FAMILIES[entry.family].pipeline_classes:
        raise ModelDamaged(f"{path} describes a {name}, which is no {FAMILIES[entry.family].title}")
    return dict(index)


def _is_part(name: str, value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] is not None and name not in _UNUSED  # noqa: PLR2004 - [library, class]


def _find_part(folder: Path, name: str, value: list[str]) -> _Part:
    library = LIBRARIES.get(value[0])
    cls = getattr(library, value[1], None) if library is not None and not value[1].startswith("_") else None
    if cls is None:
        raise ModelDamaged(f"{folder / _INDEX} wants {value[0]}.{value[1]} as {name}, which is unknown here")
    return _Part(name, folder / name, cls)


def _has_weights(part: _Part) -> bool:
    return not part.cls.__name__.endswith(_TOOLS)


def _is_left_out(folder: Path, name: str) -> bool:
    """Tell whether a part that is often deleted to save room is not there at all; one that is there in part is damaged."""
    return name in _MAY_LACK and not (folder / name).exists()


def _assemble(folder: Path, index: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    cls = getattr(diffusers, index["_class_name"])
    wanted = inspect.signature(cls.__init__).parameters
    own = {name: model for name, model in models.items() if name in wanted}
    return cls.from_pretrained(folder, local_files_only=True, **{**neutral_options(cls), **own})
