"""Decide whether bytes are a picture we take, before any decoder may spend memory on them."""

import base64
import hashlib
import io
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from PIL import Image, ImageOps
from PIL.ExifTags import Base

from jobs.errors import PictureRefused, PictureTooLarge, RequestRefused
from jobs.parts import MAX_SIDE
from jobs.uploads import Upload

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
#: JPEG markers that begin a frame and say its size: all of C0 … CF but those of tables and arithmetic coding.
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MARK: Final = 0xFF
_START_OF_SCAN: Final = 0xDA
#: Markers without a length: restarts and the beginning.
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
#: What the bits of a lossless WebP begin with.
_LOSSLESS: Final = 0x2F
#: Each scan of a progressive JPEG is decoded over the whole picture; encoders write about ten.
MOST_SCANS: Final = 100
#: EXIF orientations that lay the picture on its side.
_LYING: Final = range(5, 9)
_UPRIGHT: Final = 1


class Header(NamedTuple):
    """What a file says of itself."""

    #: As Pillow names it.
    format: str
    mime: str
    width: int
    height: int
    animated: bool = False


def decode_text(text: str, field: str) -> bytes:
    """Return the bytes of a picture sent as base64 or as `data:` URI, raising `PictureRefused`."""
    payload = text
    if text[:5].lower() == "data:":
        head, comma, payload = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise PictureRefused("A data: URI must hold base64: data:image/png;base64,…", field=field)
    elif "://" in text[:20]:
        raise PictureRefused("Pictures are not fetched from elsewhere: send base64, or upload them first.", field=field)
    try:
        # Tools break base64 into lines.
        return base64.b64decode("".join(payload.split()), validate=True)
    except ValueError:
        raise PictureRefused("This is neither base64, nor upload:<id>, nor job:<id>/<n>.", field=field) from None


def inspect(data: bytes, field: str, max_pixels: int) -> Upload:
    """Check and decode a picture file once, raising `PictureRefused` or `PictureTooLarge`; slow: call it in a thread."""
    header = read_header(data)
    if header is None:
        raise PictureRefused("This is no PNG, JPEG or WebP picture.", field=field)
    if max(header.width, header.height) > MAX_SIDE or header.width * header.height > max_pixels:
        raise PictureTooLarge(
            f"The picture is {header.width} x {header.height}; this server takes {max_pixels} pixels at most, "
            f"and {MAX_SIDE} a side.",
            field=field,
        )
    if header.width < 1 or header.height < 1:
        raise PictureRefused("The picture has no pixels.", field=field)
    if header.animated:
        raise PictureRefused("The picture is animated: send one frame.", field=field)
    if header.format == "JPEG" and data.count(bytes((_MARK, _START_OF_SCAN))) > MOST_SCANS:
        raise PictureRefused("The JPEG has more scans than any encoder writes.", field=field)
    try:
        width, height, brightest = _decode(data, header, field)
    except RequestRefused:
        raise
    except Exception as problem:  # noqa: BLE001 - decoders raise whatever they like over damaged files
        reason = str(problem).partition("\n")[0][:200]
        raise PictureRefused(f"The picture cannot be decoded: {reason}.", field=field) from None
    return Upload(hashlib.sha256(data).hexdigest(), header.mime, width, height, len(data), brightest)


def _decode(data: bytes, header: Header, field: str) -> tuple[int, int, int]:
    """Return width and height as the picture is shown, and its brightest pixel's luminance."""
    with Image.open(io.BytesIO(data), formats=[header.format]) as image:
        if image.size != (header.width, header.height):
            raise PictureRefused("The picture says two different sizes of itself.", field=field)
        # Phones append further pictures to a JPEG; the first one counts.
        if header.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
            raise PictureRefused("The picture is animated: send one frame.", field=field)
        image.load()
        orientation = image.getexif().get(Base.Orientation, _UPRIGHT)
        if orientation != _UPRIGHT:
            # Workers turn it as well: what fails there should fail here.
            ImageOps.exif_transpose(image)
        brightest = max(level for level, count in enumerate(image.convert("L").histogram()) if count)
        width, height = image.size
    return (height, width, brightest) if orientation in _LYING else (width, height, brightest)


def read_header(data: bytes) -> Header | None:
    """Read the size out of a picture file's first bytes; None for what is no PNG, JPEG or WebP."""
    try:
        if data.startswith(_PNG) and data[12:16] == b"IHDR":
            return Header("PNG", "image/png", *struct.unpack(">II", data[16:24]))
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp(data)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> Header | None:
    for marker, start in _segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack(">HH", data[start + 3 : start + 7])
            return Header("JPEG", "image/jpeg", width, height)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG before its first scan, and where its segment's length stands."""
    place = 2
    while place + 4 <= len(data) and data[place] == _MARK:
        marker = data[place + 1]
        if marker == _MARK:
            place += 1
        elif marker in _BARE:
            place += 2
        else:
            if marker == _START_OF_SCAN:
                return
            yield marker, place + 2
            place += 2 + int(struct.unpack(">H", data[place + 2 : place + 4])[0])


def _webp(data: bytes) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        return Header("WEBP", "image/webp", width, height, animated=bool(data[20] & 0x02))
    if kind == b"VP8L" and data[20] == _LOSSLESS:
        bits = struct.unpack("<I", data[21:25])[0]
        return Header("WEBP", "image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[26:30])
        return Header("WEBP", "image/webp", width & 0x3FFF, height & 0x3FFF)
    return None
