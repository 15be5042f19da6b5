"""What the layers of Stable Diffusion 3's and FLUX.1's transformers were called in the original code, derived from the transformer itself.

The original computes queries, keys and values by one layer, and diffusers by three: such a name stands for several layers, whose outputs
lie one behind the other.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Final

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
_BLOCK: Final = re.compile(r"(single_)?transformer_blocks\.(\d+)\.")


def transformer_names(paths: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the layers that each original name stands for, of a transformer with these module paths; those that it has."""
    known = set(paths)
    if any(_ITS_OWN.match(path) for path in known):
        return {}
    numbers = {(bool(found[1]), found[2]) for path in known if (found := _BLOCK.match(path))}
    doubles = sorted((number for single, number in numbers if not single), key=int)
    singles = sorted((number for single, number in numbers if single), key=int)
    names: dict[str, tuple[str, ...]] = dict(_FLUX_WHOLE if singles else _SD3_WHOLE)
    for number in doubles:
        block = _flux_double(number) if singles else _sd3_joint(number)
        kind = "double_blocks" if singles else "joint_blocks"
        names |= {f"{kind}.{number}.{name}": layers for name, layers in block.items()}
    for number in singles:
        names |= {f"single_blocks.{number}.{name}": layers for name, layers in _flux_single(number).items()}
    if not singles and doubles:
        # Of the last block the text's modulation has its halves the other way round too.
        names.pop(f"joint_blocks.{doubles[-1]}.context_block.adaLN_modulation.1", None)
    return {name: layers for name, layers in names.items() if _are(layers, known)}


def _are(layers: tuple[str, ...], known: Collection[str]) -> bool:
    return all(layer in known for layer in layers)
