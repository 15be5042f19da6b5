"""Inpainting and outpainting over HTTP, judged by pixels."""

import numpy as np
import pytest

from reference_models.judge import Expected, judge, palette_index
from reference_models.pictures import COLOURS, Scene, coverage, draw
from tests.acceptance.tasks.conftest import Pixels, Studio

SOURCE = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.2))
MODELS = ["shapes-sd15", "shapes-sd15-inpaint"]
PROMPT = "a red circle on a green background"


def _disc(radius: float = 0.36) -> Pixels:
    return ((coverage("circle", 0.5, 0.5, radius) > 0.5) * 255).astype(np.uint8)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("blur", [0, 12])
@pytest.mark.parametrize("area", ["whole", "masked"])
def test_outside_the_mask_nothing_changes(studio: Studio, model: str, blur: int, area: str) -> None:
    """Not one bit, for hard and for soft edges; inside something does."""
    mask = _disc()
    drawn = studio.draw(
        task="inpaint", model=model, prompt=PROMPT, image=SOURCE, mask=mask, mask_blur=blur, inpaint_area=area, seed=5,
        **({"width": 128, "height": 128} if area == "masked" else {}),
    )  # fmt: skip
    assert drawn.shape == SOURCE.shape
    np.testing.assert_array_equal(drawn[mask == 0], SOURCE[mask == 0])
    assert np.abs(drawn[mask > 0].astype(int) - SOURCE[mask > 0].astype(int)).mean() > 5


def test_grey_mask_leaves_its_black_part_alone(studio: Studio) -> None:
    """A mask that was blurred by whoever made it counts where it is not black."""
    ramp = np.clip((np.arange(128) - 40) * 6, 0, 255).astype(np.uint8)
    mask = np.repeat(ramp[None, :], 128, axis=0)
    drawn = studio.draw(task="inpaint", prompt=PROMPT, image=SOURCE, mask=mask, seed=5)
    np.testing.assert_array_equal(drawn[:, :41], SOURCE[:, :41])
    assert not np.array_equal(drawn[:, 100:], SOURCE[:, 100:])


def test_inverted_mask_draws_the_rest(studio: Studio) -> None:
    """White is kept and black is drawn when the mask is inverted."""
    mask = _disc()
    drawn = studio.draw(task="inpaint", prompt="a white background", image=SOURCE, mask=mask, mask_invert=True, seed=2)
    np.testing.assert_array_equal(drawn[mask == 255], SOURCE[mask == 255])
    assert not np.array_equal(drawn[mask == 0], SOURCE[mask == 0])


def test_inpainting_draws_the_prompt_into_the_mask(studio: Studio) -> None:
    """The inpainting model replaces the shape, with the background of before."""
    right = [
        judge(each, Expected("circle", "red", "green")).all_right
        for each in studio.all(
            task="inpaint", model="shapes-sd15-inpaint", prompt=PROMPT, image=SOURCE, mask=_disc(), seed=1, num_images=8
        )
    ]
    assert sum(right) >= 6, right


def test_outpainting_continues_the_background(studio: Studio) -> None:
    """The picture grows, what was there stays bit for bit, and the new part has the background's colour."""
    source = draw(Scene("circle", "red", "blue", 0.5, 0.5, 0.25), 96, 96)
    shares = []
    for seed in range(4):
        drawn = studio.draw(
            task="inpaint", model="shapes-sd15-inpaint", prompt="a red circle on a blue background", image=source,
            outpaint={"left": 32, "top": 16, "bottom": 16}, seed=seed,
        )  # fmt: skip
        assert drawn.shape == (128, 128, 3)
        np.testing.assert_array_equal(drawn[16:112, 32:], source)
        new = np.ones((128, 128), np.bool_)
        new[16:112, 32:] = False
        shares.append(float((palette_index(drawn)[new] == COLOURS.index("blue")).mean()))
    assert np.mean(shares) > 0.9, shares


def test_picture_of_any_size_is_inpainted(studio: Studio) -> None:
    """Without a size the source keeps its own, multiple of anything or not."""
    source = draw(Scene("square", "yellow", "green", 0.5, 0.5, 0.2), 123, 131)
    mask = np.zeros((123, 131), np.uint8)
    mask[30:90, 40:100] = 255
    drawn = studio.draw(task="inpaint", prompt=PROMPT, image=source, mask=mask, seed=5)
    assert drawn.shape == source.shape
    np.testing.assert_array_equal(drawn[mask == 0], source[mask == 0])
