"""Write a diffusers folder of any family as one file, in the layout that its family was published in."""

import json
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from tests.original_layout import original_text_encoder, original_unet, original_vae
from tests.original_transformers import original_flux, original_sd3

Weights = dict[str, torch.Tensor]
NETWORK: Final = "model.diffusion_model."
_CLIP_NAMES: Final = (
    ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("text_model.encoder.layers", "transformer.resblocks"),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
)
#: What stands before each text encoder in the files of each family.
_TEXTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "StableDiffusion": {"text_encoder": "cond_stage_model.transformer."},
        "StableDiffusionXL": {
            "text_encoder": "conditioner.embedders.0.transformer.",
            "text_encoder_2": "conditioner.embedders.1.model.",
        },
        "StableDiffusion3": {
            "text_encoder": "text_encoders.clip_l.transformer.",
            "text_encoder_2": "text_encoders.clip_g.transformer.",
            "text_encoder_3": "text_encoders.t5xxl.transformer.",
        },
        "Flux": {
            "text_encoder": "text_encoders.clip_l.transformer.",
            "text_encoder_2": "text_encoders.t5xxl.transformer.",
        },
    }
)


def open_clip(weights: Weights, *, more_layers: int = 0) -> Weights:
    """Return a CLIP text encoder under OpenCLIP's names, with so many layers more behind its last one, which nobody reads."""
    named = {f"text_model.{name.removeprefix('text_model.')}": each for name, each in weights.items()}
    projection = named.pop("text_model.text_projection.weight", None)
    layers = 1 + max(int(found[1]) for name in named if (found := re.search(r"layers\.(\d+)\.", name)))
    for more in range(more_layers):
        last = {name: each for name, each in named.items() if f"layers.{layers - 1}." in name}
        named |= {
            name.replace(f"layers.{layers - 1}.", f"layers.{layers + more}."): each.clone()
            for name, each in last.items()
        }
    renamed: Weights = {}
    for name, tensor in named.items():
        if re.search(r"self_attn\.[kv]_proj\.", name):
            continue
        original, value = name, tensor
        if "self_attn.q_proj." in name:
            value = torch.cat([named[name.replace("q_proj", each)] for each in ("q_proj", "k_proj", "v_proj")])
            original = name.replace("self_attn.q_proj.", "attn.in_proj_")
        for new, old in _CLIP_NAMES:
            original = original.replace(new, old)
        renamed[original] = value
    if projection is not None:
        renamed["text_projection"] = projection.T.contiguous()
    return renamed


def write_file(
    folder: Path, path: Path, *, without: Collection[str] = (), beside: bool = True, bare: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:  # fmt: skip
    """Write a diffusers folder as one file, its configurations and tokenizers beside it; return the file.

    `without` leaves components out of the file, `bare` writes the network's names without what stands before them in whole checkpoints.
    """
    index = json.loads((folder / "model_index.json").read_text())
    kind = next(
        name
        for name in ("StableDiffusionXL", "StableDiffusion3", "StableDiffusion", "Flux")
        if index["_class_name"].startswith(name)
    )
    loaded = {
        place.name: load_file(next(place.glob("*.safetensors")))
        for place in sorted(folder.iterdir())
        if place.name not in without and list(place.glob("*.safetensors"))
    }
    tensors: Weights = {}
    for component, weights in loaded.items():
        tensors |= _original(kind, component, weights, folder, bare=bare)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A tensor that two components share is stored once for each.
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        path,
        dict(metadata or {"format": "pt"}),
    )
    if beside:
        for config in folder.glob("*/*"):
            if config.suffix != ".safetensors":
                place = path.with_name(f"{path.stem}.config") / config.parent.name
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(config, place / config.name)
    return path


def lay_beside(folder: Path, path: Path, *components: str) -> None:
    """Lay whole components of a diffusers folder beside a file that lacks them."""
    for component in components:
        shutil.copytree(folder / component, path.with_name(f"{path.stem}.config") / component, dirs_exist_ok=True)


def _original(kind: str, component: str, weights: Weights, folder: Path, *, bare: bool) -> Weights:
    if component in {"unet", "transformer"}:
        convert = {"StableDiffusion3": original_sd3, "Flux": original_flux}.get(kind, original_unet)
        return _after("" if bare else NETWORK, convert(weights))
    if component == "vae":
        return _after("vae." if kind == "Flux" else "first_stage_model.", original_vae(weights))
    start = _TEXTS[kind][component]
    config = json.loads((folder / component / "config.json").read_text())
    if kind == "StableDiffusion" and config["hidden_act"] == "gelu":
        return _after("cond_stage_model.model.", open_clip(weights, more_layers=1))
    if kind == "StableDiffusionXL" and component == "text_encoder_2":
        # Of the refiner it is the only one.
        alone = not (folder / "text_encoder").is_dir()
        return _after("conditioner.embedders.0.model." if alone else start, open_clip(weights))
    return _after(start, weights if config["model_type"] == "t5" else _named(weights))


def _named(weights: Weights) -> Weights:
    """Return a CLIP text encoder as transformers named it when the files were published."""
    projection = {name: each for name, each in weights.items() if name.startswith("text_projection")}
    rest = {name: each for name, each in weights.items() if name not in projection}
    return {**original_text_encoder(rest), **projection}


def _after(start: str, weights: Weights) -> Weights:
    return {f"{start}{name}": tensor for name, tensor in weights.items()}
