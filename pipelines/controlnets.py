"""Read a ControlNet from its files."""

from typing import Any

import diffusers
import torch

from jobs.errors import ModelDamaged
from models_registry.entries import Layout, ModelEntry
from pipelines.reading import check_component, name_failure, quieten, read_component


def load_controlnet(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a ControlNet onto a device, raising `ModelMissing`, `ModelDamaged` (naming the file) or `OutOfMemory`."""
    if entry.layout is not Layout.DIFFUSERS:
        raise ModelDamaged(f"{entry.path}: a ControlNet is read from a folder with config.json, not from a single file")
    quieten()
    variant = check_component(entry.path)
    return name_failure(
        entry.path, lambda: read_component(diffusers.ControlNetModel, entry.path, variant, dtype).to(device)
    )
