"""Check that the committed upscalers come nearer to pictures drawn large than bicubic enlarging does."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

import reference_models
from reference_models.measuring.upscaler import large_pictures, made_small, measure
from reference_models.training.upscaler import REACH, SCALES, load

FOLDER: Final = Path(reference_models.__file__).parent / "upscalers"


@pytest.mark.parametrize("name", SCALES)
def test_enlarging_beats_bicubic(name: str) -> None:
    """On pictures that it was not trained on it is better by several decibels."""
    found = measure(FOLDER / f"{name}.safetensors", 16)
    assert found["mean PSNR in dB"] > found["bicubic enlarging"] + 3


@pytest.mark.parametrize("name", SCALES)
def test_only_near_pixels_matter(name: str) -> None:
    """A pixel decides what is drawn within the reach that the card tells, and nothing beyond."""
    scale, net = SCALES[name], load(FOLDER / f"{name}.safetensors")
    plain = torch.zeros(1, 3, 48, 48)
    marked = plain.clone()
    marked[..., 24, 24] = 1
    with torch.no_grad():
        changed = (net(marked) - net(plain)).abs().amax(dim=(0, 1)) > 0
    rows = np.nonzero(changed.any(dim=1).numpy())[0] // scale
    assert 24 - REACH <= rows.min() < 24 < rows.max() <= 24 + REACH


@pytest.mark.parametrize("name", SCALES)
def test_ordinary_loaders_know_the_file(name: str) -> None:
    """Spandrel finds the architecture and the scale by itself, and enlarges to the same pixels."""
    spandrel = pytest.importorskip("spandrel")
    path, scale = FOLDER / f"{name}.safetensors", SCALES[name]
    found = spandrel.ModelLoader(device="cpu").load_from_file(path)
    assert (found.architecture.id, found.scale) == ("Compact", scale)
    small = torch.from_numpy(made_small(large_pictures(scale, 1)[0], scale)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        same = torch.allclose(found.model.float()(small), load(path)(small), atol=1e-4)
    assert same
    assert path.stat().st_size < 500_000
