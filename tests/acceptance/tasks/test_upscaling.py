"""Upscaling over HTTP, judged by pixels."""

import numpy as np
import pytest
from PIL import Image

from reference_models.judge import Expected, judge
from reference_models.pictures import Scene, draw
from tests.acceptance.tasks.conftest import Pixels, Studio

SCENE = Scene("star", "yellow", "purple", 0.5, 0.5, 0.3)


def _psnr(one: Pixels, other: Pixels) -> float:
    error = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return float(10 * np.log10(255**2 / error))


def _small(side: int, scale: int) -> Pixels:
    large = Image.fromarray(draw(SCENE, side * scale, side * scale))
    return np.asarray(large.resize((side, side), Image.Resampling.BOX))


@pytest.mark.parametrize(("upscaler", "scale"), [("shapes-x2", 2), ("shapes-x4", 4), ("shapes-x2", 4)])
def test_upscaling_gives_the_right_size_and_content(studio: Studio, upscaler: str, scale: int) -> None:
    """The picture shows the same, sharper than bicubic interpolation makes it."""
    small, wanted = _small(64, scale), draw(SCENE, 64 * scale, 64 * scale)
    drawn = studio.draw(task="upscale", image=small, upscaler=upscaler, scale=scale)
    assert drawn.shape == wanted.shape
    assert judge(drawn, Expected("star", "yellow", "purple")).all_right
    bicubic = np.asarray(Image.fromarray(small).resize((64 * scale, 64 * scale), Image.Resampling.BICUBIC))
    assert _psnr(drawn, wanted) > _psnr(bicubic, wanted) + 1


def test_scale_may_be_any_number(studio: Studio) -> None:
    """Between the model's own scales the picture is fitted exactly; without a scale the model's own is taken."""
    small = _small(50, 4)[:37]
    assert studio.draw(task="upscale", image=small, upscaler="shapes-x2", scale=2.5).shape == (92, 125, 3)
    assert studio.draw(task="upscale", image=small, upscaler="shapes-x4").shape == (148, 200, 3)
    assert studio.draw(task="upscale", image=small, upscaler="lanczos", scale=3).shape == (111, 150, 3)


def test_tiles_are_invisible(studio: Studio) -> None:
    """A picture of several tiles comes out as its parts do alone, also where two tiles meet."""
    rng = np.random.default_rng(1)
    cells = rng.integers(0, 255, (45, 75, 3)).astype(np.uint8)
    large = np.asarray(Image.fromarray(cells).resize((1200, 720), Image.Resampling.BICUBIC))
    view = studio.view(task="upscale", image=large, upscaler="shapes-x2")
    assert view["progress"]["steps"] > 4
    whole = studio.picture(view)
    for left, top in ((440, 100), (800, 400), (300, 440)):
        part = studio.draw(task="upscale", image=large[top : top + 120, left : left + 120], upscaler="shapes-x2")
        # The part's own border sees nothing of its neighbourhood.
        inner = whole[2 * top + 60 : 2 * top + 180, 2 * left + 60 : 2 * left + 180]
        assert np.abs(part[60:180, 60:180].astype(int) - inner.astype(int)).max() <= 2


def test_refining_redraws_in_tiles(studio: Studio) -> None:
    """Diffusion upscaling: the result is as large, shows the same, and was drawn by the checkpoint tile by tile."""
    small = draw(SCENE)
    view = studio.view(
        task="upscale", image=small, upscaler="shapes-x2", scale=2, seed=3,
        refine={"prompt": "a yellow star on a purple background", "strength": 0.2, "steps": 20},
    )  # fmt: skip
    drawn, plain = studio.picture(view), studio.draw(task="upscale", image=small, upscaler="shapes-x2", scale=2)
    assert drawn.shape == (256, 256, 3)
    assert judge(drawn, Expected("star", "yellow", "purple")).all_right
    assert not np.array_equal(drawn, plain)
    assert view["model"] == "shapes-sd15"
