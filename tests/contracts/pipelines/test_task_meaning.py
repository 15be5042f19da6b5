"""What pictures show that were drawn from pictures, judged by pixels, on the trained reference models."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from jobs.contract import DiffusionJob, parse_parameters
from jobs.inputs import Inputs
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.families.base import Family
from pipelines.loading import load
from reference_models.judge import front_mask, look, overlap
from reference_models.pictures import PALETTE, Scene, draw

_FOLDER = Path(__file__).parents[3] / "reference_models"
_SOURCE, _MASK, _EDGES = ("upload:" + letter * 64 for letter in "abc")
Raster = npt.NDArray[np.uint8]


def _entry(name: str, kind: Kind = Kind.CHECKPOINT) -> ModelEntry:
    """Describe a trained model; without its weights skip on a laptop and fail in CI."""
    if not any((_FOLDER / name).glob("*.json")):
        reason = f"reference_models/{name} is not here: make reference-models"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return ModelEntry(
        name=name,
        kind=kind,
        layout=Layout.DIFFUSERS,
        family="sd15",
        path=_FOLDER / name,
        fingerprint=name.ljust(64, "0"),
        components=(),
        native_size=128,
        latent_factor=8,
        latent_channels=4,
    )


@pytest.fixture(scope="module")
def shapes() -> Iterator[Family]:
    """Return the trained model."""
    family = load(_entry("shapes-sd15"), "cpu")
    yield family
    family.close()


@pytest.fixture(scope="module", params=["shapes-sd15", "shapes-sd15-inpaint"])
def painter(request: pytest.FixtureRequest) -> Iterator[Family]:
    """Return the trained model and the one that was trained to inpaint."""
    family = load(_entry(request.param), "cpu")
    yield family
    family.close()


def _draw(family: Family, pictures: dict[str, Raster] | None = None, **fields: Any) -> Raster:
    wanted = parse_parameters(
        {
            "task": "txt2img",
            "model": family.entry.name,
            "prompt": "a red circle on a blue background",
            "width": 128,
            "height": 128,
            "steps": 10,
            "guidance_scale": 5.0,
            "scheduler": "Euler",
            "seed": 7,
            "preview_every": 0,
            **fields,
        }
    )
    assert isinstance(wanted, DiffusionJob)
    models = [_entry(control.model, Kind.CONTROLNET) for control in wanted.controls if control.model]
    files = {ref: _file(raster) for ref, raster in (pictures or {}).items()}
    state = family.prepare(wanted, 0, Inputs({entry.ref: entry for entry in models}, files))
    try:
        while state.phase == "denoise":
            assert not family.step([state]).errors
        return family.finish([state])[0].array
    finally:
        state.close()


def _file(raster: Raster) -> bytes:
    file = io.BytesIO()
    Image.fromarray(raster).save(file, "PNG")
    return file.getvalue()


def _box(left: int, top: int, right: int, bottom: int, side: int = 128) -> Raster:
    mask = np.zeros((side, side), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def _share(pixels: Raster, colour: str) -> float:
    """Return the share of pixels that are this colour rather than another."""
    return float((np.linalg.norm(pixels.reshape(-1, 3).astype(float) - PALETTE[colour], axis=1) < 85).mean())


def test_strength_decides_how_much_is_kept(shapes: Family) -> None:
    """For most of eight seeds a fifth of the way keeps the source's background and nine tenths bring the prompt's picture."""
    source = {_SOURCE: draw(Scene("square", "green", "yellow", 0.5, 0.5, 0.3))}
    kept, changed = 0, 0
    for seed in range(8):
        weak, strong = (
            look(_draw(shapes, source, task="img2img", image=_SOURCE, strength=strength, seed=seed))
            for strength in (0.2, 0.9)
        )
        kept += weak.background == "yellow"
        changed += (strong.colour, strong.background) == ("red", "blue")
    assert kept > 4
    assert changed > 4


def test_negative_prompt_counts_in_image_to_image(shapes: Family) -> None:
    """What is named there is kept away."""
    source = {_SOURCE: draw(Scene("circle", "white", "blue", 0.5, 0.5, 0.3))}
    fields = {"task": "img2img", "image": _SOURCE, "strength": 0.9, "prompt": "a circle on a blue background"}
    reds = [_share(_draw(shapes, source, seed=seed, negative_prompt="red", **fields), "red") for seed in range(4)]
    assert max(reds) < 0.03


@pytest.mark.parametrize("blur", [0, 8])
def test_mask_is_drawn_and_nothing_else(painter: Family, blur: int) -> None:
    """The shape in the mask takes the prompt's colour; outside not one bit changes."""
    source, mask = draw(Scene("circle", "red", "blue", 0.5, 0.5, 0.25)), _box(22, 22, 106, 106)
    drawn = _draw(
        painter,
        {_SOURCE: source, _MASK: mask},
        task="inpaint",
        image=_SOURCE,
        mask=_MASK,
        mask_blur=blur,
        prompt="a yellow square on a blue background",
    )
    assert (drawn[mask == 0] == source[mask == 0]).all()
    assert _share(drawn, "yellow") > 0.05
    assert _share(drawn, "red") < 0.02


def test_small_mask_is_drawn_at_full_size(painter: Family) -> None:
    """In a corner of a large picture a shape appears that the whole picture would be too large for."""
    source = np.empty((256, 256, 3), np.uint8)
    source[:] = PALETTE["blue"]
    source[100:, 100:] = PALETTE["white"]
    mask = _box(16, 16, 80, 80, 256)
    drawn = _draw(
        painter,
        {_SOURCE: source, _MASK: mask},
        task="inpaint",
        image=_SOURCE,
        mask=_MASK,
        inpaint_area="masked",
        inpaint_padding=8,
    )
    assert drawn.shape == (256, 256, 3)
    assert (drawn[mask == 0] == source[mask == 0]).all()
    assert _share(drawn[16:80, 16:80], "red") > 0.1


@pytest.mark.parametrize("background", ["blue", "green"])
def test_outpainting_continues_the_background(painter: Family, background: str) -> None:
    """At full strength too the new sides have the old picture's background, and the old picture stays."""
    source = draw(Scene("circle", "red", background, 0.5, 0.5, 0.25))
    drawn = _draw(
        painter,
        {_SOURCE: source},
        task="inpaint",
        image=_SOURCE,
        outpaint={"left": 32, "right": 32},
        prompt=f"a red circle on a {background} background",
    )
    assert (drawn[:, 32:160] == source).all()
    assert _share(drawn[:, :32], background) > 0.9
    assert _share(drawn[:, 160:], background) > 0.9


def test_second_pass_draws_the_same_picture_larger(shapes: Family) -> None:
    """Both ways of enlarging end at twice the size with the first pass's colours."""
    for upscaler in ("latent", "lanczos"):
        drawn = _draw(shapes, hires={"scale": 2.0, "strength": 0.5, "upscaler": upscaler})
        seen = look(drawn)
        assert drawn.shape == (256, 256, 3)
        assert (seen.colour, seen.background) == ("red", "blue")


def _scenes(count: int) -> list[Scene]:
    rng = np.random.default_rng(11)
    shapes = ("circle", "square", "triangle", "star", "ring", "cross")
    places = rng.uniform(0.38, 0.62, (count, 2)).tolist()
    return [Scene(shapes[number % 6], "white", "black", x, y, 0.28) for number, (x, y) in enumerate(places)]


def _overlap(shapes: Family, scene: Scene, seed: int, *controls: dict[str, Any]) -> float:
    edges = {_EDGES: np.repeat(np.asarray(cv2.Canny(draw(scene), 100, 200), np.uint8)[..., None], 3, axis=2)}
    asked = [{"model": "shapes-canny", "image": _EDGES, **control} for control in controls]
    drawn = _draw(shapes, edges, controls=asked, seed=seed, prompt=f"a red {scene.shape} on a blue background")
    target = draw(Scene(scene.shape, "red", "blue", scene.x, scene.y, scene.radius))
    return overlap(front_mask(drawn)[0], front_mask(target)[0])


def test_control_places_the_shape(shapes: Family) -> None:
    """The drawn shape covers the one whose edges were given; without its control it lies elsewhere."""
    scenes = _scenes(6)
    controlled = [_overlap(shapes, scene, seed, {}) for seed, scene in enumerate(scenes)]
    assert np.mean(controlled) >= 0.7
    assert np.mean([_overlap(shapes, scene, seed) for seed, scene in enumerate(scenes)]) < np.mean(controlled) - 0.2


@pytest.mark.slow
def test_control_places_32_shapes(shapes: Family) -> None:
    """On 32 edge maps the drawn shape covers the one whose edges were given."""
    assert np.mean([_overlap(shapes, scene, seed, {}) for seed, scene in enumerate(_scenes(32))]) >= 0.7


def test_two_controls_act_together(shapes: Family) -> None:
    """Two at half scale place the shape as one at full scale does."""
    half = {"scale": 0.5}
    scenes = _scenes(3)
    both = [_overlap(shapes, scene, seed, half, half) for seed, scene in enumerate(scenes)]
    assert np.mean(both) >= 0.7
