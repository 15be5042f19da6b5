"""Checkpoints in the layout Stable Diffusion was first published in: one file with a UNet, a VAE and a text encoder.

What tensors do not tell lies beside `model.safetensors` in a folder `model.config`, laid out as a diffusers folder without weights;
an ordinary Stable Diffusion 1.x needs none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from models_registry.bounded_files import Reads
from models_registry.configs import Config
from models_registry.entries import Component, Kind
from models_registry.families import FAMILIES, FamilyFacts
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds import parts
from models_registry.kinds.single_files import config_folder, latent_facts
from models_registry.kinds.unets import INPAINT_CHANNELS, family_of_width, refuse_channels, refuse_extras
from models_registry.recommendations import check_scheduler, read_recommendations
from models_registry.refusals import ConfigInvalid, Unrecognised, WeightsMismatch
from models_registry.safetensors_header import Header
from models_registry.weights import dimension

UNET: Final = "model.diffusion_model."
VAE: Final = "first_stage_model."
TEXT: Final = "cond_stage_model.transformer."
_PREFIXES: Final[Mapping[str, str]] = MappingProxyType({"unet": UNET, "vae": VAE, "text_encoder": TEXT})
_TITLES: Final[Mapping[str, str]] = MappingProxyType({"unet": "UNet", "vae": "VAE", "text_encoder": "text encoder"})
#: Beginnings of tensors' names that only another family has; the first that fits is told.
_OTHERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "conditioner.embedders.": "SDXL",
        "cond_stage_model.model.": "Stable Diffusion 2.x",
        f"{UNET}joint_blocks.": "Stable Diffusion 3",
        f"{UNET}double_blocks.": "FLUX.1",
        "double_blocks.": "FLUX.1",
        "joint_blocks.": "Stable Diffusion 3",
        "text_encoders.": "a newer family",
    }
)
_FIRST: Final = f"{UNET}input_blocks.0.0.weight"
_LAST: Final = f"{UNET}out.2.weight"
#: Older files have one module less.
_TEXT_STARTS: Final = (f"{TEXT}text_model.", TEXT)
_WORDS: Final = "embeddings.token_embedding.weight"
#: First dimensions in the published model, which all that were trained from it have.
_ORDINARY: Final[Mapping[str, int]] = MappingProxyType({"unet": 320, "vae": 512, "text_encoder": 768})
_LAYER: Final = re.compile(rf"{re.escape(TEXT)}(?:text_model\.)?encoder\.layers\.(\d{{1,3}})\.", re.ASCII)
_SQUARE: Final = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)


class _Beside(NamedTuple):
    """What lies beside the file."""

    unet: Config | None
    vae: Config | None
    text_encoder: Config | None
    scheduler: Config | None
    tokenizer: list[Path]


def from_file(header: Header, reads: Reads) -> Findings | None:
    """Read one checkpoint, raising a `ModelRefused` for one that cannot be drawn; None for what is no checkpoint."""
    _refuse_others(header)
    if _FIRST not in header.tensors:
        if any(name.startswith(UNET) for name in header.tensors):
            raise Unrecognised(header.path, "has a network that is not Stable Diffusion's, which is not supported yet")
        return None
    family = FAMILIES["sd15"]
    components = tuple(_component(header, name, prefix) for name, prefix in _PREFIXES.items())
    channels = dimension(header, _FIRST, 1)
    refuse_channels(header.path, channels, family.latent_channels)
    text_width = _text_width(header)
    latents = latent_facts(header, VAE)
    parts.check_factor(header.path, latents.factor, family)
    if _LAST in header.tensors and dimension(header, _LAST, 0) != latents.channels:
        raise WeightsMismatch(header.path, "has a UNet and a VAE that differ in their number of latent channels")
    if latents.channels != family.latent_channels:
        raise Unrecognised(header.path, f"has {latents.channels} latent channels; {family.title} has 4")
    beside = _beside(header.path, reads)
    _check_beside(header, beside, channels, text_width)
    hints = read_recommendations(config_folder(header.path), reads)
    check_scheduler(config_folder(header.path), hints, family.variants["base"])
    return Findings(
        kind=Kind.CHECKPOINT,
        family=family.name,
        weights=of_one_file(header),
        components=components,
        others=_files(header.path, beside),
        variant="inpaint" if channels == INPAINT_CHANNELS else "base",
        native_size=_native_size(header, beside, family, latents.factor),
        latent_factor=latents.factor,
        latent_channels=latents.channels,
        text_width=text_width,
        text_layers=_text_layers(header),
        default_steps=hints.steps,
        default_guidance_scale=hints.guidance_scale,
        default_scheduler=hints.scheduler,
    )


def _refuse_others(header: Header) -> None:
    for start, title in _OTHERS.items():
        if any(name.startswith(start) for name in header.tensors):
            raise Unrecognised(header.path, f"is a checkpoint of {title}, which is not supported yet")
    for name in (f"{UNET}label_emb.0.0.weight", "v_pred"):
        if name in header.tensors:
            raise Unrecognised(header.path, f"is no Stable Diffusion 1.x ({name}), which alone is supported yet")
    if header.metadata.get("modelspec.prediction_type", "epsilon") not in {"epsilon", ""}:
        raise Unrecognised(header.path, "predicts something else than the noise, which is not supported yet")


def _component(header: Header, name: str, prefix: str) -> Component:
    own = [tensor for each, tensor in header.tensors.items() if each.startswith(prefix)]
    if not own:
        raise Unrecognised(header.path, f"holds no {_TITLES[name]}; only whole checkpoints are supported yet")
    return component(name, own)


def _text_width(header: Header) -> int:
    words = next((name for start in _TEXT_STARTS if (name := f"{start}{_WORDS}") in header.tensors), None)
    if words is None:
        raise WeightsMismatch(header.path, f"has a text encoder without {_WORDS}")
    given = dimension(header, words, 1)
    read = {
        dimension(header, name, 1)
        for name in header.tensors
        if name.startswith(UNET) and name.endswith("attn2.to_k.weight")
    }
    for width in read:
        if family_of_width(width) not in {None, "sd15"}:
            raise Unrecognised(header.path, "is a checkpoint of Stable Diffusion 2.x by the width of its text features")
    if read != {given}:
        raise WeightsMismatch(
            header.path, f"reads text features of width {sorted(read)}; its text encoder gives {given}"
        )
    return given


def _text_layers(header: Header) -> int | None:
    found = (_LAYER.match(name) for name in header.tensors if name.startswith(TEXT))
    return max((int(layer[1]) + 1 for layer in found if layer is not None), default=None)


def _beside(path: Path, reads: Reads) -> _Beside:
    folder = config_folder(path)
    return _Beside(
        unet=parts.read_part(folder, "unet", "UNet2DConditionModel", reads) if (folder / "unet").is_dir() else None,
        vae=parts.read_part(folder, "vae", "AutoencoderKL", reads) if (folder / "vae").is_dir() else None,
        text_encoder=parts.read_part(folder, "text_encoder", "CLIPTextModel", reads)
        if (folder / "text_encoder").is_dir()
        else None,
        scheduler=parts.read_scheduler(folder, reads) if (folder / "scheduler").is_dir() else None,
        tokenizer=parts.read_tokenizer(folder, "tokenizer", frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}), reads)
        if (folder / "tokenizer").is_dir()
        else [],
    )


def _check_beside(header: Header, beside: _Beside, channels: int, text_width: int) -> None:
    sizes = {
        "unet": dimension(header, _FIRST, 0),
        "vae": dimension(header, f"{VAE}decoder.conv_in.weight", 0),
        "text_encoder": text_width,
    }
    for name, size in sizes.items():
        if getattr(beside, name) is None and size != _ORDINARY[name]:
            place = config_folder(header.path) / name / "config.json"
            raise ConfigInvalid(
                header.path,
                f"has a {_TITLES[name]} of another size than Stable Diffusion 1.x;"
                f" its configuration must lie beside it as {place.relative_to(header.path.parent)}",
            )
    if beside.unet is not None:
        refuse_extras(beside.unet)
        found = (beside.unet.wholes("block_out_channels")[0], beside.unet.whole("in_channels", 4))
        _compare(header, beside.unet, found, (sizes["unet"], channels))
        _compare(header, beside.unet, (beside.unet.whole("cross_attention_dim", 1280),), (text_width,))
    if beside.vae is not None:
        _compare(header, beside.vae, (beside.vae.wholes("block_out_channels")[-1],), (sizes["vae"],))
    if beside.text_encoder is not None:
        _compare(header, beside.text_encoder, (beside.text_encoder.whole("hidden_size"),), (text_width,))
    if beside.scheduler is not None:
        prediction = beside.scheduler.values.get("prediction_type", "epsilon")
        if prediction != "epsilon":
            raise Unrecognised(header.path, f"predicts {str(prediction)[:40]!r}, which is not supported yet")


def _compare(header: Header, config: Config, said: tuple[int, ...], found: tuple[int, ...]) -> None:
    if said != found:
        raise WeightsMismatch(
            header.path, f"has sizes {list(found)} where {config.path.parent.name} beside it says {list(said)}"
        )


def _native_size(header: Header, beside: _Beside, family: FamilyFacts, factor: int) -> int:
    if beside.unet is not None:
        return parts.native_size(beside.unet, family, factor)
    # What trainers write into a file, as `512x512`.
    found = _SQUARE.fullmatch(header.metadata.get("modelspec.resolution", ""))
    size = int(found[1]) if found is not None and found[1] == found[2] else family.native_size
    return size if 0 < size <= family.max_side and size % family.size_step == 0 else family.native_size


def _files(path: Path, beside: _Beside) -> Mapping[str, Path]:
    folder = config_folder(path)
    configs = (config.path for config in beside[:4] if config is not None)
    return {str(each.relative_to(folder)): each for each in (*configs, *beside.tokenizer)}
