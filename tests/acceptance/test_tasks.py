"""Every task that draws with the checkpoint, from the request to the stored picture, judged by its pixels."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from reference_models.judge import border_colour, centre_colour, nearest_colour
from tests.fleet_process import FleetProcess

PROMPT = "a red circle on a blue background"


def pixels(data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    """Return a file's pixels."""
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def inline(array: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> str:
    """Return pixels as requests carry them."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def drawn(fleet: FleetProcess, http: httpx.Client, **fields: Any) -> tuple[dict[str, Any], bytes]:
    """Have a job drawn and return its view and its only picture."""
    view = fleet.wait(http, http.post("/v1/jobs", json={"seed": 7, **fields}).raise_for_status().json()["id"])
    assert view["state"] == "succeeded", view
    return view, http.get(view["images"][0]["url"]).content


@pytest.fixture(scope="module")
def source(fleet: FleetProcess) -> str:
    """Have the picture drawn that others start from, and return its job's name for it."""
    with fleet.client() as http:
        view, _ = drawn(fleet, http, prompt=PROMPT)
        return f"job:{view['id']}/0"


def test_img2img_starts_from_a_picture(fleet: FleetProcess, http: httpx.Client, source: str) -> None:
    """Little strength stays nearer to the picture than much, which follows the prompt; the file says what it was made of."""
    prompt = "a green circle on a blue background"
    _, before = drawn(fleet, http, prompt=PROMPT)
    view, little = drawn(fleet, http, task="img2img", prompt=prompt, image=source, strength=0.2)
    _, much = drawn(fleet, http, task="img2img", prompt=prompt, image=source, strength=0.95)
    assert nearest_colour(centre_colour(pixels(much))) == "green"
    assert (
        np.abs(pixels(little).astype(int) - pixels(before)).mean()
        < np.abs(pixels(much).astype(int) - pixels(before)).mean()
    )
    with Image.open(io.BytesIO(little)) as picture:
        said = json.loads(picture.info["imagefleet"])
    assert said["image"] == view["request"]["image"]
    assert said["image"].startswith("upload:")


def test_inpaint_changes_the_mask_alone(fleet: FleetProcess, http: httpx.Client, source: str) -> None:
    """The centre becomes another shape; outside the mask every bit is the source's."""
    _, before = drawn(fleet, http, prompt=PROMPT)
    size = pixels(before).shape[0]
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : -size // 4, size // 4 : -size // 4] = 255
    _, after = drawn(
        fleet, http, task="inpaint", prompt="a yellow circle on a blue background", image=source, mask=inline(mask)
    )
    outside = mask == 0
    np.testing.assert_array_equal(pixels(after)[outside], pixels(before)[outside])
    assert not np.array_equal(pixels(after)[~outside], pixels(before)[~outside])


def test_outpaint_and_hires_end_at_their_sizes(fleet: FleetProcess, http: httpx.Client, source: str) -> None:
    """A grown picture holds the source bit for bit; a second pass is larger and shows the same."""
    _, before = drawn(fleet, http, prompt=PROMPT)
    size = pixels(before).shape[0]
    _, grown = drawn(fleet, http, task="inpaint", prompt="a blue background", image=source, outpaint={"right": 32})
    assert pixels(grown).shape == (size, size + 32, 3)
    np.testing.assert_array_equal(pixels(grown)[:, :size], pixels(before))
    _, large = drawn(fleet, http, prompt=PROMPT, hires={"scale": 1.5, "strength": 0.4, "upscaler": "lanczos"})
    assert pixels(large).shape == (size * 3 // 2, size * 3 // 2, 3)
    assert nearest_colour(centre_colour(pixels(large))) == "red"
    assert nearest_colour(border_colour(pixels(large))) == "blue"


def test_command_line_starts_from_a_file(fleet: FleetProcess, tmp_path: Path) -> None:
    """A file is uploaded, redrawn and written."""
    source, out = tmp_path / "in.png", tmp_path / "out.png"
    first = fleet.command("generate", PROMPT, "--seed", "7", "-o", str(source))
    assert first.returncode == 0, first.stderr
    done = fleet.command("generate", PROMPT, "--image", str(source), "--strength", "0.2", "--seed", "7", "-o", str(out))
    assert done.returncode == 0, done.stderr
    assert nearest_colour(centre_colour(pixels(out.read_bytes()))) == "red"
