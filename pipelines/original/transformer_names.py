"""What the layers of the transformers of Stable Diffusion 3, FLUX.1 and FLUX.2 were called in the original code, told by a transformer.

The original computes queries, keys and values by one layer, and diffusers by three: such a name stands for several layers, whose outputs
lie one behind the other.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from pipelines.original.zimage_names import zimage_names

#: Original name of a layer → the names that diffusers has in its place.
Names = Mapping[str, tuple[str, ...]]


def _attention(own: str, *, added: bool = False, name: str = "attn") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers for queries, keys and values, and the one behind attention."""
    if added:
        return tuple(f"{own}.{name}.add_{part}_proj" for part in "qkv"), (f"{own}.{name}.to_add_out",)
    return tuple(f"{own}.{name}.to_{part}" for part in "qkv"), (f"{own}.{name}.to_out.0",)


def _flux_double(number: str) -> Names:
    own = f"transformer_blocks.{number}"
    image, image_out = _attention(own)
    text, text_out = _attention(own, added=True)
    return {
        "img_mod.lin": (f"{own}.norm1.linear",),
        "txt_mod.lin": (f"{own}.norm1_context.linear",),
        "img_attn.qkv": image,
        "txt_attn.qkv": text,
        "img_attn.proj": image_out,
        "txt_attn.proj": text_out,
        "img_mlp.0": (f"{own}.ff.net.0.proj",),
        "img_mlp.2": (f"{own}.ff.net.2",),
        "txt_mlp.0": (f"{own}.ff_context.net.0.proj",),
        "txt_mlp.2": (f"{own}.ff_context.net.2",),
    }


def _flux_single(number: str) -> Names:
    own = f"single_transformer_blocks.{number}"
    queries, _ = _attention(own)
    return {
        "modulation.lin": (f"{own}.norm.linear",),
        "linear1": (*queries, f"{own}.proj_mlp"),
        "linear2": (f"{own}.proj_out",),
    }


def _flux2_double(number: str) -> Names:
    own = f"transformer_blocks.{number}"
    image, image_out = _attention(own)
    text, text_out = _attention(own, added=True)
    return {
        "img_attn.qkv": image,
        "txt_attn.qkv": text,
        "img_attn.proj": image_out,
        "txt_attn.proj": text_out,
        "img_mlp.0": (f"{own}.ff.linear_in",),
        "img_mlp.2": (f"{own}.ff.linear_out",),
        "txt_mlp.0": (f"{own}.ff_context.linear_in",),
        "txt_mlp.2": (f"{own}.ff_context.linear_out",),
    }


def _flux2_single(number: str) -> Names:
    own = f"single_transformer_blocks.{number}"
    return {"linear1": (f"{own}.attn.to_qkv_mlp_proj",), "linear2": (f"{own}.attn.to_out",)}


def _sd3_joint(number: str) -> Names:
    own = f"transformer_blocks.{number}"
    image, image_out = _attention(own)
    again, again_out = _attention(own, name="attn2")
    text, text_out = _attention(own, added=True)
    return {
        "x_block.attn.qkv": image,
        "x_block.attn.proj": image_out,
        "x_block.attn2.qkv": again,
        "x_block.attn2.proj": again_out,
        "x_block.mlp.fc1": (f"{own}.ff.net.0.proj",),
        "x_block.mlp.fc2": (f"{own}.ff.net.2",),
        "x_block.adaLN_modulation.1": (f"{own}.norm1.linear",),
        "context_block.attn.qkv": text,
        "context_block.attn.proj": text_out,
        "context_block.mlp.fc1": (f"{own}.ff_context.net.0.proj",),
        "context_block.mlp.fc2": (f"{own}.ff_context.net.2",),
        "context_block.adaLN_modulation.1": (f"{own}.norm1_context.linear",),
    }


#: Outside of blocks. The layers that modulate the output are not among them: diffusers has their halves the other way round.
_FLUX_WHOLE: Final[Names] = MappingProxyType(
    {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "time_in.in_layer": ("time_text_embed.timestep_embedder.linear_1",),
        "time_in.out_layer": ("time_text_embed.timestep_embedder.linear_2",),
        "vector_in.in_layer": ("time_text_embed.text_embedder.linear_1",),
        "vector_in.out_layer": ("time_text_embed.text_embedder.linear_2",),
        "guidance_in.in_layer": ("time_text_embed.guidance_embedder.linear_1",),
        "guidance_in.out_layer": ("time_text_embed.guidance_embedder.linear_2",),
        "final_layer.linear": ("proj_out",),
    }
)
_FLUX2_WHOLE: Final[Names] = MappingProxyType(
    {
        "img_in": ("x_embedder",),
        "txt_in": ("context_embedder",),
        "time_in.in_layer": ("time_guidance_embed.timestep_embedder.linear_1",),
        "time_in.out_layer": ("time_guidance_embed.timestep_embedder.linear_2",),
        "guidance_in.in_layer": ("time_guidance_embed.guidance_embedder.linear_1",),
        "guidance_in.out_layer": ("time_guidance_embed.guidance_embedder.linear_2",),
        "double_stream_modulation_img.lin": ("double_stream_modulation_img.linear",),
        "double_stream_modulation_txt.lin": ("double_stream_modulation_txt.linear",),
        "single_stream_modulation.lin": ("single_stream_modulation.linear",),
        "final_layer.linear": ("proj_out",),
    }
)
_SD3_WHOLE: Final[Names] = MappingProxyType(
    {
        "x_embedder.proj": ("pos_embed.proj",),
        "context_embedder": ("context_embedder",),
        "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
        "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
        "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
        "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
        "final_layer.linear": ("proj_out",),
    }
)
#: Of Qwen-Image, which has one set of names.
_ITS_OWN: Final = re.compile(r"transformer_blocks\.\d+\.img_mod\.")


class _Layout(NamedTuple):
    """Say what the layers of one architecture were called."""

    whole: Names
    #: What its blocks of two streams were called.
    blocks: str
    #: From a block's number to the names in it.
    double: Callable[[str], Names]
    single: Callable[[str], Names]


def _nothing(_number: str) -> Names:
    return {}


_SD3: Final = _Layout(_SD3_WHOLE, "joint_blocks", _sd3_joint, _nothing)
_FLUX: Final = _Layout(_FLUX_WHOLE, "double_blocks", _flux_double, _flux_single)
_FLUX2: Final = _Layout(_FLUX2_WHOLE, "double_blocks", _flux2_double, _flux2_single)
_BLOCK: Final = re.compile(r"(single_)?transformer_blocks\.(\d+)\.")


def transformer_names(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers that each original name stands for, of a transformer with these module paths; those that it has."""
    known = set(paths)
    own = zimage_names(known)
    if own:
        return own
    numbers = {(bool(found[1]), found[2]) for path in known if (found := _BLOCK.match(path))}
    doubles = sorted((number for single, number in numbers if not single), key=int)
    singles = sorted((number for single, number in numbers if single), key=int)
    layout = _layout(known, has_singles=bool(singles))
    names: dict[str, tuple[str, ...]] = dict(layout.whole)
    for number in doubles:
        names |= {f"{layout.blocks}.{number}.{name}": layers for name, layers in layout.double(number).items()}
    for number in singles:
        names |= {f"single_blocks.{number}.{name}": layers for name, layers in layout.single(number).items()}
    if not singles and doubles:
        # Of the last block the text's modulation has its halves the other way round too.
        names.pop(f"joint_blocks.{doubles[-1]}.context_block.adaLN_modulation.1", None)
    return {name: layers for name, layers in names.items() if _are(layers, known)}


def _layout(known: Collection[str], *, has_singles: bool) -> _Layout:
    if not has_singles:
        return _SD3
    # The blocks of FLUX.2 share what modulates them.
    return _FLUX2 if "single_stream_modulation.linear" in known else _FLUX


def _are(layers: tuple[str, ...], known: Collection[str]) -> bool:
    return all(layer in known for layer in layers)
