"""Masks: soft inside, untouched outside, whole latent cells, sensible surroundings."""

import numpy as np
import pytest

from jobs.geometry import Box, Size
from pipelines.masks import composite, fill, soften, whole_cells, window


def _square(
    side: int = 40, left: int = 10, right: int = 30, value: int = 255
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    mask = np.zeros((side, side), np.uint8)
    mask[left:right, left:right] = value
    return mask


def test_edge_is_soft_inside_the_mask() -> None:
    """What was black stays exactly 0; from the edge inwards the share rises to 1."""
    mask = _square()
    alpha = soften(mask, 4)
    assert (alpha[mask == 0] == 0).all()
    assert (alpha[mask > 0] > 0).all()
    assert np.allclose(alpha[20, 10:16], [0.2, 0.4, 0.6, 0.8, 1, 1])
    assert np.array_equal(soften(mask, 0), mask / 255)


def test_grey_masks_take_their_share() -> None:
    """A mask at half brightness mixes half and half; the noise of JPEG beside white is black."""
    assert np.allclose(soften(_square(value=128), 0).max(), 128 / 255)
    assert not soften(_square(value=3), 0).any()


def test_picture_without_an_outside_has_no_edge() -> None:
    """A mask that covers everything is not softened at the picture's sides."""
    assert (soften(np.full((8, 8), 255, np.uint8), 4) == 1).all()


def test_cells_cover_every_masked_pixel() -> None:
    """One masked pixel masks its whole latent cell, and no other."""
    mask = np.zeros((16, 24), bool)
    mask[3, 9] = True
    cells = whole_cells(mask, 8)
    assert (cells[:8, 8:16] == 255).all()
    assert int((cells > 0).sum()) == 64


@pytest.mark.parametrize("blur", [0, 6])
def test_composite_leaves_the_outside_bit_for_bit(blur: int) -> None:
    """Where the share is 0 the source stays; where it is 1 the drawing stands."""
    rng = np.random.default_rng(0)
    source, drawn = (rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(2))
    mask = _square()
    laid = composite(source, drawn, soften(mask, blur))
    assert (laid[mask == 0] == source[mask == 0]).all()
    assert (laid[20, 20] == drawn[20, 20]).all()
    assert not np.array_equal(laid, source)
    if blur:
        assert not (laid[mask > 0] == drawn[mask > 0]).all()
    else:
        assert (laid[mask > 0] == drawn[mask > 0]).all()


@pytest.mark.parametrize(
    ("place", "size", "box"),
    [
        (np.s_[40:50, 45:55], Size(64, 64), Box(41, 36, 59, 54)),
        (np.s_[40:50, 40:50], Size(64, 32), Box(27, 36, 63, 54)),
        (np.s_[0:10, 0:10], Size(64, 64), Box(0, 0, 14, 14)),
        (np.s_[90:100, 0:100], Size(64, 64), Box(0, 0, 100, 100)),
        (np.s_[40:50, 95:100], Size(64, 64), Box(82, 36, 100, 54)),
    ],
)
def test_window_takes_the_shape_of_the_size(place: tuple[slice, slice], size: Size, box: Box) -> None:
    """The mask's box and its padding, grown to the shape that is drawn, inside the picture."""
    alpha = np.zeros((100, 100), np.float32)
    alpha[place] = 1
    assert window(alpha, 4, size) == box


def test_holes_are_filled_with_their_surroundings() -> None:
    """Between red and blue a hole is neither white nor black but between them; what is known stays."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:] = (200, 0, 0), (0, 0, 200)
    holes = np.zeros((32, 32), bool)
    holes[8:24, 8:24] = True
    pixels[holes] = 255
    filled = fill(pixels, holes)
    assert (filled[~holes] == pixels[~holes]).all()
    assert filled[16, 9, 0] > 120
    assert filled[16, 22, 2] > 120
    assert filled[holes][:, 1].max() == 0


def test_nothing_known_is_filled_with_grey() -> None:
    """Without any surroundings there is one colour left that leans to none."""
    assert (fill(np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), bool)) == 128).all()
