"""Three ways to bring a picture of one shape to another."""

import numpy as np
import pytest

from jobs.geometry import Box, Size
from pipelines.resizing import ResizeMode, extend, resample, resize


def _halves(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a picture whose left half is black and whose right half is white."""
    raster = np.zeros((height, width, 3), np.uint8)
    raster[:, width // 2 :] = 255
    return raster


@pytest.mark.parametrize("mode", ["stretch", "crop", "fill"])
@pytest.mark.parametrize("size", [Size(32, 32), Size(17, 40), Size(64, 24), Size(8, 8)])
def test_every_mode_reaches_the_size(mode: ResizeMode, size: Size) -> None:
    """Colour and grey alike, larger and smaller."""
    colour = resize(_halves(48, 24), size, mode)
    assert colour.shape == (size.height, size.width, 3)
    assert resize(colour[..., 0], size, mode).shape == (size.height, size.width)


def test_picture_of_the_size_stays_bit_for_bit() -> None:
    """Nothing is filtered without need."""
    raster = np.random.default_rng(0).integers(0, 256, (24, 48, 3), np.uint8)
    modes: tuple[ResizeMode, ...] = ("stretch", "crop", "fill")
    for mode in modes:
        assert np.array_equal(resize(raster, Size(48, 24), mode), raster)


def test_modes_differ_in_what_they_lose() -> None:
    """Stretching keeps both halves whole, cropping cuts the sides, filling repeats the rows above and below."""
    raster = _halves(48, 24)
    raster[:, :6], raster[0], raster[-1] = 100, 50, 60
    size = Size(24, 24)
    assert abs(int(resize(raster, size, "stretch")[12, 0, 0]) - 100) < 20
    cropped = resize(raster, size, "crop")
    assert (cropped == raster[:, 12:36]).all()
    filled = resize(raster, size, "fill")
    assert (filled[:6] == filled[6]).all()
    assert (filled[-6:] == filled[-7]).all()
    assert (resize(raster, size, "fill", black=True)[:6] == 0).all()


def test_extending_repeats_the_edges() -> None:
    """By as much as each side asks for, and what was there stays."""
    raster = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    grown = extend(raster, Box(1, 2, 3, 4))
    assert grown.shape == (10, 9, 3)
    assert (grown[2:6, 1:6] == raster).all()
    assert (grown[0, 1:6] == raster[0]).all()
    assert (grown[2:6, 8] == raster[:, 4]).all()


def test_resamplers_differ() -> None:
    """A name means its filter: nearest makes no new colour."""
    raster = _halves(8, 8)
    assert set(np.unique(resample(raster, Size(32, 32), "nearest"))) == {0, 255}
    assert len(np.unique(resample(raster, Size(32, 32), "lanczos"))) > 2
