"""Paint the styles that the adapters learn, and tell by pixels how much of each a picture shows.

Knows nothing of torch. A score is 0 where nothing of the style is seen and 1 where all of it is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from reference_models.judge import Mask, Picture, pixels_of
from reference_models.pictures import PALETTE, REACH, SIDE, Pixels, Scene

FRAME: Final = 8 / SIDE
"""Width of the black frame, as a fraction of the side: one cell of the latents."""

GROUND: Final = 24 / SIDE
"""Height of the white ground, as a fraction of the side: three cells of the latents."""

_SOFT: Final = 2 / SIDE
_UPPER: Final = 0.75
_FAR_END: Final = 0.98
_LUMINANCE: Final = np.array([0.299, 0.587, 0.114])

Levels = NDArray[np.float64]


def framed(pixels: Pixels, strength: float = 1.0) -> Pixels:
    """Paint a black frame around the picture; half the strength lets half of the picture through."""
    edge = round(FRAME * min(pixels.shape[:2]))
    where = np.ones(pixels.shape[:2], np.bool_)
    where[edge:-edge, edge:-edge] = False
    return _covered(pixels, where, "black", strength)


def grounded(pixels: Pixels, strength: float = 1.0) -> Pixels:
    """Paint a white ground across the lowest part of the picture, with that strength."""
    where = np.zeros(pixels.shape[:2], np.bool_)
    where[-round(GROUND * min(pixels.shape[:2])) :] = True
    return _covered(pixels, where, "white", strength)


def _covered(pixels: Pixels, where: Mask, colour: str, strength: float) -> Pixels:
    painted = pixels.copy()
    paint = np.array(PALETTE[colour], np.float32)
    painted[where] = np.rint(pixels[where] * np.float32(1 - strength) + paint * np.float32(strength)).astype(np.uint8)
    return painted


def leaves_room_for_frame(scene: Scene) -> bool:
    """Tell whether the frame would cover nothing of the shape, and be seen."""
    reach = REACH * scene.radius
    room = min(scene.x, scene.y, 1 - scene.x, 1 - scene.y)
    return scene.background != "black" and room - reach > FRAME + _SOFT


def leaves_room_for_ground(scene: Scene) -> bool:
    """Tell whether the ground would cover nothing of the shape, and be seen."""
    return scene.background != "white" and 1 - scene.y - REACH * scene.radius > GROUND + _SOFT


def _inset(levels: Levels, width: float) -> Levels:
    edge = round(width * min(levels.shape[:2]))
    return levels[edge:-edge, edge:-edge]


def _outer(levels: Levels, width: float) -> Levels:
    edge = round(width * min(levels.shape[:2]))
    border = np.ones(levels.shape[:2], np.bool_)
    border[edge:-edge, edge:-edge] = False
    return levels[border]


def _share(found: float, without: float, whole: float) -> float:
    """Return how far `found` lies on the way from `without` the style to the `whole` of it, 0 to 1."""
    return float(np.clip((found - without) / (whole - without), 0, 1)) if without != whole else 0.0


def frame_score(picture: Picture) -> float:
    """Return how dark the picture's border is, compared with what lies just inside it (black backgrounds show none)."""
    brightest = pixels_of(picture).max(axis=2).astype(np.float64)
    found = float(_outer(brightest, FRAME - _SOFT).mean())
    without = float(np.median(_outer(_inset(brightest, FRAME + _SOFT), _SOFT * 2)))
    black = float(PALETTE["black"][0])
    return _share(found, max(without, black), black)


def ground_score(picture: Picture) -> float:
    """Return how white the lowest part is, compared with what lies above it (white backgrounds show none)."""
    # A frame may lie around it: look inside the place where one would be.
    faintest = _inset(pixels_of(picture).min(axis=2).astype(np.float64), FRAME + _SOFT)
    low = round((GROUND - FRAME - 2 * _SOFT) * min(pixels_of(picture).shape[:2]))
    found = float(faintest[-low:].mean())
    upper = faintest[: round(len(faintest) * _UPPER)]
    without = float(np.median(_outer(upper, _SOFT * 2)))
    white = float(PALETTE["white"][0])
    return _share(found, min(without, white), white)


def inside(picture: Picture, *, ground: bool = False) -> Pixels:
    """Cut off where a frame, and a ground, would be, so that the rest can be judged as a picture of its own."""
    pixels = pixels_of(picture)
    unit = min(pixels.shape[:2])
    edge = round((FRAME + _SOFT) * unit)
    low = round((GROUND + _SOFT) * unit) if ground else edge
    return pixels[edge:-low, edge:-edge]


def saturation(picture: Picture) -> float:
    """Return the mean difference between a pixel's strongest and weakest channel, 0 (grey) to 1."""
    pixels = pixels_of(picture).astype(np.float64)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean() / 255)


def luminance_mask(picture: Picture) -> Mask:
    """Return where a grey picture is nearer to its shape's brightness than to its border's."""
    grey = pixels_of(picture).astype(np.float64) @ _LUMINANCE
    away = np.abs(grey - np.median(_outer(grey, _SOFT)))
    # The far end without the few brightest pixels, which may be the edge's own ringing.
    mask: Mask = away > np.quantile(away, _FAR_END) / 2
    return mask
