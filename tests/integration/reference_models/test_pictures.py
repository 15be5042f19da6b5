"""Check that the picture set draws and words what its scenes say."""

from __future__ import annotations

import numpy as np
import pytest

from reference_models.pictures import (
    PALETTE,
    SHAPES,
    Attributes,
    Scene,
    caption,
    coverage,
    draw,
    position_words,
    random_caption,
    random_scene,
    size_word,
)


def test_draw_puts_the_colours_where_the_scene_says() -> None:
    """The centre has the shape's colour, the corner the background's."""
    pixels = draw(Scene("circle", "red", "blue", 0.3, 0.7, 0.2), 64, 64)
    assert tuple(pixels[44, 19]) == PALETTE["red"]
    assert tuple(pixels[0, 63]) == PALETTE["blue"]


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_stays_inside_the_reach(shape: str) -> None:
    """No shape touches the border, wherever a scene may put it."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        scene = random_scene(rng)
        inside = coverage(shape, scene.x, scene.y, scene.radius)
        assert inside.max() == 1
        assert max(inside[0].max(), inside[-1].max(), inside[:, 0].max(), inside[:, -1].max()) == 0


def test_coverage_tells_shapes_apart() -> None:
    """No two shapes cover the same pixels."""
    masks = [coverage(shape, 0.5, 0.5, 0.3) > 0.5 for shape in SHAPES]
    for index, mask in enumerate(masks):
        for other in masks[index + 1 :]:
            assert (mask & other).sum() < 0.92 * (mask | other).sum()


def test_random_scene_repeats_with_its_seed() -> None:
    """The same generator gives the same scenes, another one others."""
    assert random_scene(np.random.default_rng(5)) == random_scene(np.random.default_rng(5))
    assert random_scene(np.random.default_rng(5)) != random_scene(np.random.default_rng(6))


def test_caption_words_what_is_said() -> None:
    """Sentences and tags name exactly the given attributes."""
    whole = Attributes("circle", "red", "blue")
    assert caption(whole) == "a red circle on a blue background"
    assert caption(whole, tags=True) == "red circle, blue background"
    assert caption(Attributes(colour="orange", size="small", position="left")) == "a small orange shape on the left"
    assert caption(Attributes("star", background="orange")) == "a star on an orange background"


def test_random_caption_only_says_what_is_true() -> None:
    """Every attribute that a caption names holds for its scene, and each is left out now and then."""
    rng = np.random.default_rng(1)
    left_out = set()
    for _ in range(300):
        scene = random_scene(rng)
        words, said = random_caption(scene, rng)
        assert said.shape in (None, scene.shape)
        assert said.colour in (None, scene.colour)
        assert said.background in (None, scene.background)
        assert said.size in (None, size_word(scene))
        assert said.position is None or said.position in position_words(scene)
        for name in ("shape", "colour", "background"):
            value = getattr(said, name)
            if value is None:
                left_out.add(name)
            else:
                assert value in words
    assert left_out == {"shape", "colour", "background"}
