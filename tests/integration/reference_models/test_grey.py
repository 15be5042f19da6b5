"""Check that the grey autoencoder takes the colours away and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest

import reference_models
from reference_models.measure import draw_all, load
from reference_models.measuring.grey import asked_of, load_vae, overlaps
from reference_models.pictures import Scene, draw
from reference_models.styles import luminance_mask, saturation
from reference_models.training.family import PUBLISHED
from reference_models.training.publish import folder_size

FOLDER: Final = Path(reference_models.__file__).parent / "vaes" / "shapes-grey"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_pictures_lose_their_colours_and_keep_their_shapes() -> None:
    """The same pictures decoded by both: one is coloured, one is grey, and the shapes cover each other."""
    pipeline, asked = load(PUBLISHED), asked_of(8)
    coloured = draw_all(pipeline, asked)
    pipeline.vae = load_vae(FOLDER)
    grey = draw_all(pipeline, asked)
    assert max(saturation(picture) for picture in grey) < 0.01
    assert np.mean([saturation(picture) for picture in coloured]) > 0.3
    found = overlaps(grey, coloured)
    assert min(found) > 0.85
    # Against the neighbour's shape the overlap is small: the check above can fail.
    assert np.mean(overlaps(grey, [*coloured[1:], coloured[0]])) < 0.75


def test_luminance_mask_finds_the_shape() -> None:
    """The mask covers the shape, whether it is the brighter or the darker one."""
    for front, back in (("white", "blue"), ("blue", "white")):
        mask = luminance_mask(draw(Scene("square", front, back, 0.5, 0.5, 0.25)))
        assert mask.mean() == pytest.approx((2 * 0.86 * 0.25) ** 2, rel=0.05)


def test_folder_is_small_and_ordinary() -> None:
    """The folder holds a plain autoencoder and its card."""
    assert folder_size(FOLDER) < 1_500_000
    assert {path.name for path in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
