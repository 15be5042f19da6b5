"""What part of a picture is drawn, and how it is brought to the size the model draws at and back."""

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from jobs.geometry import Box, Size
from pipelines.masks import Alpha
from pipelines.pictures import Pixels
from pipelines.resizing import Raster, extend, resample


class Frame(Protocol):
    """Between a picture and what the model draws of it."""

    @property
    def size(self) -> Size:
        """Return the size that is drawn."""
        ...

    def enter(self, raster: Raster) -> Raster:
        """Return the part that is drawn, at the size it is drawn at."""
        ...

    def touched(self, alpha: Alpha) -> npt.NDArray[np.bool_]:
        """Return where the part that is drawn may change."""
        ...

    def leave(self, drawn: Pixels, source: Pixels) -> Pixels:
        """Return the source with the drawn part in its place."""
        ...


@dataclass(frozen=True)
class WholePicture:
    """All of it, grown to the right and below to sides that the model can draw."""

    picture: Size
    #: Sides must be multiples of this many pixels.
    step: int

    @property
    def size(self) -> Size:
        """Return the next larger size the model can draw."""
        return Size(*(-(-side // self.step) * self.step for side in self.picture))

    @property
    def _margins(self) -> Box:
        return Box(0, 0, self.size.width - self.picture.width, self.size.height - self.picture.height)

    def enter(self, raster: Raster) -> Raster:
        """Repeat the edges."""
        return extend(raster, self._margins)

    def touched(self, alpha: Alpha) -> npt.NDArray[np.bool_]:
        """Repeat the edges of the mask as well."""
        return extend((alpha > 0).astype(np.uint8), self._margins).astype(bool)

    def leave(self, drawn: Pixels, source: Pixels) -> Pixels:
        """Cut the repeated edges off."""
        height, width = source.shape[:2]
        return drawn[:height, :width]


@dataclass(frozen=True)
class Window:
    """A part of it, drawn at a size of its own."""

    box: Box
    size: Size

    def enter(self, raster: Raster) -> Raster:
        """Cut the part out and resize it."""
        left, top, right, bottom = self.box
        return resample(np.ascontiguousarray(raster[top:bottom, left:right]), self.size)

    def touched(self, alpha: Alpha) -> npt.NDArray[np.bool_]:
        """Resize the part of the mask; what takes any share at all counts."""
        left, top, right, bottom = self.box
        part = (alpha[top:bottom, left:right] > 0).astype(np.float32)
        shrinks = self.size.width < right - left or self.size.height < bottom - top
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        resized: npt.NDArray[np.bool_] = cv2.resize(part, self.size, interpolation=way) > 0
        return resized

    def leave(self, drawn: Pixels, source: Pixels) -> Pixels:
        """Resize the part back and put it where it was cut out."""
        left, top, right, bottom = self.box
        pasted = source.copy()
        pasted[top:bottom, left:right] = resample(drawn, Size(right - left, bottom - top))
        return pasted
