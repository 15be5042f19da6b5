"""Check that the committed ControlNet puts the shape where the edges are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import reference_models
from reference_models.edges import edge_map
from reference_models.measuring.controlnet import drawn, load, overlaps, share_right, tasks
from reference_models.pictures import COLOURS, Scene, draw
from reference_models.training.publish import folder_size

FOLDER: Final = Path(reference_models.__file__).parent / "shapes-canny"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Load the model with its ControlNet."""
    return load(FOLDER)


@pytest.mark.parametrize("generic", [False, True])
def test_shape_lands_on_its_edges(pipeline: Any, generic: bool) -> None:  # noqa: FBT001  # pytest passes it by name
    """At scale 1 the shapes overlap, whether the prompt names the shape or not."""
    asked = tasks(16)
    pictures = drawn(pipeline, asked, generic=generic)
    found = overlaps(pictures, asked)
    assert np.mean(found) > 0.75
    assert min(found) > 0.4
    assert share_right(pictures, asked) >= 0.85


def test_scale_grades_the_effect(pipeline: Any) -> None:
    """Without the edges the shape lies elsewhere: the check above can fail; half of the scale lies between."""
    asked = tasks(8)
    without, half = (float(np.mean(overlaps(drawn(pipeline, asked, scale=scale), asked))) for scale in (0.0, 0.5))
    assert without < 0.45
    assert without + 0.1 < half


def test_edges_are_seen_between_any_two_colours() -> None:
    """Canny finds the outline of every pair of colours, white on black."""
    for front in COLOURS:
        for back in COLOURS:
            edges = edge_map(draw(Scene("circle", front, back, 0.5, 0.5, 0.25)))
            assert set(np.unique(edges)) <= {0, 255}
            assert (edges[..., 0] > 0).sum() > 150 or front == back


def test_folder_is_small_and_ordinary() -> None:
    """The folder holds a plain ControlNet and its card."""
    assert folder_size(FOLDER) < 2_000_000
    assert {path.name for path in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
