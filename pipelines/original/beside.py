"""Parts of a checkpoint that lie beside its file, as folders of diffusers with their own weights."""

from typing import Any

import torch

from jobs.errors import ModelMissing
from models_registry.entries import ModelEntry
from models_registry.kinds.single_files import config_folder
from pipelines.precision import held_at
from pipelines.reading import CONFIG, check_component, name_failure, read_component, read_json


def lies_beside(entry: ModelEntry, component: str) -> bool:
    """Tell whether a component has weights of its own beside the file."""
    return any((config_folder(entry.path) / component).glob("*.safetensors"))


def read_beside(entry: ModelEntry, component: str, cls: Any, dtype: torch.dtype) -> Any:
    """Return a component that the file does not hold, raising `ModelMissing` where none lies beside it, or `ModelDamaged`."""
    folder = config_folder(entry.path) / component
    if not lies_beside(entry, component):
        raise ModelMissing(
            f"{entry.path} holds no {component}, and none lies beside it as {folder.parent.name}/{component}"
        )
    variant = check_component(folder)
    held = held_at(entry.family, component, read_json(folder / CONFIG), dtype)
    return name_failure(folder, lambda: read_component(cls, folder, variant, held))
