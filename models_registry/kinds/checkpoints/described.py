"""What the module of a family says of one checkpoint, and what is said of it beside its tensors."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from models_registry.recommendations import FILE
from models_registry.refusals import ConfigInvalid


class Described(NamedTuple):
    """Hold what the configurations of a checkpoint tell; see `entries.ModelEntry`."""

    family: str
    variant: str
    native_size: int
    latent_factor: int
    latent_channels: int
    text_width: int
    #: First-layer width of the denoiser.
    width: int
    text_layers: int | None


class Told(NamedTuple):
    """Hold what people say of a checkpoint where its tensors are silent."""

    #: The folder that may hold `imagefleet.json`.
    folder: Path
    #: What `imagefleet.json` says.
    variant: str | None = None
    #: Texts in which a word may tell the variant, the most trustworthy first: the file's own metadata, then its name.
    texts: tuple[str, ...] = ()
    #: Settings of the pipeline itself, as a folder's `model_index.json` has them: None where it is silent, and none of a file.
    settings: Mapping[str, object] = MappingProxyType({})


def choose(
    possible: Sequence[str], told: Told, words: Mapping[str, re.Pattern[str]], suggested: Sequence[str] = ()
) -> str:
    """Return the variant of a checkpoint; raises `ConfigInvalid` when `imagefleet.json` says one that it cannot be.

    `possible` are those that tensors and configurations allow, the ordinary one first: what nobody speaks of is that one. `suggested` are
    those that the scheduler was made for, the likeliest first.
    """
    if told.variant is not None:
        if told.variant not in possible:
            raise ConfigInvalid(
                told.folder / FILE,
                f"says that the variant is {told.variant!r}; by its weights and configurations it is {' or '.join(possible)}",
            )
        return told.variant
    open_ones = [variant for variant in suggested if variant in possible] or possible
    for text in told.texts:
        said = [variant for variant in open_ones if variant in words and words[variant].search(text)]
        if said:
            return said[0]
    return open_ones[0]


def word(pattern: str) -> re.Pattern[str]:
    """Return what finds a word between other letters' ends, in any case: `turbo` in `DreamXL_Turbo-v2`."""
    return re.compile(rf"(?:(?<![a-z])|(?<=xl))(?:{pattern})(?![a-z])", re.IGNORECASE | re.ASCII)
