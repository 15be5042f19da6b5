"""Write a diffusers folder of Stable Diffusion 1.x, 2.x or SDXL as one file in the original layout, the way back from the converters."""

import json
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


_OPEN_CLIP = (
    ("embeddings.token_embedding.weight", "token_embedding.weight"),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("final_layer_norm", "ln_final"),
    ("text_projection.weight", "text_projection"),
    ("encoder.layers.", "transformer.resblocks."),
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
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


def open_clip_text_encoder(weights: dict[str, torch.Tensor], *, unread: bool = False) -> dict[str, torch.Tensor]:
    """Return a text encoder's weights as OpenCLIP names them; `unread` adds the layer that Stable Diffusion 2.x leaves out."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    renamed = {"logit_scale": torch.tensor(4.6)}
    for name, tensor in plain.items():
        if re.search(r"self_attn\.[kv]_proj", name):
            continue
        original = name
        for new, old in _OPEN_CLIP:
            original = original.replace(new, old)
        if "self_attn.q_proj" in name:
            parts = [plain[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            renamed[re.sub(r"self_attn\.q_proj\.", "attn.in_proj_", original)] = torch.cat(parts)
        else:
            renamed[original] = tensor.T.contiguous() if name == "text_projection.weight" else tensor
    if unread:
        last = 1 + max(int(found[1]) for name in renamed if (found := re.search(r"resblocks\.(\d+)", name)))
        first = {name: tensor for name, tensor in renamed.items() if "resblocks.0." in name}
        renamed |= {name.replace("resblocks.0.", f"resblocks.{last}."): 0 * tensor for name, tensor in first.items()}
        renamed["text_projection"] = torch.eye(plain["final_layer_norm.weight"].shape[0])
    return renamed


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


def _texts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return a folder's text encoders as the original code names them, by the prefixes that it puts before."""
    encoders = {
        name: load_file(folder / name / "model.safetensors")
        for name in ("text_encoder", "text_encoder_2")
        if (folder / name).is_dir()
    }
    if "text_encoder_2" in encoders:
        second = open_clip_text_encoder(encoders["text_encoder_2"])
        if "text_encoder" not in encoders:
            return {"conditioner.embedders.0.model.": second}
        first = original_text_encoder(encoders["text_encoder"])
        return {"conditioner.embedders.0.transformer.": first, "conditioner.embedders.1.model.": second}
    config = json.loads((folder / "text_encoder/config.json").read_text())
    if config["hidden_act"] == "gelu":
        return {"cond_stage_model.model.": open_clip_text_encoder(encoders["text_encoder"], unread=True)}
    return {"cond_stage_model.transformer.": original_text_encoder(encoders["text_encoder"])}


def write_original(folder: Path, path: Path) -> Path:
    """Write a diffusers folder as one file, and its configuration and tokenizers beside it; return the file."""
    weights = whole_checkpoint(
        load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
        load_file(folder / "vae/diffusion_pytorch_model.safetensors"),
        _texts(folder),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path, {"format": "pt"})
    beside = path.with_name(f"{path.stem}.config")
    for config in folder.glob("*/*.json"):
        (beside / config.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(config, beside / config.parent.name / config.name)
    return path
