"""Draw again: a job, and what a picture's file says."""

import base64
import io
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base
from PIL.PngImagePlugin import PngInfo

from jobs.contract import PARAMETERS
from jobs.parts import Output
from workers.encoding import encode
from workers.engines.interface import Pictured

INFOTEXT = (
    "a red circle\non blue\nNegative prompt: blurry, dark\nSteps: 12, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4.5, Seed: 77, "
    "Size: 64x96, Model hash: 0a1b2c3d4e, Model: shapes-sd15, Clip skip: 2, Version: v1.10"
)


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def text64(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()


def file_with(infotext: str, kind: str = "PNG") -> bytes:
    """Return a picture with A1111's text in it."""
    file = io.BytesIO()
    picture = Image.new("RGB", (8, 8))
    if kind == "PNG":
        info = PngInfo()
        info.add_text("parameters", infotext)
        picture.save(file, "PNG", pnginfo=info)
    else:
        exif = Image.Exif()
        exif.get_ifd(IFD.Exif)[Base.UserComment] = b"UNICODE\0" + infotext.encode("utf-16-be")
        picture.save(file, kind, exif=exif.tobytes())
    return file.getvalue()


def test_replayed_job_asks_for_the_same(live: Any, world: Any) -> None:
    """Every field as it was resolved, the drawn seed too; changes change, and null takes the default again."""
    with live.client(world.key()) as client:
        asked = {"prompt": "x", "steps": 7, "scheduler": "DPM++ 2M Karras", "labels": {"a": "b"}, "clip_skip": 2}
        first = client.post("/v1/jobs", json=asked).json()
        again = client.post(f"/v1/jobs/{first['id']}/replay", json={})
        assert again.status_code == 202
        assert again.json()["request"] == first["request"]
        assert again.json()["id"] != first["id"]
        changes = {"scheduler": "Euler a", "steps": None, "seed": 3}
        other = client.post(f"/v1/jobs/{first['id']}/replay", json={"changes": changes}).json()["request"]
        assert (other["scheduler"], other["schedule_type"], other["steps"], other["seed"]) == ("Euler a", None, 25, 3)
        refused = client.post(f"/v1/jobs/{first['id']}/replay", json={"changes": {"nonsense": 1}})
        assert (refused.status_code, refused.json()["field"]) == (422, "nonsense")


def test_foreign_job_is_not_replayed(live: Any, world: Any) -> None:
    """It looks like one that is not there."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()["id"]
        assert other.post(f"/v1/jobs/{job}/replay", json={}).json()["code"] == "not_found"
        assert other.post(f"/v1/jobs/{uuid4()}/replay", json={}).json()["code"] == "not_found"


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_own_picture_is_replayed(live: Any, world: Any, kind: str) -> None:
    """A file a worker wrote holds everything needed, whatever its format."""
    with live.client(world.key()) as client:
        first = client.post("/v1/jobs", json={"prompt": "a <b> & c", "seed": 7, "num_images": 2, "steps": 9}).json()
        parameters = PARAMETERS["txt2img"].model_validate(first["request"])
        parameters = parameters.model_copy(update={"output": Output.model_validate({"format": kind})})
        pixels = Pictured(job=uuid4(), epoch=1, index=1, seed=8, width=8, height=8, rgb=bytes(8 * 8 * 3))
        data = encode(pixels, parameters, None).data
        again = client.post("/v1/replay", json={"image": text64(data)})
        assert again.status_code == 202, again.text
        request = again.json()["request"]
    assert (request["prompt"], request["seed"], request["steps"], request["num_images"]) == ("a <b> & c", 8, 9, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_picture_of_a1111_is_replayed(live: Any, world: Any, kind: str) -> None:
    """Its text is understood, in every format it is written in, and with a data URI as well."""
    with live.client(world.key()) as client:
        image = "data:image/png;base64," + text64(file_with(INFOTEXT, kind))
        request = client.post("/v1/replay", json={"image": image}).json()["request"]
    expected = {
        "prompt": "a red circle\non blue", "negative_prompt": "blurry, dark", "steps": 12, "scheduler": "DPM++ 2M",
        "schedule_type": "karras", "guidance_scale": 4.5, "seed": 77, "width": 64, "height": 96, "model": "shapes-sd15", "clip_skip": 2,
    }  # fmt: skip
    assert request | expected == request


def test_model_that_is_not_here_can_be_changed(live: Any, world: Any) -> None:
    """The refusal names the field, and `changes` cures it."""
    text = INFOTEXT.replace("Model: shapes-sd15", "Model: somebodysMix")
    with live.client(world.key()) as client:
        image = text64(file_with(text))
        refused = client.post("/v1/replay", json={"image": image})
        assert (refused.status_code, refused.json()["field"]) == (422, "model")
        assert client.post("/v1/replay", json={"image": image, "changes": {"model": None}}).status_code == 202


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ("not base64!", "picture_refused"),
        (text64(b"not a picture"), "picture_refused"),
        (text64(file_with("Steps: x")[:60]), "picture_refused"),
        (text64(file_with("")), "metadata_missing"),
    ],
)
def test_file_that_says_nothing_is_refused(live: Any, world: Any, image: str, code: str) -> None:
    """What is no picture, or says nothing of how it was made, is named as such."""
    with live.client(world.key()) as client:
        answer = client.post("/v1/replay", json={"image": image})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, "image")


def test_hostile_metadata_is_refused_as_a_request_is(live: Any, world: Any) -> None:
    """What a file claims is checked like anything else a client sends."""
    for claimed in ('{"task": "txt2img", "prompt": "x", "steps": 100000}', '{"task": 5}', "[" * 100_000, '"x"'):
        info = PngInfo()
        info.add_text("imagefleet", claimed)
        file = io.BytesIO()
        Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=info)
        with live.client(world.key()) as client:
            assert client.post("/v1/replay", json={"image": text64(file.getvalue())}).status_code == 422, claimed[:50]
