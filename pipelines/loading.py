"""From a catalogue entry to a loaded family, from local files alone.

It does not decide what stays loaded, and keeps nothing: the caller owns the family and closes it.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import diffusers
import torch
import transformers
from safetensors import safe_open

from jobs.errors import JobFailure, ModelDamaged, ModelMissing, OutOfMemory
from models_registry.entries import Layout, ModelEntry
from models_registry.families import FAMILIES
from pipelines.engine.engine import Counters
from pipelines.failures import attempt
from pipelines.families.base import Family
from pipelines.families.sd15 import StableDiffusion15
from pipelines.previews import preview_matrix

FAMILY_CLASSES: Mapping[str, type[Family]] = MappingProxyType({family.name: family for family in (StableDiffusion15,)})

_INDEX = "model_index.json"
_LIBRARIES: Mapping[str, Any] = MappingProxyType({"diffusers": diffusers, "transformers": transformers})
#: Named in folders and never loaded: nothing here judges pictures.
_UNUSED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})
#: Components without weights.
_TOOLS = ("Tokenizer", "TokenizerFast", "Scheduler")


class _Part(NamedTuple):
    """One component of a folder."""

    name: str
    path: Path
    cls: Any


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
    index = _read_index(entry)
    parts = [_find_part(entry.path, name, value) for name, value in sorted(index.items()) if _is_part(name, value)]
    # Everything is looked at before the first gigabyte is read.
    variants = {part.name: _check_part(part) for part in parts}
    dtype = default_dtype(device) if dtype is None else dtype
    # A worker's terminal is not theirs to draw on.
    for library in _LIBRARIES.values():
        library.utils.logging.disable_progress_bar()
    models = {
        part.name: _attempt(part.path, lambda part=part: _read_model(part, variants[part.name], dtype).to(device))  # type: ignore[misc]
        for part in parts
        if _has_weights(part)
    }
    pipe = _attempt(entry.path, lambda: _assemble(entry.path, index, models))
    preview = _attempt(entry.path, lambda: preview_matrix(entry.path, pipe.vae))
    counters.loads += 1
    return family(pipe, entry, preview, counters)


def default_dtype(device: torch.device) -> torch.dtype:
    """Return the precision a device draws in: CPUs have no fast half precision."""
    return torch.float16 if device.type in {"cuda", "mps"} else torch.float32


def check_weights_file(path: Path) -> None:
    """Raise `ModelDamaged` when a safetensors file's header or length is wrong."""
    try:
        with safe_open(path, framework="pt") as weights:
            weights.keys()
    # safetensors raises exceptions of its own beside OSError.
    except Exception as error:  # noqa: BLE001
        raise ModelDamaged(f"{path} is damaged: {error}") from None


def _read_index(entry: ModelEntry) -> Mapping[str, Any]:
    path = entry.path / _INDEX
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    index = _check_json(path)
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in FAMILIES[entry.family].pipeline_classes:
        raise ModelDamaged(f"{path} describes a {name}, which is no {FAMILIES[entry.family].title}")
    return dict(index)


def _is_part(name: str, value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] is not None and name not in _UNUSED  # noqa: PLR2004 - [library, class]


def _find_part(folder: Path, name: str, value: list[str]) -> _Part:
    library = _LIBRARIES.get(value[0])
    cls = getattr(library, value[1], None) if library is not None and not value[1].startswith("_") else None
    if cls is None:
        raise ModelDamaged(f"{folder / _INDEX} wants {value[0]}.{value[1]} as {name}, which is unknown here")
    return _Part(name, folder / name, cls)


def _has_weights(part: _Part) -> bool:
    return not part.cls.__name__.endswith(_TOOLS)


def _check_part(part: _Part) -> str | None:
    """Raise unless every file of the part is there and whole; return the weights' variant (`fp16`), if any."""
    if not part.path.is_dir():
        raise ModelMissing(f"{part.path} is missing")
    for path in sorted(part.path.glob("*.json")):
        _check_json(path)
    if not _has_weights(part):
        return None
    if not (part.path / "config.json").is_file():
        raise ModelMissing(f"{part.path / 'config.json'} is missing")
    files = sorted(part.path.glob("*.safetensors"))
    if not files:
        raise ModelMissing(f"{part.path} holds no safetensors weights")
    for path in files:
        check_weights_file(path)
    # `diffusion_pytorch_model.fp16.safetensors`; the plain file wins where both are.
    return None if any(path.name.count(".") == 1 for path in files) else files[0].name.split(".")[1]


def _check_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelDamaged(f"{path} cannot be read: {error}") from None


def _read_model(part: _Part, variant: str | None, dtype: torch.dtype) -> Any:
    model, report = part.cls.from_pretrained(
        part.path,
        local_files_only=True,
        use_safetensors=True,
        variant=variant,
        dtype=dtype,
        output_loading_info=True,
    )
    # The libraries fill what a file lacks with random numbers and go on.
    if missing := sorted(report["missing_keys"]):
        raise ModelDamaged(f"{part.path} lacks {len(missing)} tensors, {missing[0]} among them")
    return model.eval()


def _assemble(folder: Path, index: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    return getattr(diffusers, index["_class_name"]).from_pretrained(
        folder,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **models,
    )


def _attempt(path: Path, read: Callable[[], Any]) -> Any:
    """Call `read`, turning whatever a library raises into a failure that names the path."""
    try:
        return attempt(read)
    except (ModelDamaged, ModelMissing, OutOfMemory):
        raise
    except JobFailure as failure:
        damaged = ModelDamaged(f"{path} cannot be loaded: {failure.message}")
        damaged.__notes__ = getattr(failure, "__notes__", [])
        raise damaged from None
