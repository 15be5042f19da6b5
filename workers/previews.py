"""Make the small pictures that people watch while a job is drawn."""

import base64
import io
from dataclasses import dataclass
from typing import Final

from PIL import Image

from workers.engines.interface import Previewed

#: Longest base64 text of a preview, characters.
MOST: Final = 64 * 1024
#: Longest side of a preview, pixels.
SIDE: Final = 512
QUALITIES: Final = (85, 70, 50, 30)
MIME: Final = "image/jpeg"


@dataclass(frozen=True)
class Preview:
    """A preview as it travels in an event."""

    width: int
    height: int
    base64: str


def encode_preview(report: Previewed) -> Preview:
    """Encode as JPEG of at most 64 KiB base64: smaller and coarser until it fits."""
    image = Image.frombytes("RGB", (report.width, report.height), report.rgb)
    side = SIDE
    while True:
        small = image.copy()
        small.thumbnail((side, side))
        for quality in QUALITIES:
            file = io.BytesIO()
            small.save(file, "JPEG", quality=quality)
            text = base64.b64encode(file.getvalue()).decode()
            if len(text) <= MOST:
                return Preview(small.width, small.height, text)
        side //= 2
