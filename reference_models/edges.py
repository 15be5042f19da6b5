"""Make edge maps of pictures: white lines on black, as every Canny ControlNet expects them. Needs OpenCV."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from reference_models.judge import Picture, pixels_of
from reference_models.pictures import Pixels

LOW: Final = 100
HIGH: Final = 200


def edge_map(picture: Picture) -> Pixels:
    """Return the Canny edges of the picture as `[height, width, 3]` bytes, 0 or 255."""
    lines = np.asarray(cv2.Canny(np.ascontiguousarray(pixels_of(picture)), LOW, HIGH), np.uint8)
    return np.repeat(lines[:, :, None], 3, axis=2)
