"""One component out of a file in the original layout: diffusers' own converters for UNet and VAE, the names of CLIP's two publishers."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
from accelerate import init_empty_weights
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from jobs.errors import ModelDamaged
from models_registry.families import BASE, FAMILIES
from pipelines.original.configs import component_config
from pipelines.original.published import Published, published
from pipelines.precision import held_at
from pipelines.reading import read_tensors

Weights = Mapping[str, torch.Tensor]

_UNET = "model.diffusion_model."
_VAES = ("first_stage_model.", "vae.")
_FIRST = "input_blocks.0.0.weight"
_TEXT_INNER = "text_model."
#: Buffers that older files keep among the weights.
_COMPUTED = ("position_ids",)
#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers

#: OpenCLIP's names → transformers', outside of the layers and inside of each.
_OPEN_CLIP: Mapping[str, str] = MappingProxyType(
    {
        "token_embedding.weight": "embeddings.token_embedding.weight",
        "positional_embedding": "embeddings.position_embedding.weight",
        "ln_final.weight": "final_layer_norm.weight",
        "ln_final.bias": "final_layer_norm.bias",
    }
)
_OPEN_CLIP_LAYER: Mapping[str, str] = MappingProxyType(
    {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
)
_BLOCK = re.compile(r"transformer\.resblocks\.(\d{1,3})\.(.+?)[._](weight|bias)")
_PROJECTION = "text_projection"


def build_unet(path: Path, weights: Weights, title: str, usual: Published, dtype: torch.dtype) -> Any:
    """Return the UNet of a whole checkpoint, raising `ModelDamaged` with the file and the tensor that is wrong."""
    own = below(weights, _UNET)
    config = component_config(path, "unet", title, usual, own)
    if _FIRST in own:
        # 4 channels, or 9 where a mask and a masked picture are drawn from.
        config.setdefault("in_channels", own[_FIRST].shape[1])
    return build(
        path,
        lambda: _DIFFUSERS.UNet2DConditionModel.from_config(config),
        convert_ldm_unet_checkpoint(dict(weights), config),
        dtype,
    )


def vae_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """Return the weights of a whole checkpoint's VAE without what stands before their names; empty where it has none."""
    return next((found for prefix in _VAES if (found := below(weights, prefix))), {})


def build_vae(path: Path, weights: Weights, family: str, dtype: torch.dtype) -> Any:
    """Return the VAE of a whole checkpoint, or of a file that holds nothing else."""
    own = vae_weights(weights) or dict(weights)
    config = component_config(path, "vae", FAMILIES[family].title, published(family, BASE)["vae"], own)
    # Files of a VAE alone come in diffusers' names too.
    converted = own if any(".resnets." in name for name in own) else convert_ldm_vae_checkpoint(own, config)
    held = held_at(family, "vae", config, dtype)
    return build(path, lambda: _DIFFUSERS.AutoencoderKL.from_config(config), converted, held)


def read_vae(path: Path, family: str, dtype: torch.dtype) -> Any:
    """Return the VAE that a file holds, alone or in a checkpoint."""
    weights, _ = read_tensors(path)
    return build_vae(path, weights, family, dtype)


def build_text_encoder(
    path: Path,
    weights: Weights,
    component: str,
    title: str,
    usual: Published,
    dtype: torch.dtype,
    *,
    projects: bool = False,
) -> Any:
    """Return a CLIP text encoder whose `weights` are those below its prefix; `projects` says that it tells of whole prompts too."""
    published_by_open_clip = "token_embedding.weight" in weights
    named = weights if published_by_open_clip else {_plain(name): tensor for name, tensor in weights.items()}
    rows = {_OPEN_CLIP.get(name, name): tensor for name, tensor in named.items()}
    config = component_config(path, component, title, usual, rows)
    layers = int(config.get("num_hidden_layers", 12))
    converted = from_open_clip(named, layers) if published_by_open_clip else dict(named)
    projection = converted.pop(f"{_PROJECTION}.weight", None)
    if not projects:
        return build(path, lambda: CLIPTextModel(CLIPTextConfig(**config)), converted, dtype)
    inner = {f"{_TEXT_INNER}{name}": tensor for name, tensor in converted.items()}
    if projection is not None:
        inner[f"{_PROJECTION}.weight"] = projection
    return build(path, lambda: CLIPTextModelWithProjection(CLIPTextConfig(**config)), inner, dtype)


def from_open_clip(weights: Weights, layers: int) -> dict[str, torch.Tensor]:
    """Return the weights of OpenCLIP's text tower under transformers' names, without layers that are never read."""
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        found = _BLOCK.fullmatch(name)
        if found is not None:
            if int(found[1]) < layers:
                converted |= _layer(f"encoder.layers.{found[1]}", found[2], found[3], tensor)
        elif name == _PROJECTION:
            converted[f"{_PROJECTION}.weight"] = tensor.T.contiguous()
        elif name != "logit_scale":
            converted[_OPEN_CLIP.get(name, name)] = tensor
    return converted


def below(weights: Weights, prefix: str) -> dict[str, torch.Tensor]:
    """Return the weights whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def build(path: Path, make: Callable[[], Any], weights: Weights, dtype: torch.dtype) -> Any:
    """Make a model without weights and give it these, each of them and no other, raising `ModelDamaged` with the tensor that is wrong."""
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
    return model.eval()


def _layer(start: str, part: str, end: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Rename one tensor of a layer; queries, keys and values lie in one there."""
    if part == "attn.in_proj":
        return {
            f"{start}.self_attn.{name}_proj.{end}": each.contiguous()
            for name, each in zip("qkv", tensor.chunk(3), strict=True)
        }
    return {f"{start}.{_OPEN_CLIP_LAYER.get(part, part)}.{end}": tensor}


def _plain(name: str) -> str:
    return name.removeprefix(_TEXT_INNER)
