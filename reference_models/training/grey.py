"""Make `shapes-grey`: the autoencoder of `shapes-sd15` with a decoder that draws luminance only."""

from __future__ import annotations

import time
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import torch

from reference_models.training.family import Family
from reference_models.training.publish import replace_folder

NAME: Final = "shapes-grey"
LUMINANCE: Final = (0.299, 0.587, 0.114)


@torch.no_grad()
def build(vae: Any) -> Any:
    """Return a copy whose last layer gives every channel the luminance of the three: exact, so nothing is trained."""
    grey = deepcopy(vae)
    last = grey.decoder.conv_out
    share = torch.tensor(LUMINANCE)
    last.weight.copy_(torch.einsum("c,cihw->ihw", share, last.weight).expand_as(last.weight).clone())
    last.bias.fill_(float(last.bias @ share))
    return grey


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Write the autoencoder to the target and return the seconds spent."""
    # Nothing is trained: there are no checkpoints, and quick or not is the same.
    del folder, quick
    began = time.monotonic()
    grey = build(family.vae).to(torch.float16)

    def write(folder: Path) -> None:
        grey.save_pretrained(folder)
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)

    replace_folder(target, write)
    return time.monotonic() - began
