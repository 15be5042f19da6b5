"""Look at pictures inside a request before they become uploads: their size, their text, whether a mask masks anything."""

import base64
import io
from typing import Any, Final

from PIL import Image
from PIL.ExifTags import IFD, Base

from broker_api.pictures.files import decode_text, read_header
from jobs.errors import PictureRefused, PictureTooLarge
from jobs.parts import MAX_SIDE

_OPAQUE: Final = 255
_HALF: Final = 128


def open_picture(text: str, max_pixels: int, field: str) -> Image.Image:
    """Read a picture's header, not its pixels; raise `PictureRefused` for what is none, `PictureTooLarge` for what is too large."""
    data = decode_text(text, field)
    header = read_header(data)
    if header is None:
        raise PictureRefused("Invalid encoded image", field=field)
    if max(header.width, header.height) > MAX_SIDE or header.width * header.height > max_pixels:
        raise PictureTooLarge(
            f"The picture is {header.width} x {header.height}; this server takes {max_pixels} pixels at most.",
            field=field,
        )
    try:
        return Image.open(io.BytesIO(data), formats=[header.format])
    except (OSError, ValueError, SyntaxError):
        raise PictureRefused("Invalid encoded image", field=field) from None


def size_of(text: str, max_pixels: int, field: str) -> tuple[int, int]:
    """Return a picture's width and height, raising what `open_picture` raises."""
    with open_picture(text, max_pixels, field) as picture:
        return picture.size


def mask_of(text: str, *, inverted: bool, max_pixels: int) -> str | None:
    """Return the mask to send on, None when nothing is masked; a mask drawn as transparency becomes black and white."""
    with open_picture(text, max_pixels, "mask") as picture:
        try:
            alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
            transparent = alpha is not None and alpha.getextrema() != (_OPAQUE, _OPAQUE)
            grey = alpha if alpha is not None and transparent else picture.convert("L")
        except (OSError, ValueError, SyntaxError):
            raise PictureRefused("Invalid encoded image", field="mask") from None
    nothing = _OPAQUE if inverted else 0
    if grey.getextrema() == (nothing, nothing):
        return None
    if not transparent:
        return text
    return encoded(grey.point(lambda value: _OPAQUE if value > _HALF else 0))


def cropped(data: bytes, width: int, height: int) -> bytes:
    """Cut the middle of this size out of a picture, PNG."""
    with Image.open(io.BytesIO(data)) as picture:
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
