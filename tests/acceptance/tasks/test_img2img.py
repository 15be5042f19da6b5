"""Image to image over HTTP, judged by pixels."""

import numpy as np

from reference_models.judge import Expected, judge
from reference_models.pictures import Scene, draw
from tests.acceptance.tasks.conftest import Pixels, Studio

SOURCE = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.27))
WANTED = "a red circle on a blue background"
SEEDS = 8


def _at(studio: Studio, strength: float, **fields: object) -> list[Pixels]:
    return studio.all(
        task="img2img", prompt=WANTED, image=SOURCE, strength=strength, seed=20, num_images=SEEDS, **fields
    )


def test_low_strength_keeps_and_high_strength_changes(studio: Studio) -> None:
    """At 0.2 most pictures still show the source, at 0.9 most show the prompt."""
    kept = [judge(each, Expected("square", "yellow", "green")).all_right for each in _at(studio, 0.2)]
    changed = [judge(each, Expected("circle", "red", "blue")).all_right for each in _at(studio, 0.9)]
    assert sum(kept) > SEEDS / 2, kept
    assert sum(changed) > SEEDS / 2, changed


def test_strength_0_returns_the_source(studio: Studio) -> None:
    """Nothing is drawn: the picture comes back as it was, bit for bit."""
    np.testing.assert_array_equal(_at(studio, 0.0)[0], SOURCE)


def test_strength_1_does_not_look_at_the_source(studio: Studio) -> None:
    """The picture is the one that the prompt alone gives with this seed, bit for bit."""
    alone = studio.draw(prompt=WANTED, seed=20, width=128, height=128)
    np.testing.assert_array_equal(_at(studio, 1.0)[0], alone)


def test_source_of_another_shape_is_fitted(studio: Studio) -> None:
    """Each resize mode gives the size asked for, and each another picture."""
    wide = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.27), 96, 192)
    found = [
        studio.draw(
            task="img2img", prompt="a yellow square on a green background", image=wide, strength=0.0, seed=1,
            width=128, height=128, resize_mode=mode,
        )
        for mode in ("stretch", "crop", "fill")
    ]  # fmt: skip
    assert {each.shape for each in found} == {(128, 128, 3)}
    assert len({each.tobytes() for each in found}) == 3


def test_source_may_be_another_jobs_picture(studio: Studio) -> None:
    """`job:<id>/<n>` and `upload:<id>` name the same picture as its bytes do."""
    first = studio.view(prompt=WANTED, seed=3)
    by_job = studio.view(task="img2img", prompt=WANTED, image=f"job:{first['id']}/0", strength=0.5, seed=4)
    assert by_job["request"]["image"] == f"upload:{first['images'][0]['sha256']}"
    again = studio.view(task="img2img", prompt=WANTED, image=by_job["request"]["image"], strength=0.5, seed=4)
    assert again["images"][0]["sha256"] == by_job["images"][0]["sha256"]


def test_hires_draws_the_same_thing_larger(studio: Studio) -> None:
    """Two passes: the second one is larger, follows the first one's picture, and counts its own steps."""
    plain = studio.draw(prompt=WANTED, seed=7, width=96, height=96)
    for upscaler in ("latent", "lanczos", "shapes-x2"):
        view = studio.view(
            prompt=WANTED, seed=7, width=96, height=96, steps=20,
            hires={"scale": 1.5, "strength": 0.5, "steps": 10, "upscaler": upscaler},
        )  # fmt: skip
        assert (view["images"][0]["width"], view["images"][0]["height"]) == (144, 144)
        assert view["progress"]["steps"] == 25
        assert judge(studio.picture(view), Expected("circle", "red", "blue")).all_right, upscaler
    assert plain.shape == (96, 96, 3)
