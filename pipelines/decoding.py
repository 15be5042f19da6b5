"""From the file of a picture to pixels, upright and without transparency. It does not know what the picture is for."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from jobs.errors import PictureUnreadable
from pipelines.pictures import Pixels

#: What shines through transparent parts: of a picture, as A1111 has it, and of a mask, whose white is what counts.
_PAPER = (255, 255, 255)
_NOTHING = (0, 0, 0)


def decode_picture(data: bytes) -> Pixels:
    """Return height x width x 3, transparent parts over white, raising `PictureUnreadable`."""
    return np.asarray(_read(data, _PAPER))


def decode_mask(data: bytes) -> npt.NDArray[np.uint8]:
    """Return brightness, height x width, transparent parts black, raising `PictureUnreadable`."""
    return np.asarray(_read(data, _NOTHING).convert("L"))


def _read(data: bytes, behind: tuple[int, int, int]) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            upright = _eight_bit(ImageOps.exif_transpose(image))
            if not upright.has_transparency_data:
                return upright.convert("RGB")
            upper = upright.convert("RGBA")
            lower = Image.new("RGBA", upper.size, (*behind, 255))
            return Image.alpha_composite(lower, upper).convert("RGB")
    # Every format's decoder raises its own kind.
    except Exception as error:  # noqa: BLE001
        problem = f"a picture cannot be read: {type(error).__name__}: {error}"
    raise PictureUnreadable(problem)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return grey pictures of 16 bits in 8: Pillow itself would clip them."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
