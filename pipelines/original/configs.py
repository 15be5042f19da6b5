"""How the components of a file in the original layout are built: what lies beside it, else what its family was published with.

Beside `model.safetensors` may lie a folder `model.config`, laid out as a diffusers folder without weights (`unet/config.json`, …); what it
says holds.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from jobs.errors import ModelDamaged
from models_registry.kinds.single_files import config_folder
from pipelines.original.published import Published
from pipelines.reading import read_json

_FILES: Mapping[str, str] = MappingProxyType({"scheduler": "scheduler_config.json"})


def read_config(path: Path, component: str) -> dict[str, Any] | None:
    """Return the configuration that lies beside a file for one component, raising `ModelDamaged` when it cannot be read."""
    found = config_folder(path) / component / _FILES.get(component, "config.json")
    # Beside a VAE by itself there is only one component to describe.
    if not found.is_file() and component == "vae":
        found = config_folder(path) / "config.json"
    if not found.is_file():
        return None
    content = read_json(found)
    if not isinstance(content, dict):
        raise ModelDamaged(f"{found} is no configuration")
    return content


def component_config(
    path: Path, component: str, title: str, published: Published, weights: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """Return the configuration of one component of a file, raising `ModelDamaged` for one that is no ordinary `title`.

    `weights` are named as `Published.rows` says.
    """
    config = read_config(path, component)
    if config is not None:
        return config
    for name, size in published.rows.items():
        weight = weights.get(name)
        if weight is None or weight.shape[0] != size:
            found = "is missing" if weight is None else f"has {weight.shape[0]} rows instead of {size}"
            raise ModelDamaged(
                f"{path} is no ordinary {title} ({name} {found}): its configuration must lie beside it,"
                f" in {config_folder(path).name}/{component}"
            )
    return dict(published.config)
