"""Read a LoRA file (LoRA, LoCon, LoHa, LoKr) into what it adds to each layer. It does not know the model it will be added to."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from pipelines.adapters.deltas import Delta
from pipelines.adapters.keys import Component, Key, parse_key
from pipelines.adapters.rebuilding import IncompleteError, rebuild
from pipelines.precision import held_at
from pipelines.reading import name_failure, read_tensors

#: Where diffusers writes peft's configuration, as JSON.
_METADATA = "lora_adapter_metadata"


@dataclass(frozen=True, eq=False)
class Lora:
    """One LoRA on its device."""

    path: Path
    fingerprint: str
    #: By component, then by the layer's name as `keys.layer_name` tells it.
    deltas: Mapping[Component, Mapping[str, Delta]] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Return what it weighs."""
        return sum(delta.bytes for layers in self.deltas.values() for delta in layers.values())


def load_lora(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Lora:
    """Read a LoRA onto a device, raising `ModelMissing`, or `ModelDamaged` with the file and the tensor that is wrong."""
    dtype = held_at(entry.family, "lora", {}, dtype)
    tensors, metadata = read_tensors(entry.path)
    config = _config(entry.path, metadata)
    layers: dict[tuple[Component, str], dict[str, str]] = defaultdict(dict)
    for name, tensor in tensors.items():
        key = _key(entry.path, name, tensor)
        parts = layers[key.component, key.layer]
        if key.role in parts:
            raise ModelDamaged(f"{entry.path} has {name} twice: as {parts[key.role]} too")
        parts[key.role] = name
    deltas: dict[Component, dict[str, Delta]] = defaultdict(dict)
    for (component, layer), parts in layers.items():
        delta = _delta(
            entry.path, config.get(component, {}), layer, {role: (n, tensors[n]) for role, n in parts.items()}
        )
        deltas[component][layer] = name_failure(entry.path, lambda delta=delta: _moved(delta, device, dtype))  # type: ignore[misc]
    return Lora(entry.path, entry.fingerprint, deltas)


def _key(path: Path, name: str, tensor: torch.Tensor) -> Key:
    key = parse_key(name)
    if key is None:
        raise ModelDamaged(f"{path} has the tensor {name}, which is no part of a LoRA for this family of models")
    if key.role == "dora":
        raise ModelDamaged(f"{path} is a DoRA ({name}), which rescales the weights themselves: that is not supported")
    if not tensor.is_floating_point() and key.role != "alpha":
        raise ModelDamaged(f"{path} has the tensor {name} in whole numbers")
    if not tensor.float().isfinite().all():
        raise ModelDamaged(f"{path} has numbers in the tensor {name} that are none (NaN or infinity)")
    return key


def _delta(path: Path, config: Mapping[str, Any], layer: str, named: Mapping[str, tuple[str, torch.Tensor]]) -> Delta:
    parts = {role: tensor.float() for role, (_, tensor) in named.items()}
    alpha = parts.pop("alpha", None)
    # A message names a matrix where there is one.
    key = min((role == "alpha", name) for role, (name, _) in named.items())[1]
    if alpha is not None and alpha.numel() != 1:
        raise ModelDamaged(f"{path} has an alpha that is no number: {named['alpha'][0]}")
    strength = float(alpha) if alpha is not None else _configured_alpha(config, layer)
    try:
        return rebuild(key, parts, strength, root=bool(config.get("use_rslora")))
    except IncompleteError as problem:
        raise ModelDamaged(f"{path} has, around {key}, {problem}") from None


def _config(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return peft's configuration by component, as diffusers writes it beside the tensors."""
    if _METADATA not in metadata:
        return {}
    try:
        flat = json.loads(metadata[_METADATA])
        nested: dict[str, dict[str, Any]] = defaultdict(dict)
        for name, value in flat.items():
            component, _, setting = name.partition(".")
            nested[component][setting] = value
    except (ValueError, AttributeError):
        raise ModelDamaged(f"{path} has metadata that cannot be read: {_METADATA}") from None
    if any(config.get("use_dora") for config in nested.values()):
        raise ModelDamaged(f"{path} is a DoRA, which rescales the weights themselves: that is not supported")
    return nested


def _configured_alpha(config: Mapping[str, Any], layer: str) -> float | None:
    """Return the alpha that peft's configuration gives a layer: that of the longest pattern its name ends with, else the common one."""
    patterns = config.get("alpha_pattern") or {}
    fitting = [name for name in patterns if f"_{layer}".endswith(f"_{name.replace('.', '_')}")]
    value = patterns[max(fitting, key=len)] if fitting else config.get("lora_alpha")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _moved(delta: Delta, device: torch.device, dtype: torch.dtype) -> Delta:
    """Return a delta at the model's precision; products were taken in full."""
    changes = {
        # A copy: where a tensor begins in its file decides how it is multiplied, and so its last bit.
        name: value.to(device, dtype, copy=True).contiguous()
        for name, value in vars(delta).items()
        if isinstance(value, torch.Tensor)
    }
    return type(delta)(**{**vars(delta), **changes})
