"""The configurations of a checkpoint's components, in a diffusers folder or beside a single file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from models_registry.diffusers_classes import (
    CLASSES,
    FLOW_SCHEDULER_CLASSES,
    SCHEDULER_CLASSES,
    TOKENIZER_FILES,
    TOKENIZERS_INSIDE,
)
from models_registry.diffusers_keys import SCHEDULER_KEYS, TOKENIZER_CONFIG_KEYS
from models_registry.families import FamilyFacts
from models_registry.reading.bounded_files import Reads
from models_registry.reading.configs import Config, read_config
from models_registry.refusals import ClassRefused, ConfigInvalid, Unrecognised

#: transformers sets the limit of a tokenizer that has none to this.
NO_LIMIT: Final = 10**31
#: Layers of a CLIP text encoder whose configuration does not say.
TEXT_LAYERS: Final = 12
SCHEDULER: Final = "scheduler"

#: Configurations by component.
Configs = Mapping[str, Config]


def read_part(folder: Path, component: str, name: str, reads: Reads) -> Config:
    """Read the configuration of a component that holds weights and has the class `name`."""
    known = CLASSES[name]
    config = read_config(folder / component / "config.json", reads)
    if not known.model_type:
        return config.of_class(name).only(known.keys)
    config.of_class(known.model_type, key="model_type").only(known.keys)
    for key, inner in known.inner.items():
        config.part(key).only(inner)
    if config.values.get("architectures") not in (None, *([each] for each in (name, *known.around))):
        raise ClassRefused(
            config.path, f"names the architectures {str(config.values['architectures'])[:80]} instead of {name}"
        )
    return config


def read_scheduler(folder: Path, reads: Reads, *, flow: bool = False) -> Config:
    """Read a scheduler's configuration; `flow` tells of a network that predicts the velocity of a flow."""
    path = folder / SCHEDULER / "scheduler_config.json"
    known = FLOW_SCHEDULER_CLASSES if flow else SCHEDULER_CLASSES
    return read_config(path, reads).of_class(*known).only(SCHEDULER_KEYS)


def read_tokenizer(folder: Path, component: str, classes: frozenset[str], reads: Reads) -> list[Path]:
    """Check a tokenizer of one of some classes and return its files."""
    place = folder / component
    files = [place / name for name in TOKENIZER_FILES if (place / name).is_file()]
    if not any(file.name in {"tokenizer.json", "vocab.json", "spiece.model"} for file in files):
        raise ConfigInvalid(place, "holds neither tokenizer.json nor vocab.json")
    settings = place / "tokenizer_config.json"
    if settings in files:
        config = read_config(settings, reads, largest=NO_LIMIT).only(TOKENIZER_CONFIG_KEYS)
        # They reach another library, which opens files by some of them.
        if config.values.get("sp_model_kwargs") not in (None, {}):
            raise ClassRefused(settings, "has settings of sentencepiece, which are handed to another library")
        known = frozenset().union(*(TOKENIZERS_INSIDE.get(name, {name}) for name in classes))
        if config.values.get("tokenizer_class") not in (None, *known):
            raise ClassRefused(
                settings,
                f"names the class {str(config.values['tokenizer_class'])[:60]!r} instead of {min(known)}",
            )
    return files


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


def native_size(denoiser: Config, family: FamilyFacts, factor: int) -> int:
    """Return the side of the pictures a model was trained on, raising `Unrecognised` when it cannot be drawn."""
    side = denoiser.side("sample_size")
    if side is None:
        raise Unrecognised(denoiser.path, "was trained on pictures that are not square, which is not supported yet")
    return check_native(denoiser, side * factor, family)


def check_native(config: Config, size: int, family: FamilyFacts) -> int:
    """Return the side that a configuration says, raising `Unrecognised` when it cannot be drawn."""
    # Below the family's own minimum, because a model knows best what it was trained on.
    if size > family.max_side or size % family.size_step:
        reason = (
            f"draws {size} pixels a side; {family.title} takes up to {family.max_side} in steps of {family.size_step}"
        )
        raise Unrecognised(config.path, reason)
    return size


def check_text_width(denoiser: Config, key: str, given: int, default: int | None = None) -> int:
    """Return the width of the text features that are read, raising `ConfigInvalid` when others are given."""
    if denoiser.whole(key, default) != given:
        raise ConfigInvalid(
            denoiser.path,
            f"reads text features of width {denoiser.values.get(key)}; its text encoder gives {given}",
        )
    return given


def check_latents(denoiser: Config, vae: Config, drawn: int) -> int:
    """Return the number of latent channels, raising `ConfigInvalid` when what draws them and what decodes them differ."""
    channels = vae.whole("latent_channels", 4)
    if channels != drawn:
        raise ConfigInvalid(denoiser.path, f"draws {drawn} latent channels; its VAE has {channels}")
    return channels
