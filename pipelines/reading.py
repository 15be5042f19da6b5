"""One component from local files: everything is looked at before the first gigabyte is read, and what is broken is named.

It knows no model family and no catalogue: a folder or a file and a class come in, a module comes out.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from jobs.errors import JobFailure, ModelDamaged, ModelMissing, OutOfMemory
from pipelines.failures import attempt

CONFIG = "config.json"
#: By the names that a `model_index.json` gives them.
LIBRARIES: Mapping[str, Any] = MappingProxyType({"diffusers": diffusers, "transformers": transformers})

Read = TypeVar("Read")


def name_failure(path: Path, read: Callable[[], Read]) -> Read:
    """Call `read`, turning whatever a library raises into a failure that names the path."""
    try:
        return attempt(read)
    except (ModelDamaged, ModelMissing, OutOfMemory):
        raise
    except JobFailure as failure:
        damaged = ModelDamaged(f"{path} cannot be loaded: {failure.message}")
        damaged.__notes__ = getattr(failure, "__notes__", [])
        raise damaged from None


def quieten() -> None:
    """Switch off the libraries' progress bars: a worker's terminal is not theirs to draw on."""
    for library in LIBRARIES.values():
        library.utils.logging.disable_progress_bar()


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, raising `ModelDamaged` when it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelDamaged(f"{path} cannot be read: {error}") from None


def check_weights_file(path: Path) -> None:
    """Raise `ModelDamaged` when a safetensors file's header or length is wrong."""
    try:
        with safe_open(path, framework="pt") as weights:
            weights.keys()
    # safetensors raises exceptions of its own beside OSError.
    except Exception as error:  # noqa: BLE001
        raise ModelDamaged(f"{path} is damaged: {error}") from None


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return every tensor of a safetensors file, on the CPU as stored, and its metadata; raises `ModelMissing` or `ModelDamaged`."""
    if not path.is_file():
        raise ModelMissing(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys()}, dict(weights.metadata() or {})  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ModelDamaged(f"{path} is damaged: {error}") from None


def check_component(folder: Path, *, has_weights: bool = True) -> str | None:
    """Raise unless every file of a component's folder is there and whole; return the weights' variant (`fp16`), if any."""
    if not folder.is_dir():
        raise ModelMissing(f"{folder} is missing")
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    if not has_weights:
        return None
    if not (folder / CONFIG).is_file():
        raise ModelMissing(f"{folder / CONFIG} is missing")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelMissing(f"{folder} holds no safetensors weights")
    for path in files:
        check_weights_file(path)
    # `diffusion_pytorch_model.fp16.safetensors`; the plain file wins where both are.
    return None if any(path.name.count(".") == 1 for path in files) else files[0].name.split(".")[1].partition("-")[0]


def read_tokenizer(folder: Path, name: str = "PreTrainedTokenizerFast") -> Any:
    """Return a tokenizer of a class of transformers, which for the usual one does what its `tokenizer.json` says."""
    cls = getattr(transformers, name)
    return name_failure(folder, lambda: cls.from_pretrained(folder, local_files_only=True))


def read_component(cls: Any, folder: Path, variant: str | None, dtype: torch.dtype) -> Any:
    """Return a model read from its folder, raising `ModelDamaged` when tensors are missing; call it within `name_failure`."""
    model, report = cls.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        variant=variant,
        dtype=dtype,
        output_loading_info=True,
    )
    # The libraries fill what a file lacks with random numbers and go on.
    if missing := sorted(report["missing_keys"]):
        raise ModelDamaged(f"{folder} lacks {len(missing)} tensors, {missing[0]} among them")
    return model.eval()
