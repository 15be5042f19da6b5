"""The result value. It does not know how a picture is encoded or stored."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.errors import PictureInvalid

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture of a job."""

    index: int
    seed: int
    #: Height x width x 3, red green blue.
    array: Pixels


def to_pixels(image: npt.NDArray[np.floating]) -> Pixels:
    """Turn floats in 0..1 into bytes as diffusers does, raising `PictureInvalid` for numbers that are no picture."""
    if not np.isfinite(image).all():
        raise PictureInvalid("the model produced numbers that are no picture (NaN or infinity)")
    return (image * 255).round().astype(np.uint8)
