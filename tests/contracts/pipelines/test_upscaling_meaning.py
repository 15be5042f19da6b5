"""What enlarged pictures show, judged by pixels, with the trained reference models."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.geometry import Size
from models_registry.entries import Kind, Layout, ModelEntry
from pipelines.engine.engine import Counters
from pipelines.loading import load
from pipelines.pictures import Pixels
from pipelines.resizing import resample
from pipelines.shelf import Shelf
from pipelines.upscaling.drawer import UpscaleDrawer
from pipelines.upscaling.upscaler import load_upscaler
from reference_models.pictures import draw, random_scene
from tests.contracts.pipelines.upscalers import upscale_inputs, upscale_parameters, upscaler_entry

_MODELS = Path(__file__).parents[3] / "reference_models"


def _trained(path: Path) -> Path:
    """Return a file of a trained model; without it skip on a laptop and fail in CI."""
    if not path.is_file():
        reason = f"reference_models/{path.relative_to(_MODELS)} is not here: make reference-models"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def _scene(seed: int, side: int) -> Pixels:
    return np.asarray(draw(random_scene(np.random.default_rng(seed)), side, side), np.uint8)


def _shrunk(large: Pixels, times: int) -> Pixels:
    """Return the means of squares of pixels."""
    height, width, _ = large.shape
    size = (width // times, height // times)
    return np.asarray(Image.fromarray(large).resize(size, Image.Resampling.BOX))


def _decibels(found: Pixels, wanted: Pixels) -> float:
    """Return the peak signal-to-noise ratio."""
    error = np.square(found.astype(float) - wanted).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("times", [2, 4])
def test_trained_upscaler_comes_nearer_to_the_large_picture_than_bicubic(times: int) -> None:
    """Twice and four times: the right size, the same content, and sharper edges than interpolation has."""
    entry = upscaler_entry(_trained(_MODELS / "upscalers" / "shapes-x4.safetensors"), 4)
    shelf = Shelf({Kind.UPSCALER: load_upscaler}, torch.device("cpu"), torch.float32, Counters())
    drawer = UpscaleDrawer(shelf.take, Counters())
    ours, plain = [], []
    for seed in range(8):
        large = _scene(1000 + seed, 64 * times)
        small = _shrunk(large, times)
        state = drawer.prepare(upscale_parameters(small, entry, times), 0, upscale_inputs(small, entry))
        while state.phase == "denoise":
            assert not drawer.step([state]).errors
        [made] = drawer.finish([state])
        state.close()
        assert made.array.shape == large.shape
        ours.append(_decibels(made.array, large))
        plain.append(_decibels(resample(small, Size(64 * times, 64 * times), "bicubic"), large))
    assert np.mean(ours) > np.mean(plain)
    assert min(ours) > 20


def test_redrawn_picture_keeps_its_content_and_shows_no_seams() -> None:
    """Tile by tile at low strength the trained checkpoint keeps every colour where it was, and no tile's border shows."""
    folder = _trained(_MODELS / "shapes-sd15" / "model_index.json").parent
    family = load(
        ModelEntry(
            name="shapes-sd15",
            kind=Kind.CHECKPOINT,
            layout=Layout.DIFFUSERS,
            family="sd15",
            path=folder,
            fingerprint="0" * 64,
            components=(),
            native_size=128,
            latent_factor=8,
            latent_channels=4,
        ),
        "cpu",
    )
    source = _scene(1003, 96)
    refine = {
        "prompt": "a shape on a background",
        "steps": 10,
        "strength": 0.3,
        "guidance_scale": 3.0,
        "scheduler": "Euler",
        "tile": 128,
    }
    parameters = upscale_parameters(source, "lanczos", 2, model="shapes-sd15", refine=refine)
    drawer = UpscaleDrawer(family.shelf.take, Counters(), family)
    state = drawer.prepare(parameters, 0, upscale_inputs(source, family.entry))
    while state.phase == "denoise":
        assert not drawer.step([state]).errors
    [made] = drawer.finish([state])
    state.close()
    family.close()
    base = resample(source, Size(192, 192)).astype(float)
    redrawn = made.array.astype(float)
    assert np.abs(redrawn - base).mean() < 20
    assert not np.array_equal(redrawn, base)
    # Two tiles each way share 64 pixels; they pass into each other from the 72nd to the 120th.
    for axis in (0, 1):
        steps = np.abs(np.diff(redrawn - base, axis=axis)).mean(axis=(1 - axis, 2))
        assert steps[[71, 119]].max() <= np.quantile(steps, 0.9)
