"""A whole checkpoint as a diffusers pipeline, from local files alone: a folder in diffusers' layout, or a single file.

It knows no family that draws: whoever asks makes one of the pipeline, or uses parts of it.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.diffusers_classes import TOKENIZERS_INSIDE
from models_registry.entries import Layout, ModelEntry
from models_registry.families import FAMILIES
from pipelines.components import Components
from pipelines.families.pipes import neutral_options
from pipelines.original.checkpoint import read_checkpoint
from pipelines.precision import held_at
from pipelines.reading import (
    CONFIG,
    LIBRARIES,
    check_component,
    name_failure,
    quieten,
    read_component,
    read_json,
    read_tokenizer,
)

_INDEX = "model_index.json"
#: Named in folders and never loaded: nothing here judges pictures.
_UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: Stable Diffusion 3 draws without its third text encoder, which weighs more than everything else.
_MAY_LACK = ("text_encoder_3", "tokenizer_3")
#: Components without weights.
_TOOLS = ("Tokenizer", "TokenizerFast", "Processor", "Scheduler")


class _Part(NamedTuple):
    """One component of a folder."""

    name: str
    path: Path
    cls: Any


def read_pipe(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    """Load a checkpoint onto the components' device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    quieten()
    if entry.layout is Layout.SINGLE_FILE:
        return read_checkpoint(entry, components, dtype)
    return _read_folder(entry, components, dtype)


def _read_folder(entry: ModelEntry, components: Components, dtype: torch.dtype) -> Any:
    index = _read_index(entry)
    parts = [
        _find_part(entry.path, name, value)
        for name, value in sorted(index.items())
        if _is_part(name, value) and not _is_left_out(entry.path, name)
    ]
    # Everything is looked at before the first gigabyte is read.
    variants = {part.name: check_component(part.path, has_weights=_has_weights(part)) for part in parts}
    models = {
        part.name: _take(entry, part, variants[part.name], components, dtype) for part in parts if _has_weights(part)
    }
    here = {part.name for part in parts}
    left_out = dict.fromkeys(name for name in _MAY_LACK if name not in here)
    # Of what reads pictures too only what cuts words is read.
    inside = {part.name: read_tokenizer(part.path) for part in parts if part.cls.__name__ in TOKENIZERS_INSIDE}
    given = {**left_out, **models, **dict.fromkeys(inside)}
    pipe = name_failure(entry.path, lambda: _assemble(entry.path, index, given))
    pipe.register_modules(**inside)
    return pipe


def _take(entry: ModelEntry, part: _Part, variant: str | None, components: Components, dtype: torch.dtype) -> Any:
    digest = next((each.digest for each in entry.components if each.name == part.name), "")
    config = read_json(part.path / CONFIG)
    held = held_at(entry.family, part.name, config, dtype)
    return components.take(
        digest,
        part.cls,
        config,
        held,
        lambda: name_failure(part.path, lambda: read_component(part.cls, part.path, variant, held)),
    )


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
