"""Picture files for tests, made on the spot."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as a file of this format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """Return a picture in which no two corners are alike."""
    rgb = bytes(value for y in range(height) for x in range(width) for value in (x % 256, y % 256, 128))
    return Image.frombytes("RGB", (width, height), rgb)


def png(width: int, height: int) -> bytes:
    """Return a PNG of a gradient."""
    return encoded(gradient(width, height), "PNG")


def plain(width: int, height: int, level: int) -> bytes:
    """Return a grey PNG: a mask."""
    return encoded(Image.new("L", (width, height), level), "PNG")


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG that would decode to this size."""
    rows = zlib.compress(bytes(1024 * 1024), 9)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", rows),
            _chunk(b"IEND", b""),
        )
    )


def base64_of(data: bytes) -> str:
    """Return a file as requests carry it."""
    return base64.b64encode(data).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
