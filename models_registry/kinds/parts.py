"""The configurations of a Stable Diffusion checkpoint's components, in a diffusers folder or beside a single file."""

from pathlib import Path
from typing import Final, NamedTuple

from models_registry.bounded_files import Reads
from models_registry.configs import Config, read_config
from models_registry.diffusers_classes import (
    CLIP_TEXT_KEYS,
    SCHEDULER_KEYS,
    SD_COMPONENTS,
    TOKENIZER_CONFIG_KEYS,
    TOKENIZER_FILES,
    UNET_KEYS,
    VAE_KEYS,
)
from models_registry.families import FamilyFacts, Prediction
from models_registry.kinds.unets import SD2_TEXT_WIDTH, refuse_channels
from models_registry.refusals import ClassRefused, ConfigInvalid, Unrecognised

#: transformers sets the limit of a tokenizer that has none to this.
NO_LIMIT: Final = 10**31
#: Layers of a CLIP text encoder whose configuration does not say.
TEXT_LAYERS: Final = 12
_SCHEDULERS: Final = tuple(sorted(name for _, name in SD_COMPONENTS["scheduler"]))
#: Settings of a UNet that reads more than a prompt.
_EXTRAS: Final = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
    "num_class_embeds",
)


class Parts(NamedTuple):
    """Hold the configuration of each component that has one."""

    unet: Config
    vae: Config
    text_encoder: Config
    scheduler: Config


def read_unet(folder: Path, reads: Reads) -> Config:
    """Read a UNet's configuration."""
    return read_config(folder / "unet" / "config.json", reads).of_class("UNet2DConditionModel").only(UNET_KEYS)


def read_vae(folder: Path, reads: Reads) -> Config:
    """Read a VAE's configuration."""
    return read_config(folder / "vae" / "config.json", reads).of_class("AutoencoderKL").only(VAE_KEYS)


def read_text_encoder(folder: Path, reads: Reads) -> Config:
    """Read a text encoder's configuration."""
    config = read_config(folder / "text_encoder" / "config.json", reads)
    config.of_class("clip_text_model", key="model_type").only(CLIP_TEXT_KEYS)
    if config.values.get("architectures") not in (None, ["CLIPTextModel"]):
        raise ClassRefused(
            config.path, f"names the architectures {str(config.values['architectures'])[:80]} instead of CLIPTextModel"
        )
    return config


def read_scheduler(folder: Path, reads: Reads) -> Config:
    """Read a scheduler's configuration."""
    return (
        read_config(folder / "scheduler" / "scheduler_config.json", reads).of_class(*_SCHEDULERS).only(SCHEDULER_KEYS)
    )


def read_tokenizer(folder: Path, reads: Reads) -> list[Path]:
    """Check a tokenizer and return its files."""
    place = folder / "tokenizer"
    files = [place / name for name in TOKENIZER_FILES if (place / name).is_file()]
    if not any(file.name in {"tokenizer.json", "vocab.json"} for file in files):
        raise ConfigInvalid(place, "holds neither tokenizer.json nor vocab.json")
    settings = place / "tokenizer_config.json"
    if settings in files:
        config = read_config(settings, reads, largest=NO_LIMIT).only(TOKENIZER_CONFIG_KEYS)
        if config.values.get("tokenizer_class") not in (None, "CLIPTokenizer", "CLIPTokenizerFast"):
            raise ClassRefused(
                settings, f"names the class {str(config.values['tokenizer_class'])[:60]!r} instead of CLIPTokenizer"
            )
    return files


def in_channels(unet: Config) -> int:
    """Return how many channels a UNet reads."""
    return unet.whole("in_channels", 4)


def check(parts: Parts, family: FamilyFacts) -> None:
    """Raise a `ModelRefused` unless the components are those of the family and fit each other."""
    unet, text_width = parts.unet, parts.text_encoder.whole("hidden_size")
    refuse_channels(unet.path, in_channels(unet), family)
    check_prediction(parts.scheduler)
    if text_width == SD2_TEXT_WIDTH and unet.values.get("use_linear_projection"):
        raise Unrecognised(unet.path, "is Stable Diffusion 2.x, which is not supported yet")
    refuse_extras(unet)
    if unet.whole("cross_attention_dim", 1280) != text_width:
        raise ConfigInvalid(
            unet.path,
            f"reads text features of width {unet.values.get('cross_attention_dim')}; its text encoder gives {text_width}",
        )
    if {unet.whole("out_channels", 4), parts.vae.whole("latent_channels")} != {family.latent_channels}:
        raise ConfigInvalid(unet.path, f"and the VAE do not both have {family.latent_channels} latent channels")


def check_prediction(scheduler: Config) -> None:
    """Raise `Unrecognised` for a network that predicts something else than its family's do."""
    prediction = scheduler.values.get("prediction_type", "epsilon")
    if prediction != Prediction.EPSILON:
        raise Unrecognised(
            scheduler.path, f"predicts {str(prediction)[:40]!r}; only {Prediction.EPSILON.value!r} is supported yet"
        )


def refuse_extras(unet: Config) -> None:
    """Raise `Unrecognised` for a network that wants more than a prompt."""
    for key in _EXTRAS:
        if unet.values.get(key) is not None:
            raise Unrecognised(unet.path, f"wants more than a prompt ({key}), which is not supported yet")


def latent_factor(vae: Config, family: FamilyFacts) -> int:
    """Return the pixels per latent cell, raising `Unrecognised` when the family's sizes do not come out whole."""
    factor: int = 2 ** (len(vae.wholes("block_out_channels")) - 1)
    check_factor(vae.path, factor, family)
    return factor


def check_factor(path: Path, factor: int, family: FamilyFacts) -> None:
    """Raise `Unrecognised` unless the family's sizes are whole numbers of latent cells."""
    if family.size_step % factor:
        raise Unrecognised(
            path, f"has latent cells that are not a whole part of {family.title}'s step of {family.size_step} pixels"
        )


def native_size(unet: Config, family: FamilyFacts, factor: int) -> int:
    """Return the side of the pictures a model was trained on, raising `Unrecognised` when it cannot be drawn."""
    side = unet.side("sample_size")
    if side is None:
        raise Unrecognised(unet.path, "was trained on pictures that are not square, which is not supported yet")
    size = side * factor
    # Below the family's own minimum, because a model knows best what it was trained on.
    if size > family.max_side or size % family.size_step:
        reason = (
            f"draws {size} pixels a side; {family.title} takes up to {family.max_side} in steps of {family.size_step}"
        )
        raise Unrecognised(unet.path, reason)
    return size
