"""Put tiles together so that nobody sees where they meet.

Neighbours share an overlap. Its outer parts are thrown away, because a tile knows least beside its own edge; in the middle one tile fades
into the next. Rows are joined first, each in a strip as wide as the picture, and then the strips: so it stays smooth where four tiles meet.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jobs.geometry import Box, Size
from pipelines.pictures import Pixels

#: Longest side of a preview, pixels.
_PREVIEW_SIDE = 256


class Mosaic:
    """A picture that grows tile by tile, in the order of `boxes` (row by row, from left to right)."""

    def __init__(self, boxes: Sequence[Box], scale: int, fade: float) -> None:
        self.boxes = boxes
        #: How many tiles are in place.
        self.done = 0
        self._scale = scale
        #: Share of an overlap in which one tile fades into the next.
        self._fade = fade
        width, height = boxes[-1].right * scale, boxes[-1].bottom * scale
        self._canvas: Pixels = np.zeros((height, width, 3), np.uint8)
        self._strip: Pixels = np.zeros((0, width, 3), np.uint8)

    @property
    def size(self) -> Size:
        """Return the size of the whole picture, pixels."""
        return Size(self._canvas.shape[1], self._canvas.shape[0])

    @property
    def complete(self) -> bool:
        """Tell whether every tile is in place."""
        return self.done == len(self.boxes)

    @property
    def picture(self) -> Pixels:
        """Return the picture; what no row has reached yet is black."""
        return self._canvas

    def put(self, pixels: Pixels) -> None:
        """Put the next tile in place (its box times the scale, x 3)."""
        box, scale = self.boxes[self.done], self._scale
        height, width = (box.bottom - box.top) * scale, (box.right - box.left) * scale
        if pixels.shape != (height, width, 3):
            raise ValueError(f"the tile is {pixels.shape}, not {(height, width, 3)}")
        before = self.boxes[self.done - 1] if box.left else None
        if before is None:
            self._strip = np.zeros((height, self._canvas.shape[1], 3), np.uint8)
        self._join(
            np.swapaxes(self._strip, 0, 1),
            np.swapaxes(pixels, 0, 1),
            box.left,
            None if before is None else before.right,
        )
        self.done += 1
        if box.right == self.boxes[-1].right:
            self._join(self._canvas, self._strip, box.top, self._bottom_above(box))

    def preview(self, base: Pixels) -> Pixels:
        """Return a small picture: the tiles in place, and around them `base`, the picture that they are made from."""
        width, height = self.size
        every = _every(width, height)
        rows, columns = np.arange(0, height, every), np.arange(0, width, every)
        shown = base[np.ix_(rows * base.shape[0] // height, columns * base.shape[1] // width)]
        if self.done == 0:
            return shown
        last = self.boxes[self.done - 1]
        full = last.right == self.boxes[-1].right
        finished = (last.bottom if full else self._bottom_above(last) or 0) * self._scale
        above = rows[rows < finished]
        shown[: len(above)] = self._canvas[np.ix_(above, columns)]
        if not full:
            inside = (rows >= last.top * self._scale) & (rows < last.bottom * self._scale)
            reached = columns[columns < last.right * self._scale]
            shown[np.ix_(inside, columns < last.right * self._scale)] = self._strip[
                np.ix_(rows[inside] - last.top * self._scale, reached)
            ]
        return shown

    def keep(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Return copies of what is needed to go on elsewhere."""
        return {"canvas": self._canvas.copy(), "strip": self._strip.copy()}

    def restore(self, kept: dict[str, npt.NDArray[np.uint8]], done: int) -> None:
        """Put a fresh mosaic where the kept one was after `done` tiles."""
        # What was read from bytes may not be writable.
        self._canvas, self._strip = kept["canvas"].copy(), kept["strip"].copy()
        self.done = done

    def _bottom_above(self, box: Box) -> int | None:
        return max((other.bottom for other in self.boxes if other.top < box.top), default=None)

    def _join(self, whole: Pixels, part: Pixels, start: int, end_before: int | None) -> None:
        """Lay a part over the whole along the first axis; `end_before` is where what lies there already ends, in source pixels."""
        at = start * self._scale
        if end_before is None:
            whole[at : at + len(part)] = part
            return
        overlap = (end_before - start) * self._scale
        fading = max(1, round(overlap * self._fade))
        first = (overlap - fading) // 2
        last = first + fading
        # A half cosine: neither the colours nor their slope jump.
        share = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fading, dtype=np.float32) + 0.5) / fading))[:, None, None]
        old = whole[at + first : at + last].astype(np.float32)
        mixed = old + (part[first:last].astype(np.float32) - old) * share
        whole[at + first : at + last] = mixed.round().astype(np.uint8)
        whole[at + last : at + len(part)] = part[last:]


def shrunk(pixels: Pixels) -> Pixels:
    """Return a small picture of a finished one."""
    every = _every(pixels.shape[1], pixels.shape[0])
    return pixels[::every, ::every].copy()


def _every(width: int, height: int) -> int:
    return math.ceil(max(width, height) / _PREVIEW_SIDE)
