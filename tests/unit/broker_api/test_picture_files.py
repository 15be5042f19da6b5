"""Which bytes are taken as pictures, and what is known of them afterwards."""

import hashlib
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from broker_api.pictures.files import MOST_SCANS, decode_text, inspect, read_header
from jobs.errors import PictureRefused, RequestRefused
from tests.picture_files import base64_of, bomb, encoded, gradient, plain, png

PIXELS = 2**20


def exif(orientation: int) -> Image.Exif:
    """Return EXIF data that turns a picture."""
    made = Image.Exif()
    made[0x0112] = orientation
    return made


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        pytest.param(png(33, 21), "image/png", id="png"),
        pytest.param(encoded(gradient(33, 21).convert("P"), "PNG"), "image/png", id="palette"),
        pytest.param(encoded(gradient(33, 21).convert("RGBA"), "PNG"), "image/png", id="alpha"),
        pytest.param(encoded(Image.new("I;16", (33, 21), 9), "PNG"), "image/png", id="16-bit"),
        pytest.param(encoded(gradient(33, 21), "JPEG"), "image/jpeg", id="jpeg"),
        pytest.param(encoded(gradient(33, 21), "JPEG", progressive=True), "image/jpeg", id="progressive"),
        pytest.param(encoded(gradient(33, 21).convert("CMYK"), "JPEG"), "image/jpeg", id="cmyk"),
        pytest.param(encoded(gradient(33, 21), "WEBP"), "image/webp", id="webp"),
        pytest.param(encoded(gradient(33, 21), "WEBP", lossless=True), "image/webp", id="webp-lossless"),
        pytest.param(encoded(gradient(33, 21).convert("RGBA"), "WEBP", exif=exif(1)), "image/webp", id="webp-extended"),
        pytest.param(
            encoded(gradient(33, 21), "MPO", save_all=True, append_images=[gradient(8, 8)]), "image/jpeg", id="phone"
        ),
    ],
)
def test_inspect_takes_pictures(data: bytes, mime: str) -> None:
    """Every usual kind of the three formats, with its size and hash."""
    found = inspect(data, "image", PIXELS)
    assert (found.mime, found.width, found.height, found.bytes) == (mime, 33, 21, len(data))
    assert found.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_inspect_turns_pictures_as_their_exif_says(kind: str) -> None:
    """A picture that lies on its side is as wide as it is shown."""
    found = inspect(encoded(gradient(33, 21), kind, exif=exif(6)), "image", PIXELS)
    assert (found.width, found.height) == (21, 33)
    upside_down = inspect(encoded(gradient(33, 21), kind, exif=exif(3)), "image", PIXELS)
    assert (upside_down.width, upside_down.height) == (33, 21)


def test_inspect_tells_how_bright_a_mask_is() -> None:
    """Zero means that nothing is masked."""
    assert inspect(plain(8, 8, 0), "mask", PIXELS).brightest == 0
    assert inspect(plain(8, 8, 3), "mask", PIXELS).brightest == 3


def scans(count: int) -> bytes:
    """Return a JPEG with so many scans too many."""
    data = encoded(gradient(8, 8), "JPEG", progressive=True)
    place = data.rindex(b"\xff\xda")
    return data[:-2] + data[place:-2] * count + data[-2:]


def two_sizes() -> bytes:
    """Return a JPEG whose second frame header is not like its first."""
    data = encoded(gradient(8, 8), "JPEG")
    place = data.index(b"\xff\xc0")
    length = 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    second = bytearray(data[place : place + length])
    second[5:9] = struct.pack(">HH", 9000, 9000)
    return data[: place + length] + bytes(second) + data[place + length :]


FRAMES: dict[str, Any] = {"save_all": True, "append_images": [gradient(8, 8).rotate(90)], "duration": 10}


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        pytest.param(b"", "picture_refused", "no PNG", id="empty"),
        pytest.param(b"<svg/>", "picture_refused", "no PNG", id="svg"),
        pytest.param(encoded(gradient(8, 8), "GIF"), "picture_refused", "no PNG", id="gif"),
        pytest.param(encoded(gradient(8, 8), "BMP"), "picture_refused", "no PNG", id="bmp"),
        pytest.param(png(64, 64)[:40], "picture_refused", "decoded", id="truncated-png"),
        pytest.param(encoded(gradient(64, 64), "JPEG")[:-100], "picture_refused", "decoded", id="truncated-jpeg"),
        pytest.param(encoded(gradient(64, 64), "WEBP")[:-20], "picture_refused", "decoded", id="truncated-webp"),
        pytest.param(png(8, 8)[:20], "picture_refused", "no PNG", id="cut-header"),
        pytest.param(encoded(gradient(8, 8), "PNG", **FRAMES), "picture_refused", "animated", id="apng"),
        pytest.param(encoded(gradient(8, 8), "WEBP", **FRAMES), "picture_refused", "animated", id="animated-webp"),
        pytest.param(bomb(1000, 1000), "picture_refused", "decoded", id="bomb-inside-the-limit"),
        pytest.param(bomb(30_000, 30_000), "picture_too_large", "30000 x 30000", id="bomb"),
        pytest.param(bomb(2**31 - 1, 2**31 - 1), "picture_too_large", "2147483647", id="huge-header"),
        pytest.param(bomb(0, 8), "picture_refused", "no pixels", id="no-pixels"),
        pytest.param(png(1025, 1024), "picture_too_large", "1048576", id="one-column-too-many"),
        pytest.param(png(16_385, 1), "picture_too_large", "16384", id="one-side-too-long"),
        pytest.param(two_sizes(), "picture_refused", "", id="two-sizes"),
        pytest.param(scans(MOST_SCANS), "picture_refused", "scans", id="scans"),
    ],
)
def test_inspect_refuses_what_is_no_picture_for_us(data: bytes, code: str, says: str) -> None:
    """Each has its code, the field and a sentence."""
    with pytest.raises(RequestRefused) as refused:
        inspect(data, "controls.0.image", PIXELS)
    assert (refused.value.code, refused.value.field) == (code, "controls.0.image")
    assert says in refused.value.message


@pytest.mark.parametrize(
    "text",
    [
        base64_of(png(8, 8)),
        f"data:image/png;base64,{base64_of(png(8, 8))}",
        f"DATA:;Base64,{base64_of(png(8, 8))}",
        "\n".join(base64_of(png(8, 8))[start : start + 76] for start in range(0, 4000, 76)),
    ],
)
def test_decode_text_reads_base64_in_every_dress(text: str) -> None:
    """Bare, as `data:` URI, broken into lines."""
    assert decode_text(text, "image") == png(8, 8)


@pytest.mark.parametrize(
    "text",
    ["not base64", "data:image/png,abc", "https://example.org/cat.png", "aGVsbG8", "ä", "upload", "file:///etc/passwd"],
)
def test_decode_text_refuses_the_rest(text: str) -> None:
    """Addresses above all: nothing is fetched."""
    with pytest.raises(PictureRefused) as refused:
        decode_text(text, "image")
    assert refused.value.field == "image"


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: png(8, 8)[:8] + tail)
    | st.binary(max_size=60).map(lambda tail: b"\xff\xd8\xff" + tail)
    | st.binary(max_size=60).map(lambda tail: b"RIFF\0\0\0\0WEBP" + tail))  # fmt: skip
def test_read_header_never_fails(data: bytes) -> None:
    """Whatever bytes come, they are a header or they are none."""
    found = read_header(data)
    assert found is None or found.format in {"PNG", "JPEG", "WEBP"}
