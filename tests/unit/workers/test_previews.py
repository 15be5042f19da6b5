"""Previews are small whatever the engine sends."""

import base64
import io
import random
from uuid import uuid4

from PIL import Image

from workers.engines.interface import Previewed
from workers.previews import MOST, SIDE, encode_preview


def test_encode_preview_keeps_small_pictures_as_they_are() -> None:
    """A latent-sized preview keeps its size."""
    preview = encode_preview(Previewed(uuid4(), 1, 3, 0, 64, 32, b"\x80" * (64 * 32 * 3)))
    assert (preview.width, preview.height) == (64, 32)
    with Image.open(io.BytesIO(base64.b64decode(preview.base64))) as image:
        assert (image.format, image.size) == ("JPEG", (64, 32))


def test_encode_preview_fits_its_limit() -> None:
    """Even noise of several megapixels ends below the limit, in its proportions."""
    noise = random.Random(1).randbytes(2048 * 1024 * 3)
    preview = encode_preview(Previewed(uuid4(), 1, 3, 0, 2048, 1024, noise))
    assert len(preview.base64) <= MOST
    assert preview.width <= SIDE
    assert preview.width == 2 * preview.height
