"""What files in the original layout of Stable Diffusion have in common."""

import re
from pathlib import Path
from typing import NamedTuple

from models_registry.reading.safetensors_header import Header
from models_registry.reading.weights import dimension
from models_registry.refusals import WeightsMismatch

_LEVEL = re.compile(r"encoder\.down(?:_blocks)?\.(\d{1,4})\.", re.ASCII)


class Latents(NamedTuple):
    """Tell the form of the latents that a VAE makes."""

    channels: int
    #: Pixels per latent cell.
    factor: int


def config_folder(path: Path) -> Path:
    """Return where the configuration of a single file lies, where it has one."""
    return path.with_name(f"{path.stem}.config")


def latent_facts(header: Header, prefix: str) -> Latents:
    """Read the form of the latents from a VAE's tensors, in the original's names or in diffusers', below a prefix."""
    levels = {
        int(found[1])
        for name in header.tensors
        if name.startswith(prefix) and (found := _LEVEL.match(name, len(prefix)))
    }
    if not levels or levels != set(range(len(levels))):
        raise WeightsMismatch(header.path, "has a VAE in pieces: its encoder lacks levels")
    return Latents(dimension(header, f"{prefix}decoder.conv_in.weight", 1), 2 ** (len(levels) - 1))
