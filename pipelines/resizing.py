"""Bring pictures to the size they are drawn at. It does not know whether a picture is a source, a mask or a control."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from jobs.geometry import Box, Size

ResizeMode = Literal["stretch", "crop", "fill"]
#: Height x width x 3, or height x width.
Raster = npt.NDArray[np.uint8]

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


def resample(raster: Raster, size: Size, name: str = "lanczos") -> Raster:
    """Stretch to a size, by a resampler's name; a picture of that size comes back as it is."""
    if raster.shape[1::-1] == size:
        return raster
    return np.asarray(Image.fromarray(raster).resize(size, _FILTERS[name]))


def resize(raster: Raster, size: Size, mode: ResizeMode, *, black: bool = False) -> Raster:
    """Bring a picture to a size: `stretch` it, `crop` what sticks out, or `fill` up what is missing with its edges (or `black`)."""
    height, width = raster.shape[:2]
    if mode == "stretch" or (width, height) == size:
        return resample(raster, size)
    ratios = (size.width / width, size.height / height)
    ratio = max(ratios) if mode == "crop" else min(ratios)
    near = max if mode == "crop" else min
    scaled = Size(*(near(side, max(1, round(own * ratio))) for side, own in zip(size, (width, height), strict=True)))
    resized = resample(raster, scaled)
    if mode == "crop":
        left, top = (scaled.width - size.width) // 2, (scaled.height - size.height) // 2
        return resized[top : top + size.height, left : left + size.width]
    left, top = (size.width - scaled.width) // 2, (size.height - scaled.height) // 2
    return extend(
        resized,
        Box(left, top, size.width - scaled.width - left, size.height - scaled.height - top),
        black=black,
    )


def extend(raster: Raster, margins: Box, *, black: bool = False) -> Raster:
    """Grow a picture by so many pixels at each side, repeating its edges, or with black."""
    around = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))[: raster.ndim]
    return np.pad(raster, around, mode="constant") if black else np.pad(raster, around, mode="edge")
