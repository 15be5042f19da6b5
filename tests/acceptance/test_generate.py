"""The product's main job: a prompt becomes a picture, and the same request the same picture."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from reference_models.judge import border_colour, centre_colour, nearest_colour
from tests.fleet_process import FleetProcess

PROMPT = "a red circle on a blue background"


def _pixels(data: bytes | Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as picture:
        return np.asarray(picture.convert("RGB"))


def _drawn(fleet: FleetProcess, http: httpx.Client, **fields: object) -> list[bytes]:
    view = fleet.wait(http, fleet.submit(http, **fields))  # type: ignore[arg-type]  # a test's keywords
    assert view["state"] == "succeeded", view
    return [http.get(image["url"]).content for image in view["images"]]


def test_generate_draws_what_was_asked(fleet: FleetProcess, tmp_path: Path) -> None:
    """One command, one file: the middle is red, the border blue."""
    out = tmp_path / "out.png"
    done = fleet.command("generate", PROMPT, "--seed", "7", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert nearest_colour(centre_colour(_pixels(out))) == "red"
    assert nearest_colour(border_colour(_pixels(out))) == "blue"


def test_same_seed_gives_the_same_pixels(fleet: FleetProcess, http: httpx.Client) -> None:
    """Again, after other jobs, and inside a job of four pictures; another seed gives another picture."""
    first = _drawn(fleet, http, seed=7)[0]
    other = _drawn(fleet, http, prompt="a green star on a white background", seed=7, scheduler="DDIM")[0]
    again = _drawn(fleet, http, seed=7)[0]
    four = _drawn(fleet, http, seed=4, num_images=4)
    assert len(four) == 4
    np.testing.assert_array_equal(_pixels(again), _pixels(first))
    np.testing.assert_array_equal(_pixels(four[3]), _pixels(first))
    assert not np.array_equal(_pixels(four[0]), _pixels(first))
    assert not np.array_equal(_pixels(other), _pixels(first))


def _user_comment(picture: Image.Image) -> str:
    # EXIF's sub-folder and its UserComment, which begins with the name of its encoding.
    comment: bytes = picture.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    return comment[8:].decode("utf-16-be")


@pytest.mark.parametrize(("form", "mime"), [("png", "image/png"), ("jpeg", "image/jpeg"), ("webp", "image/webp")])
def test_picture_carries_its_parameters(fleet: FleetProcess, http: httpx.Client, form: str, mime: str) -> None:
    """Every format holds the A1111 text; the served bytes are those that were recorded."""
    view = fleet.wait(http, fleet.submit(http, PROMPT, seed=3, steps=4, output={"format": form}))
    image = view["images"][0]
    answer = http.get(image["url"])
    assert answer.headers["content-type"] == image["mime"] == mime
    assert len(answer.content) == image["bytes"]
    assert answer.headers["etag"] == f'"{image["sha256"]}"'
    assert http.get(image["url"], headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    with Image.open(io.BytesIO(answer.content)) as picture:
        text = picture.info["parameters"] if form == "png" else _user_comment(picture)
    assert text.startswith(PROMPT)
    assert "Seed: 3" in text
    assert "Steps: 4" in text


def test_wait_answers_with_the_finished_job(http: httpx.Client) -> None:
    """`?wait=` turns the submit into a synchronous call."""
    answer = http.post("/v1/jobs?wait=60", json={"prompt": PROMPT, "steps": 4})
    assert answer.status_code == 200
    assert answer.json()["state"] == "succeeded"


def test_job_view_is_resolved(fleet: FleetProcess, http: httpx.Client) -> None:
    """Every default is filled in, and a drawn seed draws the same picture again."""
    view = fleet.wait(http, fleet.submit(http, PROMPT, steps=4))
    request = view["request"]
    assert request["model"] == view["model"] == "shapes-sd15"
    assert (request["width"], request["height"]) == (128, 128)
    assert request["seed"] >= 0
    repeated = _drawn(fleet, http, prompt=PROMPT, steps=4, seed=request["seed"])[0]
    assert repeated == http.get(view["images"][0]["url"]).content
