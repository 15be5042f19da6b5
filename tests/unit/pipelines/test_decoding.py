"""Pictures come from cameras, browsers and other programs: they arrive upright, opaque and in eight bits."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.errors import PictureUnreadable
from pipelines.decoding import decode_mask, decode_picture


def _file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_picture_is_turned_upright() -> None:
    """The orientation that a camera wrote down is followed."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = 200
    upright = decode_picture(_file(Image.fromarray(pixels), exif=exif))
    assert upright.shape == (8, 4, 3)
    assert (upright[:4] == 200).all()
    assert (upright[4:] == 0).all()


def test_transparent_parts_lie_over_white() -> None:
    """As A1111 shows them; in a mask they are black."""
    pixels = np.full((2, 2, 4), 100, np.uint8)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    data = _file(Image.fromarray(pixels))
    assert decode_picture(data)[0].min() == 255
    assert (decode_picture(data)[1] == 100).all()
    assert decode_mask(data).tolist() == [[0, 0], [100, 100]]


def test_palette_with_transparency_lies_over_white() -> None:
    """A GIF's transparent colour too."""
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode_picture(_file(image, transparency=0)).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_sixteen_bits_become_eight() -> None:
    """Depth maps of 16 bits are scaled, where Pillow alone would clip them to white."""
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    assert decode_mask(_file(Image.fromarray(values))).tolist() == [[0, 1, 128, 255]]


@pytest.mark.parametrize("data", [b"", b"no picture", _file(Image.new("RGB", (64, 64), "red"))[:90]])
def test_what_is_no_picture_is_told(data: bytes) -> None:
    """Empty, foreign and cut files fail the job in words."""
    with pytest.raises(PictureUnreadable, match="cannot be read"):
        decode_picture(data)
