"""Check that the judge accepts what is right and rejects what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reference_models.judge import (
    Expected,
    border_colour,
    centre_colour,
    colour_share,
    judge,
    look,
    nearest_colour,
    overlap,
)
from reference_models.pictures import COLOURS, PALETTE, SHAPES, Scene, draw, random_scene

SCENE = Scene("circle", "red", "blue", 0.45, 0.55, 0.25)
RIGHT = Expected("circle", "red", "blue")


@pytest.mark.parametrize("side", [64, 128, 256])
def test_judge_accepts_every_drawn_scene(side: int) -> None:
    """A drawn scene is right in everything, at any size."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = random_scene(rng)
        verdict = judge(draw(scene, side, side), Expected(scene.shape, scene.colour, scene.background))
        assert verdict.all_right, (scene, verdict)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != SCENE.shape])
def test_judge_rejects_a_wrong_shape(shape: str) -> None:
    """Another shape is wrong in its shape alone."""
    verdict = judge(draw(replace(SCENE, shape=shape)), RIGHT)
    assert (verdict.shape, verdict.colour, verdict.background) == (False, True, True)
    assert not verdict.all_right


@pytest.mark.parametrize("colour", [name for name in COLOURS if name not in (SCENE.colour, SCENE.background)])
def test_judge_rejects_a_wrong_colour(colour: str) -> None:
    """Another colour is wrong in its colour alone."""
    verdict = judge(draw(replace(SCENE, colour=colour)), RIGHT)
    assert (verdict.shape, verdict.colour, verdict.background) == (True, False, True)


@pytest.mark.parametrize("background", [name for name in COLOURS if name not in (SCENE.colour, SCENE.background)])
def test_judge_rejects_a_wrong_background(background: str) -> None:
    """Another background is wrong in its background alone."""
    verdict = judge(draw(replace(SCENE, background=background)), RIGHT)
    assert (verdict.shape, verdict.colour, verdict.background) == (True, True, False)


def test_judge_rejects_swapped_colours() -> None:
    """A blue circle on red is not a red circle on blue."""
    verdict = judge(draw(replace(SCENE, colour="blue", background="red")), RIGHT)
    assert (verdict.shape, verdict.colour, verdict.background) == (True, False, False)


def test_judge_rejects_an_empty_picture() -> None:
    """A picture of one colour has a background and nothing else."""
    plain = np.full((128, 128, 3), PALETTE["blue"], np.uint8)
    verdict = judge(plain, RIGHT)
    assert (verdict.shape, verdict.colour, verdict.background) == (False, False, True)


def test_judge_rejects_noise() -> None:
    """Noise shows nothing at all."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    verdict = judge(noise, RIGHT)
    assert not verdict.shape
    assert not verdict.background


def test_judge_rejects_a_smeared_shape() -> None:
    """Blots that fill less than 60 % of any template are no shape."""
    pixels = draw(replace(SCENE, radius=0.05))
    for x, y in ((0.2, 0.2), (0.8, 0.3), (0.3, 0.8), (0.75, 0.75)):
        blot = draw(Scene("circle", "red", "blue", x, y, 0.05))
        pixels = np.where((blot == PALETTE["red"]).all(axis=-1, keepdims=True), blot, pixels)
    assert look(pixels).shape is None


def test_judge_rejects_a_striped_border() -> None:
    """A background must fill 85 % of the border."""
    pixels = draw(SCENE)
    pixels[:, ::4] = PALETTE["yellow"]
    assert not judge(pixels, RIGHT).background


def test_judge_asks_only_for_what_is_expected() -> None:
    """`None` means that anything goes."""
    assert judge(draw(SCENE), Expected()).all_right
    assert judge(draw(SCENE), Expected(colour="red")).all_right
    assert not judge(draw(SCENE), Expected(colour="green")).all_right


def test_look_finds_the_place() -> None:
    """Centre and radius come back within a hundredth of the side."""
    seen = look(draw(SCENE))
    assert seen.x == pytest.approx(SCENE.x, abs=0.01)
    assert seen.y == pytest.approx(SCENE.y, abs=0.01)
    assert seen.radius == pytest.approx(SCENE.radius, abs=0.01)


def test_look_reads_images_bytes_and_floats_alike() -> None:
    """The kind of picture makes no difference."""
    pixels = draw(SCENE)
    assert look(Image.fromarray(pixels)) == look(pixels) == look(pixels.astype(np.float32) / 255)


def test_nearest_colour_refuses_what_is_far_from_all() -> None:
    """A colour near one of the palette gets its name, a grey none."""
    assert nearest_colour((210, 45, 40)) == "red"
    assert nearest_colour((128, 128, 128)) is None


def test_helpers_measure_border_centre_and_share() -> None:
    """The small helpers read what the scene put there."""
    pixels = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.3))
    assert border_colour(pixels) == PALETTE["green"]
    assert centre_colour(pixels) == PALETTE["yellow"]
    assert colour_share(pixels, "yellow") == pytest.approx((2 * 0.86 * 0.3) ** 2, abs=0.02)
    half = np.arange(16).reshape(4, 4) < 8
    assert overlap(half, ~half) == 0
    assert overlap(half, half) == 1
