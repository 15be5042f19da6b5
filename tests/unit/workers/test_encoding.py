"""Files that say how they were made, the same bytes each time."""

import io
import json
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from jobs.contract import Txt2ImgParameters
from jobs.parts import MAX_PROMPT, Output
from jobs.prompts.infotext import parse_infotext
from models_registry.entries import Kind, Layout, ModelEntry
from workers.encoding import encode
from workers.engines.interface import Pictured

ENTRY = ModelEntry(
    name="shapes",
    kind=Kind.CHECKPOINT,
    layout=Layout.DIFFUSERS,
    family="sd15",
    path=Path("/nowhere"),
    fingerprint="0123456789abcdef" * 4,
    components=(),
    native_size=128,
    latent_factor=8,
    latent_channels=4,
)


def parameters(**changes: Any) -> Txt2ImgParameters:
    """Return parameters whose prompt needs care."""
    return Txt2ImgParameters(
        model="shapes",
        prompt='a red "circle", <b> & 漢字',
        negative_prompt="blurry: no",
        width=64,
        height=32,
        steps=20,
        guidance_scale=7.5,
        scheduler="DPM++ 2M Karras",
        seed=100,
        preview_every=3,
        labels={"customer": "secret"},
    ).model_copy(update=changes)


def picture(seed: int = 101) -> Pictured:
    """Return a picture of a gradient."""
    rgb = bytes(value for y in range(32) for x in range(64) for value in (4 * x, 8 * y, 128))
    return Pictured(uuid4(), 1, 1, seed, 64, 32, rgb)


def opened(data: bytes) -> Image.Image:
    """Open a file's bytes."""
    return Image.open(io.BytesIO(data))


def test_encode_writes_png_with_infotext_and_json() -> None:
    """PNG keeps every pixel, the A1111 text and our JSON; the seed is the picture's own."""
    encoded = encode(picture(), parameters(), ENTRY)
    image = opened(encoded.data)
    assert (encoded.mime, encoded.extension, image.format) == ("image/png", "png", "PNG")
    assert image.tobytes() == picture().rgb
    said = parse_infotext(image.info["parameters"])
    assert said.prompt == parameters().prompt
    assert said.fields["Seed"] == "101"
    facts = json.loads(image.info["imagefleet"])
    assert (facts["seed"], facts["prompt"], facts["scheduler"]) == (101, parameters().prompt, "DPM++ 2M Karras")
    assert "secret" not in image.info["imagefleet"]


@pytest.mark.parametrize(("kind", "mime", "extension"), [("jpeg", "image/jpeg", "jpg"), ("webp", "image/webp", "webp")])
def test_encode_writes_exif_and_xmp(kind: Literal["jpeg", "webp"], mime: str, extension: str) -> None:
    """JPEG and WebP carry the infotext where A1111's readers look for it, and the JSON as XMP."""
    encoded = encode(picture(), parameters(output=Output(format=kind)), ENTRY)
    image = opened(encoded.data)
    assert (encoded.mime, encoded.extension) == (mime, extension)
    comment = image.getexif().get_ifd(IFD.Exif)[Base.UserComment]
    assert comment.startswith(b"UNICODE\0")
    assert parse_infotext(comment[8:].decode("utf-16-be")).prompt == parameters().prompt
    assert b"&lt;b&gt; &amp; \xe6\xbc\xa2\xe5\xad\x97" in image.info["xmp"]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_encode_makes_the_same_bytes_again(kind: Literal["png", "jpeg", "webp"]) -> None:
    """Neither time nor job goes into the file."""
    chosen = parameters(output=Output(format=kind))
    first, second = (encode(picture(), chosen, ENTRY) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_encode_leaves_metadata_out_when_asked(kind: Literal["png", "jpeg", "webp"]) -> None:
    """A file without metadata says nothing."""
    encoded = encode(picture(), parameters(output=Output(format=kind, metadata=False)), ENTRY)
    assert b"circle" not in encoded.data
    assert not opened(encoded.data).getexif()


def test_encode_heeds_quality() -> None:
    """A lower quality is a smaller file."""
    sizes = [len(encode(picture(), parameters(output=Output(format="jpeg", quality=q)), ENTRY).data) for q in (20, 95)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_encode_survives_the_longest_prompt(kind: Literal["png", "jpeg", "webp"]) -> None:
    """A prompt beyond a JPEG segment is left out of that file, and breaks nothing."""
    encoded = encode(picture(), parameters(prompt="漢" * MAX_PROMPT, output=Output(format=kind)), ENTRY)
    assert opened(encoded.data).size == (64, 32)
