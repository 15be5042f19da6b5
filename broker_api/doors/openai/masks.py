"""Turn transparency into a mask: OpenAI's clients make transparent what is to be drawn anew, ours make it white; pure."""

import io
from typing import Final

from PIL import Image, ImageOps

from jobs.errors import PictureRefused

_HALF: Final = 128
_WHITE: Final = 255


def mask_of(data: bytes, size: tuple[int, int]) -> bytes:
    """Return the mask file that was sent as ours, PNG, raising `PictureRefused` for one that masks nothing or has another size."""
    alpha = _alpha(data)
    if alpha is None:
        raise PictureRefused("The mask has no transparency: make transparent what is to be drawn anew.", field="mask")
    if alpha.size != size:
        raise PictureRefused(
            f"The mask is {alpha.width} x {alpha.height}, the picture {size[0]} x {size[1]}: they must be equal.",
            field="mask",
        )
    return _white_where_clear(alpha)


def own_mask(data: bytes) -> bytes | None:
    """Return the mask that a picture's own transparency makes; None for a picture without."""
    alpha = _alpha(data)
    return None if alpha is None else _white_where_clear(alpha)


def _alpha(data: bytes) -> Image.Image | None:
    """Return how opaque a picture is, None when nothing of it is transparent; the file has been decoded before."""
    with Image.open(io.BytesIO(data)) as picture:
        if not picture.has_transparency_data:
            return None
        alpha = ImageOps.exif_transpose(picture.convert("RGBA")).getchannel("A")
    lowest = alpha.getextrema()[0]
    return alpha if isinstance(lowest, int | float) and lowest < _HALF else None


def _white_where_clear(alpha: Image.Image) -> bytes:
    file = io.BytesIO()
    alpha.point(lambda value: _WHITE if value < _HALF else 0).save(file, "PNG", compress_level=1)
    return file.getvalue()
