"""Read a VAE by itself: a diffusers folder, or one file in the original or in diffusers' layout."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import diffusers
import torch

from jobs.errors import ModelDamaged, ModelMissing
from models_registry.entries import Layout, ModelEntry
from pipelines.latent_forms import channels_of, factor_of, has_frames
from pipelines.original.component import read_vae
from pipelines.precision import held_at
from pipelines.reading import CONFIG, check_component, name_failure, quieten, read_component, read_json

_CLASSES: Mapping[str, Any] = MappingProxyType(
    {"AutoencoderKL": diffusers.AutoencoderKL, "AutoencoderTiny": diffusers.AutoencoderTiny}
)


def load_vae(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Any:
    """Read a VAE onto a device, raising `ModelMissing`, or `ModelDamaged` with the file."""
    quieten()
    if entry.layout is Layout.SINGLE_FILE:
        return name_failure(entry.path, lambda: read_vae(entry.path, entry.family, dtype).to(device))
    config = entry.path / CONFIG
    if not config.is_file():
        raise ModelMissing(f"{config} is missing")
    content = read_json(config)
    name = content.get("_class_name") if isinstance(content, dict) else None
    cls = _CLASSES.get(str(name))
    if cls is None:
        raise ModelDamaged(f"{config} describes a {name}, which is no VAE for this family of models")
    variant = check_component(entry.path)
    held = held_at(entry.family, "vae", content, dtype)
    return name_failure(entry.path, lambda: read_component(cls, entry.path, variant, held).to(device))


def check_serves(vae: Any, own: Any, entry: ModelEntry) -> None:
    """Raise `ModelDamaged` unless a VAE reads latents of the same form as the model's own."""
    if has_frames(vae) != has_frames(own):
        raise ModelDamaged(f"{entry.path} was made for another model: only one of both has an axis for frames")
    form, wanted = _form(vae), _form(own)
    if form != wanted:
        raise ModelDamaged(
            f"{entry.path} was made for another model: its latents have {form[0]} channels at 1/{form[1]} of the size,"
            f" this model's {wanted[0]} at 1/{wanted[1]}"
        )
    if _shift(own) is not None and _shift(vae) is None:
        raise ModelDamaged(
            f"{entry.path} was made for another model: it does not say how its latents are shifted, as this model's does"
        )


def _shift(vae: Any) -> float | None:
    shift: float | None = getattr(vae.config, "shift_factor", None)
    return shift


def _form(vae: Any) -> tuple[int, int]:
    return channels_of(vae), factor_of(vae)
