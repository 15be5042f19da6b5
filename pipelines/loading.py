"""From a catalogue entry to a loaded family, from local files alone.

It does not decide what stays loaded, and keeps nothing: the caller owns the family and closes it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from safetensors import safe_open

from jobs.errors import JobFailure, ModelDamaged, ModelMissing
from models_registry.entries import Layout, ModelEntry
from pipelines.engine.engine import Counters
from pipelines.failures import as_failure
from pipelines.families.base import Family
from pipelines.families.sd15 import StableDiffusion15
from pipelines.previews import preview_matrix

FAMILY_CLASSES: Mapping[str, type[Family]] = MappingProxyType({family.name: family for family in (StableDiffusion15,)})

_INDEX = "model_index.json"
#: Libraries whose components have weights of their own, unless the class is one of the tools below.
_TOOLS = ("Tokenizer", "Scheduler", "Processor", "Extractor")
_UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})


def load(
    entry: ModelEntry, device: torch.device | str, dtype: torch.dtype | None = None, counters: Counters | None = None
) -> Family:
    """Load a model onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`.

    `dtype` None takes float32 on a CPU, whatever is stored, and half precision elsewhere.
    """
    counters = Counters() if counters is None else counters
    family = FAMILY_CLASSES.get(entry.family)
    if family is None or entry.layout is not Layout.DIFFUSERS:
        raise ModelDamaged(f"no pipeline draws with a {entry.family} model stored as {entry.layout}")
    device = torch.device(device)
    index = _read_index(entry.path)
    variant = check_folder(entry.path, index)
    failure: JobFailure | None = None
    try:
        pipe = _read_pipeline(entry.path, index, variant, dtype or default_dtype(device)).to(device)
        loaded = family(pipe, entry, preview_matrix(entry.path, pipe.vae), counters)
    # Every reader raises its own kind; what counts is which file it was, or that memory ran out.
    except Exception as error:  # noqa: BLE001
        failure = _as_load_failure(error, entry.path)
    if failure is not None:
        raise failure
    counters.loads += 1
    return loaded


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the precision a device draws in: CPUs have no fast half precision."""
    return torch.float16 if device.type in {"cuda", "mps"} else torch.float32


def check_folder(folder: Path, index: Mapping[str, Any]) -> str | None:
    """Raise unless every file the index promises is there and whole; return the weights' variant (`fp16`), if any.

    Reads headers, not weights: a truncated file is found by its length.
    """
    variants = set()
    for name, (library, cls) in sorted(_components(index).items()):
        part = folder / name
        if not part.is_dir():
            raise ModelMissing(f"{part} is missing")
        for path in sorted(part.glob("*.json")):
            _check_json(path)
        if library in {"diffusers", "transformers"} and not cls.removesuffix("Fast").endswith(_TOOLS):
            if not (part / "config.json").is_file():
                raise ModelMissing(f"{part / 'config.json'} is missing")
            variants.add(_check_weights(part))
    return next(iter(variants)) if len(variants) == 1 else None


def _components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        name: (str(value[0]), str(value[1]))
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None and name not in _UNUSED
    }


def _read_index(folder: Path) -> Mapping[str, Any]:
    path = folder / _INDEX
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    index = _check_json(path)
    if not isinstance(index, dict):
        raise ModelDamaged(f"{path} is no model index")
    return index


def _check_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelDamaged(f"{path} cannot be read: {error}") from None


def _check_weights(part: Path) -> str | None:
    files = sorted(part.glob("*.safetensors"))
    for listing in part.glob("*.safetensors.index.json"):
        for shard in set(_check_json(listing)["weight_map"].values()):
            if not (part / shard).is_file():
                raise ModelMissing(f"{part / shard} is missing")
    if not files:
        raise ModelMissing(f"{part} holds no safetensors weights")
    for path in files:
        check_weights_file(path)
    plain = [path for path in files if path.name.count(".") == 1]
    return None if plain else files[0].name.split(".")[1]


def check_weights_file(path: Path) -> None:
    """Raise `ModelDamaged` when a safetensors file's header or length is wrong."""
    try:
        with safe_open(path, framework="pt") as weights:
            weights.keys()
    # safetensors raises an exception class of its own that it does not export everywhere.
    except Exception as error:  # noqa: BLE001
        raise ModelDamaged(f"{path} is damaged: {error}") from None


def _read_pipeline(folder: Path, index: Mapping[str, Any], variant: str | None, dtype: torch.dtype) -> Any:
    # A worker's terminal is not theirs to draw on.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    return getattr(diffusers, str(index["_class_name"])).from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        variant=variant,
        dtype=dtype,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _as_load_failure(error: Exception, folder: Path) -> JobFailure:
    failure = as_failure(error)
    if failure.code in {"out_of_memory", "model_damaged", "model_missing"}:
        return failure
    damaged = ModelDamaged(f"{folder} cannot be loaded: {failure.message}")
    damaged.add_note("".join(getattr(failure, "__notes__", ())))
    return damaged
