"""Look at pictures inside a request before they become uploads: their size, their text, whether a mask masks anything."""

import base64
import binascii
import io
import warnings
from typing import Any, Final

from PIL import Image
from PIL.ExifTags import IFD, Base

from broker_api.doors.sdapi.refusals import field_refused

FORMATS: Final = ("PNG", "JPEG", "WEBP")
_OPAQUE: Final = 255
_HALF: Final = 128


def data_of(text: str, field: str) -> bytes:
    """Decode base64 or a `data:` URI, raising `FieldsRefused`."""
    bare = text.partition(",")[2] if text[:5].lower() == "data:" else text
    try:
        # Line breaks are common in base64 and mean nothing.
        return base64.b64decode("".join(bare.split()), validate=True)
    except (binascii.Error, ValueError):
        raise field_refused(field, "Invalid encoded image") from None


def open_picture(data: bytes, max_pixels: int, field: str) -> Image.Image:
    """Read a picture's header, not its pixels, raising `FieldsRefused` for what is none or too large."""
    try:
        with warnings.catch_warnings():
            # Our own limit follows.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise field_refused(field, "Invalid encoded image") from None
    if picture.width * picture.height > max_pixels:
        raise field_refused(field, f"The picture has more than {max_pixels} pixels")
    return picture


def size_of(text: str, max_pixels: int, field: str) -> tuple[int, int]:
    """Return a picture's width and height, raising `FieldsRefused`."""
    with open_picture(data_of(text, field), max_pixels, field) as picture:
        return picture.size


def mask_of(text: str, *, inverted: bool, max_pixels: int) -> str | None:
    """Return the mask to send on, None when nothing is masked; a mask drawn as transparency becomes black and white."""
    with open_picture(data_of(text, "mask"), max_pixels, "mask") as picture:
        try:
            alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
            transparent = alpha is not None and alpha.getextrema() != (_OPAQUE, _OPAQUE)
            grey = alpha if alpha is not None and transparent else picture.convert("L")
        except (OSError, ValueError, SyntaxError):
            raise field_refused("mask", "Invalid encoded image") from None
    nothing = _OPAQUE if inverted else 0
    if grey.getextrema() == (nothing, nothing):
        return None
    if not transparent:
        return text
    return encoded(grey.point(lambda value: _OPAQUE if value > _HALF else 0))


def cropped(data: bytes, width: int, height: int) -> bytes:
    """Cut the middle of this size out of a picture, PNG."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return base64.b64decode(encoded(picture.crop((left, top, left + width, top + height))))


def encoded(picture: Image.Image) -> str:
    """Return a picture as base64 of a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def texts_of(picture: Image.Image) -> dict[str, str]:
    """Return every text a picture carries; the generation parameters are under `parameters`."""
    found = {name: value for name, value in picture.info.items() if isinstance(name, str) and isinstance(value, str)}
    comment: Any = picture.getexif().get_ifd(IFD.Exif).get(Base.UserComment)
    if "parameters" not in found and isinstance(comment, bytes):
        found["parameters"] = _comment(comment)
    return found


def _comment(data: bytes) -> str:
    if data.startswith(b"UNICODE\0"):
        body = data[8:]
        # Written in either order; prompts have far more ASCII than anything else.
        big = body[:2] == b"\xfe\xff" or body[:1] == b"\0"
        return body.decode("utf-16-be" if big else "utf-16-le", "replace").lstrip("\ufeff")
    return data.removeprefix(b"ASCII\0\0\0").decode("utf-8", "replace")
