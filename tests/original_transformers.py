"""Write the transformers of Stable Diffusion 3 and FLUX.1 under their original names, the way back from diffusers' own converters."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import torch

Weights = dict[str, torch.Tensor]

#: Parts that the originals keep in one matrix, in their order; the first one's name is replaced.
_JOINED: Final = (
    ("attn.to_q", ("attn.to_q", "attn.to_k", "attn.to_v"), "img.qkv"),
    ("attn.add_q_proj", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"), "txt.qkv"),
    ("attn2.to_q", ("attn2.to_q", "attn2.to_k", "attn2.to_v"), "img2.qkv"),
)
_SD3_WHOLE: Final = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_SD3_BLOCK: Final = {
    "img.qkv": "x_block.attn.qkv",
    "txt.qkv": "context_block.attn.qkv",
    "img2.qkv": "x_block.attn2.qkv",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
_FLUX_WHOLE: Final = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
}
_FLUX_BLOCK: Final = {
    "img.qkv": "img_attn.qkv",
    "txt.qkv": "txt_attn.qkv",
    "attn.norm_q": "img_attn.norm.query_norm",
    "attn.norm_k": "img_attn.norm.key_norm",
    "attn.norm_added_q": "txt_attn.norm.query_norm",
    "attn.norm_added_k": "txt_attn.norm.key_norm",
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
}
_FLUX_SINGLE: Final = {
    "norm.linear": "modulation.lin",
    "img.qkv": "linear1",
    "attn.norm_q": "norm.query_norm",
    "attn.norm_k": "norm.key_norm",
    "proj_out": "linear2",
}
_PLACE: Final = re.compile(r"(single_transformer_blocks|transformer_blocks)\.(\d+)\.(.*)\.(weight|bias)")


def original_sd3(weights: Weights) -> Weights:
    """Return a transformer of Stable Diffusion 3 under its original names."""
    last = max(int(found[2]) for name in weights if (found := _PLACE.match(name)))
    turned = {"norm_out.linear", f"transformer_blocks.{last}.norm1_context.linear"}
    joined = dict(_joined(_turned(weights, turned)))
    return {_sd3_name(name): tensor for name, tensor in joined.items()}


def original_flux(weights: Weights) -> Weights:
    """Return a transformer of FLUX.1 under its original names."""
    joined = dict(_joined(_turned(weights, {"norm_out.linear"}), with_mlp="proj_mlp"))
    return {_flux_name(name): tensor for name, tensor in joined.items()}


def _turned(weights: Mapping[str, torch.Tensor], layers: Iterable[str]) -> Weights:
    """Return the weights with shift and scale in the originals' order where diffusers has the other one."""
    ends = tuple(f"{layer}.{end}" for layer in layers for end in ("weight", "bias"))
    return {name: torch.cat(tensor.chunk(2)[::-1]) if name in ends else tensor for name, tensor in weights.items()}


def _joined(weights: Weights, with_mlp: str | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every tensor, with those that the originals keep in one joined; of single blocks the first linear layer as well."""
    parts = {part for _, each, _ in _JOINED for part in each}
    for name, tensor in weights.items():
        path, _, end = name.rpartition(".")
        block, _, layer = path.partition(".")[2].partition(".")
        start = path[: -len(layer)] if layer else ""
        found = next((join for join in _JOINED if join[0] == layer), None)
        if found is not None:
            own = [weights[f"{start}{part}.{end}"] for part in found[1]]
            if with_mlp is not None and f"{start}{with_mlp}.{end}" in weights:
                own.append(weights[f"{start}{with_mlp}.{end}"])
            yield f"{start}{found[2]}.{end}", torch.cat(own)
        elif layer not in parts and not (block.isdigit() and layer == with_mlp):
            yield name, tensor


def _sd3_name(name: str) -> str:
    found = _PLACE.match(name)
    if found is not None:
        return f"joint_blocks.{found[2]}.{_SD3_BLOCK[found[3]]}.{found[4]}"
    return _whole(name, _SD3_WHOLE)


def _flux_name(name: str) -> str:
    found = _PLACE.match(name)
    if found is None:
        return _whole(name, _FLUX_WHOLE)
    single = found[1] == "single_transformer_blocks"
    layer = (_FLUX_SINGLE if single else _FLUX_BLOCK)[found[3]]
    # The originals call the weights of a norm its scale.
    end = "scale" if layer.endswith("_norm") else found[4]
    return f"{'single_blocks' if single else 'double_blocks'}.{found[2]}.{layer}.{end}"


def _whole(name: str, names: Mapping[str, str]) -> str:
    if name in names:
        return names[name]
    path, _, end = name.rpartition(".")
    return f"{names[path]}.{end}"
