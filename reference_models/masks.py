"""Draw masks for inpainting: true where a picture is to be drawn anew."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from reference_models.judge import Mask
from reference_models.pictures import REACH, SIDE, Scene

_MARGINS: Final = (0.03, 0.15)
_BORDERS: Final = (0.06, 0.35)
_SHARES: Final[dict[str, float]] = {"around": 0.45, "box": 0.15, "half": 0.1, "border": 0.22, "whole": 0.08}
_DISC: Final = 0.4
_EACH_EDGE: Final = 0.5


def box_around(scene: Scene, margin: float, side: int = SIDE) -> Mask:
    """Return a square over the shape, with a margin (a fraction of the side) beyond its farthest tip."""
    return box(scene.x, scene.y, REACH * scene.radius + margin, side)


def box(x: float, y: float, reach: float, side: int = SIDE) -> Mask:
    """Return a square around a point, cut off at the picture's edges."""
    mask = np.zeros((side, side), np.bool_)
    top, left = (max(0, round((at - reach) * side)) for at in (y, x))
    mask[top : round((y + reach) * side), left : round((x + reach) * side)] = True
    return mask


def disc_around(scene: Scene, margin: float, side: int = SIDE) -> Mask:
    """Return a disc over the shape, with a margin beyond its farthest tip."""
    rows, columns = np.ogrid[0:side, 0:side]
    away = np.hypot((columns + 0.5) / side - scene.x, (rows + 0.5) / side - scene.y)
    disc: Mask = away < REACH * scene.radius + margin
    return disc


def border(widths: Iterable[float], side: int = SIDE) -> Mask:
    """Return strips along the left, top, right and bottom edge; widths are fractions of the side."""
    left, top, right, bottom = widths
    mask = np.ones((side, side), np.bool_)
    mask[round(top * side) : round((1 - bottom) * side), round(left * side) : round((1 - right) * side)] = False
    return mask


def random_mask(scene: Scene, rng: np.random.Generator) -> Mask:
    """Return a mask of any kind: most often over the shape, else along the edges, a half, a box or everything."""
    kind = rng.choice(list(_SHARES), p=list(_SHARES.values()))
    if kind == "around":
        around = disc_around if rng.random() < _DISC else box_around
        return around(scene, float(rng.uniform(*_MARGINS)))
    if kind == "box":
        x, y, reach = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.35)
        return box(float(x), float(y), float(reach))
    if kind == "half":
        return border(rng.permutation([rng.uniform(0.3, 0.7), 0, 0, 0]).tolist())
    if kind == "border":
        return border((rng.uniform(*_BORDERS, size=4) * (rng.random(4) < _EACH_EDGE)).tolist())
    return np.ones((SIDE, SIDE), np.bool_)
