"""Check sizes and counts that the API, the agent and the engine must agree on."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.contract import (
    Img2ImgParameters,
    InpaintParameters,
    PreprocessParameters,
    RefineParameters,
    Txt2ImgParameters,
    UpscaleParameters,
)
from jobs.geometry import (
    Size,
    denoising_steps,
    drawn_pixels,
    estimated_cost,
    hires_size,
    outpainted_size,
    picture_count,
    spans,
    steps_per_picture,
    tiles,
    total_steps,
    upscale_passes,
    upscale_steps,
    upscaled_size,
)
from jobs.parts import Hires, Outpaint

DIFFUSION: dict[str, Any] = {
    "model": "m", "prompt": "p", "width": 128, "height": 96, "steps": 20, "guidance_scale": 5.0, "scheduler": "Euler",
    "seed": 1, "preview_every": 0,
}  # fmt: skip
REF = f"upload:{'a' * 64}"


def upscale(**changes: Any) -> UpscaleParameters:
    """Make an enlargement of 600 x 100 pixels by 4 with an upscaler that enlarges by 2."""
    values: dict[str, Any] = {
        "model": "u", "upscaler": "u", "image": REF, "width": 2400, "height": 400, "scale": 4.0, "source_width": 600,
        "source_height": 100, "upscaler_scale": 2, "seed": 0, "preview_every": 0,
    }  # fmt: skip
    return UpscaleParameters(**(values | changes))


@pytest.mark.parametrize(
    ("steps", "strength", "drawn"),
    [(20, 0.0, 0), (20, 0.01, 1), (20, 0.5, 10), (20, 0.99, 19), (20, 1.0, 20), (1, 0.3, 1)],
)
def test_denoising_steps_go_from_none_to_all(steps: int, strength: float, drawn: int) -> None:
    """Nothing is drawn at 0, at least one step above it, all at 1."""
    assert denoising_steps(steps, strength) == drawn


def test_steps_count_what_each_task_draws() -> None:
    """Both passes of hires, the share that a strength leaves, a tile as a step, and one step for everything else."""
    hires = Hires(scale=2.0, steps=10, strength=0.5)
    assert steps_per_picture(Txt2ImgParameters(**DIFFUSION)) == 20
    assert steps_per_picture(Txt2ImgParameters(**DIFFUSION, hires=hires)) == 25
    assert steps_per_picture(Txt2ImgParameters(**DIFFUSION, hires=Hires(strength=0.5))) == 30
    assert steps_per_picture(Img2ImgParameters(**DIFFUSION, image=REF, strength=0.75)) == 15
    assert steps_per_picture(Img2ImgParameters(**DIFFUSION, image=REF, strength=0.0)) == 1
    preprocess = PreprocessParameters(
        model="canny", preprocessor="canny", image=REF, width=8, height=8, seed=0, preview_every=0
    )
    assert steps_per_picture(preprocess) == 1
    four = Img2ImgParameters(**DIFFUSION, image=REF, strength=0.5, num_images=4)
    assert (picture_count(four), total_steps(four)) == (4, 40)


def test_upscale_steps_count_every_tile_of_every_pass() -> None:
    """600 x 100 takes two tiles, 1200 x 200 three; each redrawn tile adds its denoising steps."""
    assert upscale_passes(upscale()) == [Size(600, 100), Size(1200, 200)]
    assert upscale_steps(upscale()) == 5
    assert upscale_steps(upscale(upscaler="lanczos", upscaler_scale=1)) == 1
    refine = RefineParameters(steps=10, guidance_scale=5.0, scheduler="Euler", strength=0.3, tile=512)
    redrawn = len(tiles(2400, 400, 512, 128))
    assert upscale_steps(upscale(refine=refine)) == 5 + redrawn * 3


def test_sizes_of_larger_pictures() -> None:
    """A second pass stays on the family's step, an enlargement is exact, outpainting adds its sides."""
    assert hires_size(128, 96, 1.55, 8) == (200, 152)
    assert upscaled_size(33, 21, 1.5) == (50, 32)
    assert outpainted_size(10, 20, Outpaint(left=1, top=2, right=3, bottom=4)) == (14, 26)
    assert outpainted_size(10, 20, None) == (10, 20)


def test_pixels_and_cost_follow_the_largest_picture() -> None:
    """Memory and fair shares go by what is really drawn."""
    plain = Txt2ImgParameters(**DIFFUSION)
    doubled = Txt2ImgParameters(**DIFFUSION, hires=Hires(scale=2.0, strength=1.0))
    grown = InpaintParameters(**DIFFUSION, image=REF, outpaint=Outpaint(left=128))
    assert drawn_pixels(plain) == 128 * 96
    assert drawn_pixels(doubled) == 256 * 192
    assert drawn_pixels(grown) == 256 * 96
    assert estimated_cost(doubled) > 4 * estimated_cost(plain)


@given(length=st.integers(1, 5000), tile=st.integers(64, 600), overlap=st.integers(0, 31))
def test_spans_cover_a_length_and_overlap(length: int, tile: int, overlap: int) -> None:
    """Every pixel lies in a span, each has the tile's length, and neighbours share at least the overlap."""
    found = spans(length, tile, overlap)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start == min(tile, length) for start, end in found)
    assert all(after[0] <= before[1] - overlap for before, after in itertools.pairwise(found))
    assert all(after[0] > before[0] for before, after in itertools.pairwise(found))
