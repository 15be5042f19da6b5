"""One component out of a file in the original layout, by diffusers' own converters."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

from jobs.errors import ModelDamaged
from pipelines.original.configs import component_config
from pipelines.reading import read_tensors

Weights = Mapping[str, torch.Tensor]

_UNET = "model.diffusion_model."
_VAE = "first_stage_model."
_TEXT = "cond_stage_model.transformer."
_TEXT_INNER = "text_model."
#: Buffers that older files keep among the weights.
_COMPUTED = ("position_ids",)
#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers


def build_unet(path: Path, weights: Weights, dtype: torch.dtype) -> Any:
    """Return the UNet of a whole checkpoint, raising `ModelDamaged` with the file and the tensor that is wrong."""
    config = component_config(path, "unet", _below(weights, _UNET))
    return _build(
        path,
        lambda: _DIFFUSERS.UNet2DConditionModel.from_config(config),
        convert_ldm_unet_checkpoint(dict(weights), config),
        dtype,
    )


def build_vae(path: Path, weights: Weights, dtype: torch.dtype) -> Any:
    """Return the VAE of a whole checkpoint, or of a file that holds nothing else."""
    own = _below(weights, _VAE) or dict(weights)
    config = component_config(path, "vae", own)
    # Files of a VAE alone come in diffusers' names too.
    converted = own if any(".resnets." in name for name in own) else convert_ldm_vae_checkpoint(own, config)
    return _build(path, lambda: _DIFFUSERS.AutoencoderKL.from_config(config), converted, dtype)


def build_text_encoder(path: Path, weights: Weights, dtype: torch.dtype) -> Any:
    """Return the CLIP text encoder of a whole checkpoint."""
    converted = {
        name.removeprefix(_TEXT_INNER): tensor for name, tensor in convert_ldm_clip_checkpoint(dict(weights)).items()
    }
    config = component_config(path, "text_encoder", converted)
    return _build(path, lambda: CLIPTextModel(CLIPTextConfig(**config)), converted, dtype)


def read_vae(path: Path, dtype: torch.dtype) -> Any:
    """Return the VAE that a file holds, alone or in a checkpoint."""
    weights, _ = read_tensors(path)
    return build_vae(path, weights, dtype)


def _below(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _build(path: Path, make: Callable[[], Any], weights: Weights, dtype: torch.dtype) -> Any:
    """Make a model without weights and give it these, every one of them and no other."""
    # Buffers are computed and not stored: those are made for real.
    with init_empty_weights(include_buffers=False):
        model = make()
    wanted = model.state_dict()
    given = {name: tensor for name, tensor in weights.items() if not name.endswith(_COMPUTED)}
    if missing := sorted(wanted.keys() - given.keys()):
        raise ModelDamaged(f"{path} lacks {len(missing)} tensors, {missing[0]} among them")
    if surplus := sorted(given.keys() - wanted.keys()):
        raise ModelDamaged(
            f"{path} has {len(surplus)} tensors that its configuration knows nothing of, {surplus[0]} among them"
        )
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape:
            raise ModelDamaged(
                f"{path} has {name} of shape {tuple(tensor.shape)}, where {tuple(wanted[name].shape)} is wanted"
            )
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in given.items()}, assign=True)
    return model.eval().requires_grad_(requires_grad=False)
