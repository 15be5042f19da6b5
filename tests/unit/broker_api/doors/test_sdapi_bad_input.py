"""Whatever is sent to the A1111 door is a request of ours or a refusal, never a failure of the server."""

import base64
import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel, ValidationError

from broker_api.doors.sdapi.choices import Choices
from broker_api.doors.sdapi.payloads import Img2Img, Txt2Img
from broker_api.doors.sdapi.pictures import mask_of, open_picture, texts_of
from broker_api.doors.sdapi.prefilled import prefilled
from broker_api.doors.sdapi.refusals import FieldsRefused, JobFailed, SamplerNotFound, refuse
from broker_api.doors.sdapi.translation import img2img, txt2img
from jobs.errors import PictureRefused, PictureTooLarge, RequestRefused

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.integers(-2, 70), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20), st.sampled_from(["", "None", "Latent", "Euler a", "karras", "http://x", "data:image/png;base64,AAAA", "\0"]),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["args", "image", "model", "controlnet", "enabled", "weight", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)  # fmt: skip


def _bodies(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from([*sorted(model.model_fields), "unknown"]), _VALUES, max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=_bodies(Txt2Img))
def test_txt2img_never_fails(body: dict[str, Any]) -> None:
    """Any value in any field."""
    with contextlib.suppress(ValidationError, RequestRefused):
        txt2img(Txt2Img.model_validate(prefilled(body)), Choices(), {})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=_bodies(Img2Img), images=st.lists(st.sampled_from(["YQ==", "http://x", ""]), max_size=3))
def test_img2img_never_fails(body: dict[str, Any], images: list[str]) -> None:
    """Any value in any field, with and without pictures."""
    with contextlib.suppress(ValidationError, RequestRefused):
        img2img(Img2Img.model_validate(prefilled({"init_images": images} | body)), Choices(), {}, seed=1)


def _base64(picture: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    picture.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8 ", b"\xff\xd8\xff\xe0"]),
)
def test_pictures_that_are_none_are_refused(data: bytes, start: bytes) -> None:
    """Before anything is decoded."""
    text = base64.b64encode(start + data).decode()
    with contextlib.suppress(PictureRefused, PictureTooLarge), open_picture(text, 10_000, "image") as picture:
        texts_of(picture)


def test_picture_that_is_too_large_is_refused() -> None:
    """By what its header says."""
    with pytest.raises(PictureTooLarge):
        open_picture(_base64(Image.new("1", (300, 300))), 10_000, "image")


@pytest.mark.parametrize("inverted", [False, True])
def test_mask_that_masks_nothing_is_none(inverted: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Black, or white when the mask is inverted; anything else is sent on as it is."""
    nothing, something = (_base64(Image.new("L", (8, 8), 255 * (inverted == white))) for white in (True, False))
    assert mask_of(nothing, inverted=inverted, max_pixels=100) is None
    assert mask_of(something, inverted=inverted, max_pixels=100) == something


def test_mask_drawn_as_transparency_becomes_black_and_white() -> None:
    """Where it is not fully opaque its alpha counts; where it is, its brightness."""
    picture = Image.new("RGBA", (2, 1), (255, 255, 255, 0))
    picture.putpixel((1, 0), (0, 0, 0, 200))
    text = mask_of(_base64(picture), inverted=False, max_pixels=100)
    assert text is not None
    with Image.open(io.BytesIO(base64.b64decode(text))) as mask:
        assert [mask.getpixel((x, 0)) for x in range(2)] == [0, 255]
    opaque = _base64(Image.new("RGBA", (2, 1), (255, 255, 255, 255)))
    assert mask_of(opaque, inverted=False, max_pixels=100) == opaque


def test_refusals_have_the_form_of_fastapi() -> None:
    """A sentence, a list of fields, the code of a job; something unforeseen is a 500 that tells nothing."""
    sentence = refuse(SamplerNotFound("Sampler not found", field="sampler_name"))
    fields = refuse(FieldsRefused([{"loc": ["body", "steps"], "msg": "too many", "type": "x"}]))
    failed = refuse(JobFailed("Too little memory.", error="out_of_memory"))
    unforeseen = refuse(RuntimeError("secret"))
    assert (sentence.status_code, json.loads(bytes(sentence.body))["detail"]) == (400, "Sampler not found")
    assert json.loads(bytes(fields.body))["detail"] == [{"loc": ["body", "steps"], "msg": "too many", "type": "x"}]
    assert (failed.status_code, json.loads(bytes(failed.body))["error"]) == (500, "out_of_memory")
    assert unforeseen.status_code == 500
    assert b"secret" not in unforeseen.body
