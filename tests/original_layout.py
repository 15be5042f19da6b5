"""Write a diffusers folder of Stable Diffusion 1.x as one file in the original layout, the way back from diffusers' own converters."""

import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pipelines.original.names import original_names

_VAE_INNER = (
    ("conv_shortcut", "nin_shortcut"),
    ("mid_block.resnets.0", "mid.block_1"),
    ("mid_block.resnets.1", "mid.block_2"),
    ("mid_block.attentions.0", "mid.attn_1"),
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
    ("conv_norm_out", "norm_out"),
)


def original_unet(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a UNet's weights under their original names."""
    paths = {name: name.rpartition(".") for name in weights}
    names = original_names(path for path, _, _ in paths.values())
    return {f"{names[path]}.{last}": weights[name] for name, (path, _, last) in paths.items()}


def original_vae(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a VAE's weights under their original names; attention was written as 1 x 1 convolutions."""
    blocks = 1 + max(int(found[1]) for name in weights if (found := re.search(r"up_blocks\.(\d+)", name)))
    renamed = {}
    for name, tensor in weights.items():
        original = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        original = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", original)
        original = re.sub(
            r"up_blocks\.(\d+)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", original
        )
        original = re.sub(
            r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", original
        )
        for new, old in _VAE_INNER:
            original = original.replace(new, old)
        convolution = ".attn_1." in original and tensor.ndim == 2
        renamed[original] = tensor[..., None, None].contiguous() if convolution else tensor
    return renamed


def original_text_encoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a text encoder's weights under their original names, with the positions that old files keep."""
    named = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in weights.items()}
    return {**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}


def _prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


#: What is of no use for drawing and in every published file.
_USELESS = {"model_ema.decay": torch.tensor(0.9999), "alphas_cumprod": torch.linspace(1, 0, 1000)}


def whole_checkpoint(
    unet: dict[str, torch.Tensor], vae: dict[str, torch.Tensor], texts: dict[str, dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint's components as one; `texts` are the text encoders' original weights by their prefixes."""
    named = (_prefixed(prefix, weights) for prefix, weights in texts.items())
    return {
        **_prefixed("model.diffusion_model.", original_unet(unet)),
        **_prefixed("first_stage_model.", original_vae(vae)),
        **{name: tensor for each in named for name, tensor in each.items()},
        **_USELESS,
    }


def write_original(folder: Path, path: Path) -> Path:
    """Write a diffusers folder as one file, and its configuration and tokenizer beside it; return the file."""
    weights = whole_checkpoint(
        load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
        load_file(folder / "vae/diffusion_pytorch_model.safetensors"),
        {"cond_stage_model.transformer.": original_text_encoder(load_file(folder / "text_encoder/model.safetensors"))},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, {"format": "pt"})
    beside = path.with_name(f"{path.stem}.config")
    for config in folder.glob("*/*.json"):
        (beside / config.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(config, beside / config.parent.name / config.name)
    return path
