"""How the files of each family are laid out that are no diffusers folder: which tensors tell a family, and where its components begin."""

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from models_registry.kinds.checkpoints import zimage
from models_registry.kinds.checkpoints.described import word
from models_registry.kinds.unets import SD2_TEXT_WIDTH
from models_registry.published import FLUX2_9B_WIDTH
from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import dimension

NETWORK: Final = "model.diffusion_model."
_FIRST_STAGE: Final = "first_stage_model."
#: What reads the prompts of files with a UNet.
_SD15_TEXT: Final = "cond_stage_model.transformer."
_SD2_TEXT: Final = "cond_stage_model.model."
_EMBEDDERS: Final = "conditioner.embedders."


class Piece(NamedTuple):
    """Say where one component lies in a file."""

    component: str
    #: Of diffusers or transformers.
    name: str
    #: What its tensors' names may begin with; an empty one is the whole file.
    starts: tuple[str, ...]


class Original(NamedTuple):
    """Say how the files of one family are laid out."""

    family: str
    pieces: tuple[Piece, ...]
    #: From the header and the beginning of the network's names: a key of `published.PUBLISHED`.
    published: Callable[[Header, str], str]
    #: And what tensors say of the network's settings.
    settings: Callable[[Header, str], Mapping[str, Any]]
    #: Components that some files do without.
    optional: frozenset[str] = frozenset()
    #: Components without weights that must lie beside the file: what they know is in no package.
    beside: tuple[str, ...] = ()
    #: Relatives whose tensors are called like these, and the words that tell them.
    relatives: Mapping[str, re.Pattern[str]] = MappingProxyType({})
    #: What a folder of it would name, where its components are not those of its family's other folders.
    pipeline: str = ""


def _unet_settings(header: Header, start: str) -> Mapping[str, Any]:
    return {"in_channels": dimension(header, f"{start}input_blocks.0.0.weight", 1)}


def _flux_settings(header: Header, start: str) -> Mapping[str, Any]:
    return {
        "in_channels": dimension(header, f"{start}img_in.weight", 1),
        "guidance_embeds": any(name.startswith(f"{start}guidance_in.") for name in header.tensors),
    }


def _sd3_published(header: Header, start: str) -> str:
    if any(".x_block.attn2." in name for name in header.tensors):
        return "sd3.5-medium"
    # 3.5 brought a norm of queries and keys.
    return "sd3.5-large" if f"{start}joint_blocks.0.x_block.attn.ln_q.weight" in header.tensors else "sd3-medium"


def _flux2_published(header: Header, start: str) -> str:
    # 4B is as wide as FLUX.1.
    return "flux2-9b" if dimension(header, f"{start}img_in.weight", 0) == FLUX2_9B_WIDTH else "flux2-4b"


def _zimage_published(header: Header, _: str) -> str:
    # The two differ in how far their noise is shifted, which no tensor tells.
    said = (header.metadata.get("modelspec.title", ""), header.path.stem)
    return "zimage-turbo" if any(zimage.WORDS[zimage.TURBO].search(text) for text in said) else "zimage"


def _no_settings(_: Header, __: str) -> Mapping[str, Any]:
    return {}


_UNET: Final = Piece("unet", "UNet2DConditionModel", (NETWORK,))
_VAE: Final = Piece("vae", "AutoencoderKL", (_FIRST_STAGE, "vae."))
_SD15: Final = Original(
    "sd15",
    (_UNET, _VAE, Piece("text_encoder", "CLIPTextModel", (_SD15_TEXT,))),
    lambda _, __: "sd15",
    _unet_settings,
)
_SD2: Final = Original(
    "sd2",
    (_UNET, _VAE, Piece("text_encoder", "CLIPTextModel", (_SD2_TEXT, _SD15_TEXT))),
    lambda _, __: "sd2",
    _unet_settings,
)
_SDXL: Final = Original(
    "sdxl",
    (
        _UNET,
        _VAE,
        Piece("text_encoder", "CLIPTextModel", (f"{_EMBEDDERS}0.transformer.",)),
        Piece("text_encoder_2", "CLIPTextModelWithProjection", (f"{_EMBEDDERS}1.model.",)),
    ),
    lambda _, __: "sdxl",
    _unet_settings,
)
_REFINER: Final = Original(
    "sdxl",
    (_UNET, _VAE, Piece("text_encoder_2", "CLIPTextModelWithProjection", (f"{_EMBEDDERS}0.model.",))),
    lambda _, __: "sdxl-refiner",
    _unet_settings,
)
_SD3: Final = Original(
    "sd3",
    (
        Piece("transformer", "SD3Transformer2DModel", (NETWORK, "")),
        _VAE,
        Piece("text_encoder", "CLIPTextModelWithProjection", ("text_encoders.clip_l.transformer.",)),
        Piece("text_encoder_2", "CLIPTextModelWithProjection", ("text_encoders.clip_g.transformer.",)),
        Piece("text_encoder_3", "T5EncoderModel", ("text_encoders.t5xxl.transformer.",)),
    ),
    _sd3_published,
    _no_settings,
    optional=frozenset({"text_encoder_3"}),
)
_FLUX: Final = Original(
    "flux",
    (
        Piece("transformer", "FluxTransformer2DModel", (NETWORK, "")),
        _VAE,
        Piece("text_encoder", "CLIPTextModel", ("text_encoders.clip_l.transformer.",)),
        Piece("text_encoder_2", "T5EncoderModel", ("text_encoders.t5xxl.transformer.",)),
    ),
    lambda _, __: "flux",
    _flux_settings,
)
#: Its network is passed on alone, as that of the next.
_FLUX2: Final = Original(
    "flux2",
    (
        Piece("transformer", "Flux2Transformer2DModel", (NETWORK, "")),
        Piece("vae", "AutoencoderKLFlux2", ()),
        Piece("text_encoder", "Qwen3ForCausalLM", ()),
    ),
    _flux2_published,
    _no_settings,
    beside=("tokenizer",),
)
#: Its network has the names of klein's, and one more layer.
_FLUX2_DEV: Final = _FLUX2._replace(
    pieces=(*_FLUX2.pieces[:-1], Piece("text_encoder", "Mistral3ForConditionalGeneration", ())),
    published=lambda _, __: "flux2-dev",
    pipeline="Flux2Pipeline",
)
_READS_GUIDANCE: Final = (f"{NETWORK}guidance_in.", "guidance_in.")
#: Under the names that diffusers has for it.
_QWENIMAGE: Final = Original(
    "qwenimage",
    (
        Piece("transformer", "QwenImageTransformer2DModel", (NETWORK, "")),
        Piece("vae", "AutoencoderKLQwenImage", ()),
        Piece("text_encoder", "Qwen2_5_VLForConditionalGeneration", ()),
    ),
    lambda _, __: "qwenimage",
    _no_settings,
    beside=("tokenizer",),
    relatives=MappingProxyType({"Qwen-Image-Edit": word("edit"), "Qwen-Image-Layered": word("layered")}),
)
#: Its network is passed on alone too.
_ZIMAGE: Final = Original(
    "zimage",
    (
        Piece("transformer", "ZImageTransformer2DModel", (NETWORK, "")),
        Piece("vae", "AutoencoderKL", ()),
        Piece("text_encoder", "Qwen3Model", ()),
    ),
    _zimage_published,
    _no_settings,
    beside=("tokenizer",),
)
#: The beginnings of names that tell a family by its network; bare where a file holds the network alone.
_BY_NETWORK: Final = (
    # First, because some of its blocks are called like those of FLUX.1.
    (_FLUX2, (f"{NETWORK}double_stream_modulation_img.", "double_stream_modulation_img.")),
    (_FLUX, (f"{NETWORK}double_blocks.", "double_blocks.")),
    (_SD3, (f"{NETWORK}joint_blocks.", "joint_blocks.")),
    (_QWENIMAGE, (f"{NETWORK}transformer_blocks.0.img_mod.", "transformer_blocks.0.img_mod.")),
    (_ZIMAGE, (f"{NETWORK}layers.0.adaLN_modulation.0.", "layers.0.adaLN_modulation.0.")),
)
#: Of those that have a UNet, by what reads their prompts; a file without is told by what the UNet reads beside the prompt.
_BY_TEXT: Final = (
    (_REFINER, (f"{_EMBEDDERS}0.model.",)),
    (_SDXL, (_EMBEDDERS, f"{NETWORK}label_emb.")),
    (_SD2, (_SD2_TEXT,)),
)
_READS_TEXT: Final = "attn2.to_k.weight"
#: What only the tensors of families have that are not drawn here; looked at first, because some of their blocks are called like ours.
OTHERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "distilled_guidance_layer.": "Chroma",
        "__index_timestep_zero__": "Qwen-Image-Edit",
        "siglip_embedder.": "Z-Image Omni",
        "layers.0.adaLN_modulation.1.": "Lumina 2",
        "double_stream_blocks.": "HiDream",
        "double_layers.": "AuraFlow",
        "txt_in.individual_token_refiner.": "Hunyuan Video",
        "patchify_proj.": "LTX-Video",
        "clip_txt_mapper.": "Stable Cascade",
        "clip_mapper.": "Stable Cascade",
        "head.modulation": "Wan",
        "blocks.0.cross_attn.q_linear.": "PixArt or Sana",
    }
)


def original_of(header: Header) -> Original | None:
    """Return how a file is laid out by what its tensors are called; None for what is no checkpoint in an original layout."""
    by_network = next((original for original, starts in _BY_NETWORK if _begins(header, starts)), None)
    if by_network is _FLUX2 and _begins(header, _READS_GUIDANCE):
        return _FLUX2_DEV
    if by_network is not None or f"{NETWORK}input_blocks.0.0.weight" not in header.tensors:
        return by_network
    by_text = next((original for original, starts in _BY_TEXT if _begins(header, starts)), None)
    if by_text is not None:
        return by_text
    read = next((name for name in header.tensors if name.startswith(NETWORK) and name.endswith(_READS_TEXT)), None)
    return _SD2 if read is not None and dimension(header, read, 1) == SD2_TEXT_WIDTH else _SD15


def start_of(header: Header, piece: Piece) -> str | None:
    """Return what the names of a component's tensors begin with in a file; None when it is not there."""
    named = [start for start in piece.starts if start]
    found = next((start for start in named if _begins(header, (start,))), None)
    return "" if found is None and "" in piece.starts else found


def _begins(header: Header, starts: Iterable[str]) -> bool:
    starts = tuple(starts)
    return any(name.startswith(starts) for name in header.tensors)
