"""Judge a picture by its pixels: which background, which colour, which shape, and where.

Knows nothing of models. A picture is a PIL image or an array `[height, width, 3]`, bytes or floats from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reference_models.pictures import COLOURS, PALETTE, SHAPES, coverage

Picture = Image.Image | NDArray[np.uint8] | NDArray[np.floating]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]

BORDER_SHARE: Final = 0.85
"""Share of the border that must have one colour to count as a background."""

SHAPE_OVERLAP: Final = 0.6
"""Intersection over union with the fitted template, from which on a shape counts as drawn."""

TOLERANCE: Final = 85.0
"""Distance in RGB from which on a colour is none of the palette."""

_BORDER_WIDTH: Final = 0.03
_LEAST_FRONT: Final = 0.004
_HALF: Final = 0.5
_RGB: Final = np.array(list(PALETTE.values()), np.float32)


@dataclass(frozen=True, slots=True)
class Expected:
    """Say what a picture should show; `None` where anything goes."""

    shape: str | None = None
    colour: str | None = None
    background: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Say what a picture shows; `None` where nothing is clear. Lengths are fractions of the shorter side."""

    shape: str | None
    colour: str | None
    background: str | None
    overlap: float
    """Intersection over union with the best template."""
    x: float | None
    y: float | None
    radius: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Say which of the expected things were seen."""

    seen: Seen
    shape: bool
    colour: bool
    background: bool

    @property
    def all_right(self) -> bool:
        """Tell whether everything expected was seen."""
        return self.shape and self.colour and self.background


@dataclass(frozen=True, slots=True)
class _Template:
    """Hold a shape's measures at radius 1: area, centroid, and its box (left, top, right, bottom)."""

    area: float
    x: float
    y: float
    box: tuple[float, float, float, float]


def pixels_of(picture: Picture) -> NDArray[np.uint8]:
    """Return the picture as bytes `[height, width, 3]`."""
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    if picture.dtype == np.uint8:
        return picture.astype(np.uint8, copy=False)
    pixels: NDArray[np.uint8] = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return pixels


def palette_index(pixels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return for each pixel the index of the nearest palette colour: `[height, width]`."""
    # |p - c|^2 without its constant |p|^2: one matrix product instead of eight pictures of differences.
    scores = pixels.astype(np.float32) @ (2 * _RGB.T) - (_RGB**2).sum(axis=1)
    nearest: NDArray[np.intp] = scores.argmax(axis=-1)
    return nearest


def nearest_colour(rgb: tuple[float, float, float] | NDArray[np.generic], within: float = TOLERANCE) -> str | None:
    """Return the name of the nearest palette colour, `None` where even that is too far away."""
    distance = np.linalg.norm(_RGB - np.asarray(rgb, np.float32), axis=1)
    best = int(distance.argmin())
    return COLOURS[best] if distance[best] <= within else None


def _border(height: int, width: int) -> Mask:
    edge = max(1, round(min(height, width) * _BORDER_WIDTH))
    mask = np.ones((height, width), np.bool_)
    mask[edge:-edge, edge:-edge] = False
    return mask


def _median(pixels: NDArray[np.uint8], where: Mask) -> Colour:
    red, green, blue = np.median(pixels[where], axis=0)
    return int(red), int(green), int(blue)


def border_colour(picture: Picture) -> Colour:
    """Return the median RGB of the picture's border (3 % of the shorter side)."""
    pixels = pixels_of(picture)
    return _median(pixels, _border(*pixels.shape[:2]))


def centre_colour(picture: Picture, size: float = 0.1) -> Colour:
    """Return the median RGB of a square in the middle, `size` of the shorter side wide."""
    pixels = pixels_of(picture)
    height, width = pixels.shape[:2]
    half = max(1, round(min(height, width) * size / 2))
    mask = np.zeros((height, width), np.bool_)
    mask[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half] = True
    return _median(pixels, mask)


def colour_share(picture: Picture, colour: str) -> float:
    """Return the share of pixels whose nearest palette colour is this one."""
    return float((palette_index(pixels_of(picture)) == COLOURS.index(colour)).mean())


@lru_cache
def _template(shape: str) -> _Template:
    side, radius = 512, 0.4
    mask = coverage(shape, 0.5, 0.5, radius, side, side) > _HALF
    area, x, y, box = _measures(mask)
    left, top, right, bottom = ((edge - 0.5) / radius for edge in box)
    return _Template(area / radius**2, (x - 0.5) / radius, (y - 0.5) / radius, (left, top, right, bottom))


def _measures(mask: Mask) -> tuple[float, float, float, tuple[float, float, float, float]]:
    """Return area, centroid and box (left, top, right, bottom) of a mask, in fractions of the shorter side."""
    unit = min(mask.shape)
    rows, columns = np.nonzero(mask)
    # A lone stray pixel must not stretch the box.
    left, right = np.quantile(columns, [0.002, 0.998])
    top, bottom = np.quantile(rows, [0.002, 0.998])
    x, y = (columns.mean() + 0.5) / unit, (rows.mean() + 0.5) / unit
    return mask.sum() / unit**2, x, y, (left / unit, top / unit, (right + 1) / unit, (bottom + 1) / unit)


def overlap(mask: Mask, other: Mask) -> float:
    """Return intersection over union of two masks."""
    union = int((mask | other).sum())
    return int((mask & other).sum()) / union if union else 0.0


def _fits(mask: Mask, shape: str) -> list[tuple[float, float, float]]:
    """Return two guesses of centre and radius: by area and centroid, and by the box."""
    area, x, y, box = _measures(mask)
    template = _template(shape)
    by_area = float(np.sqrt(area / template.area))
    wide, high = box[2] - box[0], box[3] - box[1]
    by_box = (wide / (template.box[2] - template.box[0]) + high / (template.box[3] - template.box[1])) / 2
    middle_x = (box[0] + box[2]) / 2 - by_box * (template.box[0] + template.box[2]) / 2
    middle_y = (box[1] + box[3]) / 2 - by_box * (template.box[1] + template.box[3]) / 2
    return [(x - by_area * template.x, y - by_area * template.y, by_area), (middle_x, middle_y, by_box)]


def best_shape(mask: Mask) -> tuple[str, float, tuple[float, float, float]]:
    """Return the shape that fits a mask best, its overlap, and its centre and radius."""
    guesses = [(shape, fit) for shape in SHAPES for fit in _fits(mask, shape)]
    overlaps = [overlap(mask, coverage(shape, *fit, *mask.shape) > _HALF) for shape, fit in guesses]
    best = int(np.argmax(overlaps))
    shape, fit = guesses[best]
    return shape, overlaps[best], fit


def front_mask(picture: Picture) -> tuple[Mask, int, int]:
    """Return where the shape is, and the palette indices of its colour and of the border."""
    pixels = pixels_of(picture)
    index = palette_index(pixels)
    back = int(np.bincount(index[_border(*index.shape)], minlength=len(COLOURS)).argmax())
    others = np.bincount(index[index != back], minlength=len(COLOURS))
    front = int(others.argmax()) if others.any() else back
    # Between the two colours, the blend on an edge may look like a third one: ask only which of the two is nearer.
    axis = 2 * (_RGB[front] - _RGB[back])
    middle = (_RGB[front] ** 2).sum() - (_RGB[back] ** 2).sum()
    return pixels.astype(np.float32) @ axis > middle, front, back


def look(picture: Picture) -> Seen:
    """Say what the picture shows."""
    pixels = pixels_of(picture)
    border = _border(*pixels.shape[:2])
    mask, _front, back = front_mask(pixels)
    uniform = float((palette_index(pixels)[border] == back).mean()) > BORDER_SHARE
    background = nearest_colour(np.array(_median(pixels, border))) if uniform else None
    if mask.mean() < _LEAST_FRONT:
        return Seen(None, None, background, 0.0, None, None, None)
    colour = nearest_colour(np.array(_median(pixels, mask)))
    shape, share, (x, y, radius) = best_shape(mask)
    return Seen(shape if share > SHAPE_OVERLAP else None, colour, background, share, float(x), float(y), float(radius))


def judge(picture: Picture, expected: Expected) -> Verdict:
    """Compare what the picture shows with what was expected."""
    seen = look(picture)
    return Verdict(
        seen,
        shape=expected.shape in (None, seen.shape),
        colour=expected.colour in (None, seen.colour),
        background=expected.background in (None, seen.background),
    )
