"""Which family a LoRA was made for: by the names of the layers it changes, and where several have such layers by their widths.

Layers are told by their module path with underscores for dots, because every layout can be brought to that.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.families import FAMILIES
from models_registry.kinds import lora_flux
from models_registry.kinds.unets import family_of_width
from models_registry.refusals import Unrecognised, WeightsMismatch

Shape = tuple[int, ...]
#: The shapes of one layer's parts: `down`, `up` …
Parts = Mapping[str, Shape]


class Made(NamedTuple):
    """Say what a LoRA was made for."""

    family: str
    text_width: int | None
    #: Of the denoiser's first layer, as far as the layers tell.
    width: int | None


class _Layers(NamedTuple):
    """Hold the layers of a LoRA by what they belong to."""

    network: Mapping[str, Parts]
    #: By number of the text encoder, 0 where there is one alone.
    texts: Mapping[int, Mapping[str, Parts]]


#: Beginning of a layer's name → number of the text encoder.
_TEXTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "lora_te_": 0,
        "lora_te1_": 1,
        "lora_te2_": 2,
        "lora_te3_": 3,
        "text_encoder.": 0,
        "text_encoder_2.": 2,
        "text_encoder_3.": 3,
    }
)
#: What layouts put before the layers of the network.
_PREFIXES: Final = (
    "lora_unet_",
    "lora_transformer_",
    "unet.",
    "transformer.",
    "model.diffusion_model.",
    "diffusion_model.",
)
#: What peft puts before all of them when it saves by itself.
_WRAPPED: Final = "base_model.model."
#: Stands for two families whose layers have the same names.
_EITHER_FLUX: Final = "either FLUX"
#: Layers that only one family's network has → the family, or the name of one that is not drawn here.
_MARKS: Final = (
    (re.compile(r"(?:double|single)_blocks_\d"), _EITHER_FLUX),
    (re.compile(r"single_transformer_blocks_\d+_attn_to_(?:qkv_mlp_proj|out)$"), "flux2"),
    (re.compile(r"transformer_blocks_\d+_ff(?:_context)?_linear_"), "flux2"),
    (re.compile(r"(?:double_stream_modulation|single_stream_modulation|time_guidance_embed)_"), "flux2"),
    (re.compile(r"single_transformer_blocks_\d"), "flux"),
    (re.compile(r"joint_blocks_\d"), "sd3"),
    (re.compile(r"transformer_blocks_\d+_(?:img|txt)_(?:mlp|mod)"), "qwenimage"),
    (re.compile(r"(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward|adaLN)"), "zimage"),
    (re.compile(r"prior_"), "Stable Cascade"),
)
#: Beginnings of the layers that each kind of network has.
_UNET: Final = re.compile(
    r"(?:down_blocks|mid_block|up_blocks|input_blocks|middle_block|output_blocks|time_embed|time_embedding|label_emb|add_embedding"
    r"|conv_in|conv_out|out)_"
)
_OWN: Final[Mapping[str, re.Pattern[str]]] = MappingProxyType(
    {
        "flux": re.compile(
            r"(?:double_blocks|single_blocks|single_transformer_blocks|transformer_blocks|img_in|txt_in|time_in|vector_in|guidance_in"
            r"|final_layer|x_embedder|context_embedder|time_text_embed|norm_out|proj_out)(?:_|$)"
        ),
        "flux2": re.compile(
            r"(?:double_blocks|single_blocks|single_transformer_blocks|transformer_blocks|img_in|txt_in|time_in|guidance_in|final_layer"
            r"|x_embedder|context_embedder|time_guidance_embed|double_stream_modulation|single_stream_modulation|norm_out|proj_out)(?:_|$)"
        ),
        "sd3": re.compile(
            r"(?:joint_blocks|transformer_blocks|x_embedder|y_embedder|t_embedder|context_embedder|pos_embed|time_text_embed|final_layer"
            r"|norm_out|proj_out)(?:_|$)"
        ),
        "qwenimage": re.compile(r"(?:transformer_blocks|img_in|txt_in|time_text_embed|norm_out|proj_out)(?:_|$)"),
        "zimage": re.compile(
            r"(?:layers|noise_refiner|context_refiner|(?:all_)?x_embedder|(?:all_)?final_layer|t_embedder|cap_embedder)(?:_|$)"
        ),
        "sd15": _UNET,
        "sd2": _UNET,
        "sdxl": _UNET,
    }
)
#: Transformers that have blocks of one kind, in diffusers' names.
_SHARED: Final = re.compile(r"transformer_blocks_(\d{1,4})_")
#: Blocks of two streams that FLUX.1 has; the smallest Stable Diffusion 3 has 24.
_FLUX_BLOCKS: Final = 19
_WIDTHS: Final[Mapping[int, str]] = MappingProxyType({3072: "flux", 1536: "sd3", 2432: "sd3", **lora_flux.WIDTHS})
#: Stable Diffusion 1.x and 2.x have one transformer block in each attention; SDXL has up to ten.
_DEEP: Final = re.compile(r"transformer_blocks_[1-9]")
#: Around an attention: convolutions in 1.x, matrices since.
_AROUND: Final = re.compile(r"_(?:proj_in|proj_out)$")
_READS_TEXT: Final = re.compile(r"attn2_(?:processor_)?to_[kv]$")
_TEXT_INPUT: Final = re.compile(r"(?:self_attn_[qkv]_proj|mlp_fc1)$")
#: Of the transformers, what makes text features of theirs out of the encoder's.
_TEXT_EMBEDDER: Final = re.compile(r"(?:context_embedder|txt_in|cap_embedder_1)$")
#: Layers whose inputs are as wide as the first one's outputs: of a UNet where the first level attends, and of transformers.
_FIRST_LEVEL: Final = re.compile(
    r"(?:down_blocks_0_attentions_\d+|input_blocks_[12]_1)_transformer_blocks_0_attn1_(?:processor_)?to_[qkv]$"
)
_INNER: Final = re.compile(
    r"(?:attn2?_(?:to|add)_[qkv](?:_proj)?|(?:img|txt|x_block|context_block)_attn2?_qkv|x_block_attn2?_qkv|single_blocks_\d+_linear1"
    r"|attn_to_qkv_mlp_proj|(?:layers|noise_refiner|context_refiner)_\d+_attention_(?:to_[qkv]|qkv))$"
)
_CONVOLUTION: Final = 4


def tell_family(path: Path, layers: Mapping[str, Parts], words: str) -> Made:
    """Return what a LoRA was made for, raising `Unrecognised` for layers that no family here has; `words` are its metadata's."""
    found = _sorted(layers)
    family = _family(path, found, words)
    own = _OWN[family]
    strange = next((name for name in found.network if not own.match(name)), None)
    if strange is not None:
        raise Unrecognised(path, f"is a LoRA for a layer that {FAMILIES[family].title} does not have: {strange[:80]!r}")
    if family in {"flux", "flux2", "sd3", "zimage", "qwenimage"}:
        return Made(family, _one(path, found.network, _TEXT_EMBEDDER), _one(path, found.network, _INNER))
    text_width = _text_width(path, family, found)
    if family != "sdxl" and family_of_width(text_width) not in {None, family}:
        family = family_of_width(text_width) or family
    return Made(family, text_width, _one(path, found.network, _FIRST_LEVEL))


def inputs_of(parts: Parts) -> int:
    """Return how many features a linear layer reads."""
    if "down" in parts:
        return parts["down"][1]
    if "hada_w1_b" in parts:
        return parts["hada_w1_b"][1]
    first, second = (parts.get(f"lokr_{w}") or parts[f"lokr_{w}_b"] for w in ("w1", "w2"))
    return first[1] * second[1]


def outputs_of(parts: Parts) -> int:
    """Return how many features a linear layer gives."""
    if "up" in parts:
        return parts["up"][0]
    if "hada_w1_a" in parts:
        return parts["hada_w1_a"][0]
    first, second = (parts.get(f"lokr_{w}") or parts[f"lokr_{w}_a"] for w in ("w1", "w2"))
    return first[0] * second[0]


def _sorted(layers: Mapping[str, Parts]) -> _Layers:
    network: dict[str, Parts] = {}
    texts: dict[int, dict[str, Parts]] = {}
    for name, parts in layers.items():
        layer = name.removeprefix(_WRAPPED)
        start = next((each for each in _TEXTS if layer.startswith(each)), None)
        if start is not None:
            texts.setdefault(_TEXTS[start], {})[layer.removeprefix(start).replace(".", "_")] = parts
            continue
        prefix = next((each for each in _PREFIXES if layer.startswith(each)), "")
        body = layer.removeprefix(prefix)
        if not prefix and layer.startswith("lora_"):
            body = layer.removeprefix("lora_")
        network[body.replace(".", "_")] = parts
    return _Layers(network, texts)


def _family(path: Path, found: _Layers, words: str) -> str:
    for name in found.network:
        mark = next((family for pattern, family in _MARKS if pattern.match(name)), None)
        if mark == _EITHER_FLUX:
            sizes = {layer: lora_flux.Size(inputs_of(each), outputs_of(each)) for layer, each in found.network.items()}
            return lora_flux.which_flux(path, sizes, _one(path, found.network, _INNER), words)
        if mark is not None and mark not in FAMILIES:
            raise Unrecognised(path, f"is a LoRA for {mark}, which is not supported yet")
        if mark is not None:
            return mark
    if any(_SHARED.match(name) for name in found.network):
        return _of_transformers(path, found.network, words)
    if not found.network and 3 in found.texts:  # noqa: PLR2004 - the third text encoder
        raise Unrecognised(
            path, "is a LoRA for the text encoders of Stable Diffusion 3 or FLUX.1 alone, and does not say of which"
        )
    if any(found.texts.keys() & {1, 2}) or any(_DEEP.search(name) for name in found.network):
        return "sdxl"
    by_width = family_of_width(_text_width(path, "sd15", found))
    if by_width is not None:
        return by_width
    around = {len(parts.get("down", ())) for name, parts in found.network.items() if _AROUND.search(name)}
    return "sd2" if around and _CONVOLUTION not in around and around != {0} else "sd15"


def _of_transformers(path: Path, network: Mapping[str, Parts], words: str) -> str:
    width = _one(path, network, _INNER)
    blocks = max(int(match[1]) for name in network if (match := _SHARED.match(name)))
    by_width = None if width is None else _WIDTHS.get(width)
    is_said = re.search("qwen", words, re.IGNORECASE) is not None
    # As wide as FLUX.1, with three times its blocks.
    if (is_said and by_width != "sd3") or (by_width == "flux" and blocks >= _FLUX_BLOCKS):
        return "qwenimage"
    if by_width == "flux" and lora_flux.SAID.search(words):
        return "flux2"
    if by_width is not None:
        return by_width
    if blocks >= _FLUX_BLOCKS or re.search(r"sd[-_ ]?3|stable[-_ ]diffusion[-_ ]3", words, re.IGNORECASE):
        return "sd3"
    if re.search("flux", words, re.IGNORECASE):
        return "flux2" if lora_flux.SAID.search(words) else "flux"
    # Only FLUX.1 has one, but not every LoRA changes it.
    has_three = any("attn2" in name for name in network)
    return "sd3" if has_three else "flux"


def _text_width(path: Path, family: str, found: _Layers) -> int | None:
    read = _one(path, found.network, _READS_TEXT)
    given = {number: _one(path, layers, _TEXT_INPUT) for number, layers in found.texts.items()}
    if family == "sdxl":
        first, second = given.get(1) or given.get(0), given.get(2)
        return read if read is not None or not (first and second) else first + second
    widths = {each for each in (read, *given.values()) if each is not None}
    if len(widths) > 1:
        raise WeightsMismatch(path, f"reads text features of several widths: {sorted(widths)}")
    return next(iter(widths), None)


def _one(path: Path, layers: Mapping[str, Parts], pattern: re.Pattern[str]) -> int | None:
    """Return the inputs that all layers of a kind have; None where there is none."""
    widths = set(_inputs(layers, pattern))
    if len(widths) > 1:
        what = "text features" if pattern in {_READS_TEXT, _TEXT_INPUT} else "features"
        raise WeightsMismatch(path, f"reads {what} of several widths: {sorted(widths)}")
    return next(iter(widths), None)


def _inputs(layers: Mapping[str, Parts], pattern: re.Pattern[str]) -> Iterator[int]:
    for name, parts in layers.items():
        if pattern.search(name):
            yield inputs_of(parts)
