"""Preprocessors that need no network."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np

from pipelines.pictures import Pixels

#: The two blurs whose difference shows lines (the usual figures of XDoG for ControlNet).
_FINE, _COARSE = 0.5, 5.0
#: Grid of the displacements that shuffle a picture, pixels.
_SHUFFLE_GRID = 256

Weightless = Callable[[Pixels, Mapping[str, float]], Pixels]


def canny(pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    """Return Canny's edges, white on black."""
    return _in_colour(cv2.Canny(np.ascontiguousarray(pixels), options["low_threshold"], options["high_threshold"]))


def invert(pixels: Pixels, _options: Mapping[str, float]) -> Pixels:
    """Return the negative: white lines of black ones."""
    return 255 - pixels


def threshold(pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    """Return white where the picture is brighter than the threshold."""
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    return _in_colour(np.where(grey > options["threshold"], 255, 0))


def blur(pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    """Return the picture out of focus."""
    return np.asarray(cv2.GaussianBlur(np.ascontiguousarray(pixels), (0, 0), options["sigma"]))


def scribble_xdog(pixels: Pixels, options: Mapping[str, float]) -> Pixels:
    """Return rough lines, white on black, where a fine and a coarse blur differ."""
    values = np.ascontiguousarray(pixels, np.float32)
    fine, coarse = (cv2.GaussianBlur(values, (0, 0), sigma) for sigma in (_FINE, _COARSE))
    darker = (coarse - fine).max(axis=2)
    return _in_colour(np.where(darker > options["threshold"], 255, 0))


def shuffle(pixels: Pixels, _options: Mapping[str, float]) -> Pixels:
    """Return the picture's colours and shapes somewhere else; the same picture is always shuffled alike."""
    height, width, _ = pixels.shape
    generator = np.random.default_rng(0)
    moves = [_waves(generator, height, width) * (side - 1) for side in (width, height)]
    return np.asarray(
        cv2.remap(np.ascontiguousarray(pixels), moves[0], moves[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    )


WEIGHTLESS: Mapping[str, Weightless] = MappingProxyType(
    {each.__name__: each for each in (canny, invert, threshold, blur, scribble_xdog, shuffle)}
)


def _waves(
    generator: np.random.Generator, height: int, width: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return smooth noise that fills 0..1, height x width."""
    rows, columns = height // _SHUFFLE_GRID + 3, width // _SHUFFLE_GRID + 3
    grid = generator.random((rows, columns)).astype(np.float32)
    noise = np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.asarray((noise - noise.min()) / max(float(np.ptp(noise)), 1e-6), np.float32)


def _in_colour(grey: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
