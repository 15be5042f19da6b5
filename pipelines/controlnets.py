"""Read a ControlNet from its files."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import diffusers
import torch

from jobs.errors import ModelDamaged
from models_registry.entries import Layout, ModelEntry
from pipelines.precision import held_at
from pipelines.reading import CONFIG, check_component, name_failure, quieten, read_component, read_json

#: Settings of ControlNets that are given more than a picture.
_UNREAD: Mapping[str, str] = MappingProxyType(
    {
        "extra_conditioning_channels": "reads a mask beside its control picture",
        "extra_condition_channels": "reads a mask beside its control picture",
        "num_mode": "is several ControlNets in one, of which a job cannot name one",
    }
)
#: One for the denoisers of each kind.
_CLASSES = frozenset({"ControlNetModel", "SD3ControlNetModel", "FluxControlNetModel", "QwenImageControlNetModel"})


def load_controlnet(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a ControlNet onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    if entry.layout is not Layout.DIFFUSERS:
        raise ModelDamaged(f"{entry.path}: a ControlNet is read from a folder with config.json, not from a single file")
    quieten()
    variant = check_component(entry.path)
    content = read_json(entry.path / CONFIG)
    name = str(content.get("_class_name") if isinstance(content, dict) else None)
    if name not in _CLASSES:
        raise ModelDamaged(f"{entry.path / CONFIG} describes a {name}, which is no ControlNet that can be used")
    for setting, what in _UNREAD.items():
        if isinstance(content, dict) and content.get(setting):
            raise ModelDamaged(f"{entry.path} {what}, which is not supported")
    cls, dtype = getattr(diffusers, name), held_at(entry.family, "controlnet", content, dtype)
    return name_failure(entry.path, lambda: read_component(cls, entry.path, variant, dtype).to(device))
