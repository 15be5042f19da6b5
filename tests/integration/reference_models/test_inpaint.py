"""Check that the committed inpainting model draws under a mask what is asked for, and goes on with what is around it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

import reference_models
from reference_models.judge import judge
from reference_models.masks import border, box_around, random_mask
from reference_models.measure import load
from reference_models.measuring.inpaint import change_outside, drawn, goes_on, outward, replacements, shares_right
from reference_models.pictures import Scene, random_scene
from reference_models.training.publish import folder_size

FOLDER: Final = Path(reference_models.__file__).parent / "shapes-sd15-inpaint"

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Load the model as any user would, in single precision."""
    return load(FOLDER)


def test_shapes_are_replaced_under_the_mask(pipeline: Any) -> None:
    """A new shape in a new colour stands where the old one was, on the old background, and the rest hardly changes."""
    tasks = replacements(16)
    pictures = drawn(pipeline, tasks)
    assert shares_right(pictures, tasks) >= 0.8
    assert change_outside(pictures, tasks) < 0.03
    # Judged against the neighbour's task the same pictures are wrong: the check above can fail.
    assert shares_right([*pictures[1:], pictures[0]], tasks) < 0.1


def test_source_itself_does_not_answer() -> None:
    """The old picture is not what is asked for."""
    assert not any(judge(task.source, task.expected).all_right for task in replacements(16))


def test_background_goes_on_beyond_an_edge(pipeline: Any) -> None:
    """What is drawn beyond an edge has the background's colour; against another background it has not."""
    tasks = outward(8)
    pictures = drawn(pipeline, tasks)
    assert np.mean([goes_on(picture, task) for picture, task in zip(pictures, tasks, strict=True)]) >= 0.8
    asked = [task.expected.background for task in tasks]
    others = [*asked[1:], asked[0]]
    for picture, task, other in zip(pictures, tasks, others, strict=True):
        elsewhere = replace(task, expected=replace(task.expected, background=other))
        assert other == task.expected.background or not goes_on(picture, elsewhere)


def test_masks_cover_what_they_say() -> None:
    """A box covers its shape, a border leaves the middle, and random masks are never all alike."""
    assert box_around(Scene("circle", "red", "blue", 0.5, 0.5, 0.2), 0.1).mean() == pytest.approx(0.664**2, rel=0.03)
    strips = border([0.25, 0, 0, 0])
    assert strips[:, :32].all()
    assert not strips[:, 32:].any()
    rng = np.random.default_rng(0)
    shares = [random_mask(random_scene(rng), rng).mean() for _ in range(100)]
    assert 0.3 < np.mean(shares) < 0.6
    assert max(shares) == 1


def test_folder_is_small_and_ordinary() -> None:
    """The folder holds a plain pipeline whose denoiser takes nine channels."""
    assert folder_size(FOLDER) <= 5_200_000
    index = json.loads((FOLDER / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusionInpaintPipeline"
    assert json.loads((FOLDER / "unet" / "config.json").read_text(encoding="utf-8"))["in_channels"] == 9
    assert json.loads((FOLDER / "imagefleet.json").read_text(encoding="utf-8"))["scheduler"] == "Euler"
