"""What a mask means: which pixels may change and how much of the new picture each takes; what stands there before the first step."""

import cv2
import numpy as np
import numpy.typing as npt

from jobs.geometry import Box, Size
from pipelines.pictures import Pixels

#: How much of the drawn picture a pixel takes, 0..1, height x width.
Alpha = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]
#: Below this brightness a mask is black: the noise that JPEG leaves around white.
_BLACK = 8
_WHITE = 255


def soften(mask: Mask, blur: int) -> Alpha:
    """Turn brightness into shares with an edge `blur` pixels wide, inside the mask: what was black stays exactly 0."""
    inside = (mask >= _BLACK).astype(np.uint8)
    alpha = np.where(inside, mask, 0).astype(np.float32) / np.float32(_WHITE)
    if blur and not inside.all():
        # The distance to the next black pixel is 1 for the outermost ones.
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        alpha *= np.minimum(distance / (blur + 1), 1)
    return alpha


def whole_cells(mask: npt.NDArray[np.bool_], cell: int) -> Mask:
    """Return the mask (sides multiples of `cell`) as 0 or 255, whole latent cells wide: each cell with a masked pixel is masked."""
    height, width = mask.shape
    cells = mask.reshape(height // cell, cell, width // cell, cell).any(axis=(1, 3))
    return np.where(cells, np.uint8(_WHITE), np.uint8(0)).repeat(cell, 0).repeat(cell, 1)


def composite(source: Pixels, drawn: Pixels, alpha: Alpha) -> Pixels:
    """Lay the drawn picture over the source; where the share is 0 the source stays bit for bit."""
    share = alpha[..., None]
    mixed = source + share * (drawn.astype(np.float32) - source)
    return np.where(share > 0, np.rint(mixed).clip(0, _WHITE).astype(np.uint8), source)


def window(alpha: Alpha, padding: int, size: Size) -> Box:
    """Return what is cut out to draw a mask at `size`: its box and `padding` around it, in the shape of `size` where there is room.

    The mask must not be empty.
    """
    height, width = alpha.shape
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    left, right = max(0, int(columns[0]) - padding), min(width, int(columns[-1]) + 1 + padding)
    top, bottom = max(0, int(rows[0]) - padding), min(height, int(rows[-1]) + 1 + padding)
    wide, high = right - left, bottom - top
    if wide * size.height < high * size.width:
        left, right = _grown(left, right, round(high * size.width / size.height), width)
    else:
        top, bottom = _grown(top, bottom, round(wide * size.height / size.width), height)
    return Box(left, top, right, bottom)


def fill(pixels: Pixels, holes: npt.NDArray[np.bool_]) -> Pixels:
    """Fill holes with the blurred colours around them: known pixels are averaged over ever coarser grids until no hole is left."""
    if holes.all():
        return np.full_like(pixels, 128)
    weight = (~holes).astype(np.float32)
    levels = [(pixels.astype(np.float32) * weight[..., None], weight)]
    while levels[-1][1].min() == 0:
        half = tuple(-(-side // 2) for side in weight.shape[::-1])
        colour, weight = (cv2.resize(each, half, interpolation=cv2.INTER_AREA) for each in levels[-1])
        levels.append((colour, weight))
    filled = levels[-1][0] / levels[-1][1][..., None]
    for colour, weight in reversed(levels[:-1]):
        coarse = cv2.resize(filled, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
        known = weight[..., None]
        filled = np.where(known > 0, colour / np.maximum(known, 1e-6), coarse)
    return np.where(holes[..., None], np.rint(filled).clip(0, _WHITE).astype(np.uint8), pixels)


def _grown(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    """Widen a span evenly to a length, inside 0 … limit."""
    length = min(length, limit)
    start = min(max(0, start - (length - (end - start)) // 2), limit - length)
    return start, start + length
