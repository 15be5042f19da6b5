"""The transformer of Stable Diffusion 3 or FLUX.1 out of a file in its original layout, at any depth and width."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from jobs.errors import ModelDamaged
from pipelines.original.component import Weights, build
from pipelines.original.transformer_names import transformer_names
from pipelines.original.zimage_names import zimage_norm

#: Norms of queries and keys: original name behind the block → name in diffusers.
_DOUBLE_NORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
        "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
        "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
        "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    }
)
_SINGLE_NORMS: Final[Mapping[str, str]] = MappingProxyType(
    {"norm.query_norm.scale": "attn.norm_q.weight", "norm.key_norm.scale": "attn.norm_k.weight"}
)
_JOINT_NORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "x_block.attn.ln_q.weight": "attn.norm_q.weight",
        "x_block.attn.ln_k.weight": "attn.norm_k.weight",
        "x_block.attn2.ln_q.weight": "attn2.norm_q.weight",
        "x_block.attn2.ln_k.weight": "attn2.norm_k.weight",
        "context_block.attn.ln_q.weight": "attn.norm_added_q.weight",
        "context_block.attn.ln_k.weight": "attn.norm_added_k.weight",
    }
)
#: Kind of a block → its name in diffusers, and the norms of its queries and keys.
_BLOCKS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = MappingProxyType(
    {
        "double_blocks": ("transformer_blocks", _DOUBLE_NORMS),
        "single_blocks": ("single_transformer_blocks", _SINGLE_NORMS),
        "joint_blocks": ("transformer_blocks", _JOINT_NORMS),
    }
)
_PLACE: Final = re.compile(r"(double_blocks|single_blocks|joint_blocks)\.(\d{1,3})\.(.+)")
_MODULATION: Final = re.compile(
    r"(final_layer|joint_blocks\.\d{1,3}\.context_block)\.adaLN_modulation\.1\.(weight|bias)"
)
_LAYER: Final = re.compile(r"(.+)\.(weight|bias)")


def build_transformer(path: Path, weights: Weights, make: Callable[[], Any], dtype: torch.dtype) -> Any:
    """Return the transformer that `make` makes, with the weights of a file; raises `ModelDamaged` with the tensor that is wrong."""
    # For its names and shapes alone: places of tokens are not computed either.
    with torch.device("meta"):
        form = make()
    return build(path, make, from_original(path, weights, form), dtype)


def from_original(path: Path, weights: Weights, form: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return original weights under the names that diffusers gives them in a transformer of this form."""
    rows = {name.removesuffix(".weight"): tensor.shape[0] for name, tensor in form.state_dict().items() if tensor.ndim}
    layers = transformer_names(module for module, _ in form.named_modules())
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        converted |= _renamed(path, name, tensor, layers, rows)
    return converted


def _renamed(
    path: Path, name: str, tensor: torch.Tensor, layers: Mapping[str, tuple[str, ...]], rows: Mapping[str, int]
) -> dict[str, torch.Tensor]:
    found = _LAYER.fullmatch(name)
    together = layers.get(found[1], ()) if found is not None else ()
    if found is not None and together:
        sizes = [rows[layer] for layer in together]
        if len(together) > 1 and sum(sizes) != tensor.shape[0]:
            raise ModelDamaged(f"{path} has {name} of {tensor.shape[0]} rows, where {sum(sizes)} are wanted")
        parts = torch.split(tensor, sizes) if len(together) > 1 else (tensor,)
        return {f"{layer}.{found[2]}": part.contiguous() for layer, part in zip(together, parts, strict=True)}
    norm = zimage_norm(name)
    if norm is not None:
        return {norm: tensor} if norm else {}
    if name == "pos_embed":
        return {"pos_embed.pos_embed": tensor}
    turned = _MODULATION.fullmatch(name)
    if turned is not None:
        # Shift before scale there, scale before shift in diffusers.
        halves = torch.cat(tensor.chunk(2)[::-1])
        place = name.split(".")[1]
        layer = "norm_out.linear" if turned[1] == "final_layer" else f"transformer_blocks.{place}.norm1_context.linear"
        return {f"{layer}.{turned[2]}": halves}
    block = _PLACE.fullmatch(name)
    if block is not None:
        kind, norms = _BLOCKS[block[1]]
        if block[3] in norms:
            return {f"{kind}.{block[2]}.{norms[block[3]]}": tensor}
    # Under a name that nothing wants, which is told where the whole is put together.
    return {name: tensor}
