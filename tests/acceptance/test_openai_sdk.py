"""The unmodified `openai` package speaks to a running fleet as it speaks to OpenAI."""

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reference_models.judge import border_colour, centre_colour, nearest_colour
from tests.fleet_process import FleetProcess

PROMPT = "a red circle on a blue background"
SEED: dict[str, Any] = {"seed": 7}
Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


@pytest.fixture
def client(fleet: FleetProcess) -> Iterator[openai.OpenAI]:
    """Return a client with the fleet's first key."""
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key, max_retries=0) as found:
        yield found


def _pixels(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _files(done: Any) -> list[bytes]:
    return [base64.b64decode(each.b64_json) for each in done.data]


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _colours(pixels: Pixels) -> tuple[str | None, str | None]:
    return nearest_colour(centre_colour(pixels)), nearest_colour(border_colour(pixels))


@pytest.fixture(scope="module")
def source(fleet: FleetProcess) -> bytes:
    """Draw one picture for the tests that begin with one."""
    with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key) as client:
        return _files(client.images.generate(prompt=PROMPT, size="128x128", extra_body=SEED))[0]


def test_generate_draws_what_was_asked(client: openai.OpenAI) -> None:
    """Two pictures with a seed each, the model by its name or by one of OpenAI's."""
    done = client.images.generate(model="dall-e-3", prompt=PROMPT, n=2, size="128x128", extra_body=SEED)
    first, second = (_pixels(file) for file in _files(done))
    assert first.shape == (128, 128, 3)
    assert _colours(first) == _colours(second) == ("red", "blue")
    assert not np.array_equal(first, second)
    again = client.images.generate(model="shapes-sd15", prompt=PROMPT, size="auto", extra_body={"seed": 8})
    assert np.array_equal(_pixels(_files(again)[0]), second)


def test_url_holds_the_picture(client: openai.OpenAI, source: bytes) -> None:
    """The same picture as the one that comes inline, in the format asked for."""
    done = client.images.generate(prompt=PROMPT, size="128x128", response_format="url", extra_body=SEED)
    assert done.data is not None
    found = httpx.get(str(done.data[0].url), headers={"authorization": f"Bearer {client.api_key}"})
    assert found.headers["content-type"] == "image/png"
    assert np.array_equal(_pixels(found.content), _pixels(source))


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_output_format_is_the_files(client: openai.OpenAI, output_format: Any) -> None:
    """And a stronger compression makes a smaller file."""
    sizes = []
    for compression in (95, 20):
        done = client.images.generate(
            prompt=PROMPT,
            size="128x128",
            output_format=output_format,
            output_compression=compression,
            extra_body=SEED | {"steps": 4},
        )
        with Image.open(io.BytesIO(_files(done)[0])) as picture:
            assert (picture.format, picture.size) == (output_format.upper(), (128, 128))
        sizes.append(len(_files(done)[0]))
    assert sizes[1] < sizes[0]


def test_edit_with_a_mask_changes_the_clear_part_alone(client: openai.OpenAI, source: bytes) -> None:
    """What the mask leaves opaque is the source's to the bit; the rest follows the prompt."""
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))
    done = client.images.edit(
        image=("a.png", source, "image/png"),
        mask=("m.png", _png(mask), "image/png"),
        prompt="a green square on a white background",
        extra_body=SEED,
    )
    before, after = _pixels(source), _pixels(_files(done)[0])
    assert np.array_equal(after[:, 64:], before[:, 64:])
    assert np.abs(after[:, :56].astype(int) - before[:, :56]).mean() > 10
    cleared = Image.open(io.BytesIO(source)).convert("RGBA")
    cleared.putalpha(mask.getchannel("A"))
    own = client.images.edit(
        image=[_png(cleared)], prompt="a green square on a white background", extra_body=SEED | {"mask_blur": 0}
    )
    assert np.array_equal(_pixels(_files(own)[0])[:, 64:], before[:, 64:])


def test_edit_without_a_mask_follows_prompt_and_picture(client: openai.OpenAI, source: bytes) -> None:
    """A weak change keeps the picture, a strong one follows the prompt; LoRAs of the form are taken."""
    asked: dict[str, Any] = {"image": source, "prompt": "a green square on a white background"}
    weak = client.images.edit(**asked, extra_body=SEED | {"strength": 0.1})
    strong = client.images.edit(**asked, extra_body=SEED | {"strength": 1.0})
    near, far = (np.abs(_pixels(_files(each)[0]).astype(int) - _pixels(source)).mean() for each in (weak, strong))
    assert near < far
    assert _colours(_pixels(_files(weak)[0])) == ("red", "blue")
    assert _colours(_pixels(_files(strong)[0])) == ("green", "white")
    framed = client.images.edit(
        **asked, extra_body=SEED | {"strength": 1.0, "loras": [{"name": "shapes-frame", "weight": 1.0}]}
    )
    assert not np.array_equal(_pixels(_files(framed)[0]), _pixels(_files(strong)[0]))


def test_variation_looks_like_its_source(client: openai.OpenAI, source: bytes) -> None:
    """Other pixels, the same colours; nearer to the source than another picture is."""
    with pytest.warns(DeprecationWarning, match="deprecated"):
        done = client.images.create_variation(image=source, n=2, extra_body=SEED)
    other = client.images.generate(prompt="a green square on a white background", size="128x128", extra_body=SEED)
    first, second = (_pixels(file) for file in _files(done))
    assert not np.array_equal(first, second)
    away = np.abs(_pixels(_files(other)[0]).astype(int) - _pixels(source)).mean()
    for each in (first, second):
        assert nearest_colour(border_colour(each)) == "blue"
        assert np.abs(each.astype(int) - _pixels(source)).mean() < away / 2


def test_stream_shows_the_picture_forming(client: openai.OpenAI, source: bytes) -> None:
    """Partial pictures differ and come nearer to the one that completes; it is the one that comes without a stream."""
    events: list[Any] = list(
        client.images.generate(prompt=PROMPT, size="128x128", stream=True, partial_images=3, extra_body=SEED)
    )
    partials = [event for event in events if event.type == "image_generation.partial_image"]
    assert 2 <= len(partials) <= 3
    assert [event.partial_image_index for event in partials] == list(range(len(partials)))
    assert [event.type for event in events[len(partials) :]] == ["image_generation.completed"]
    final = _pixels(base64.b64decode(events[-1].b64_json))
    assert np.array_equal(final, _pixels(source))
    distances = []
    for event in partials:
        with Image.open(io.BytesIO(base64.b64decode(event.b64_json))) as picture:
            assert picture.format == "PNG"
            shown = np.asarray(picture.convert("RGB").resize((128, 128)))
        distances.append(np.abs(shown.astype(int) - final).mean())
    assert len(set(distances)) == len(distances)
    assert distances[-1] < distances[0]
    assert _colours(shown) == _colours(final)


def test_edit_streams_too(client: openai.OpenAI, source: bytes) -> None:
    """Its events have names of their own."""
    stream = client.images.edit(
        image=source, prompt="a green square on a white background", stream=True, partial_images=1, extra_body=SEED
    )
    kinds = [event.type for event in stream]
    assert kinds[-1] == "image_edit.completed"
    assert set(kinds[:-1]) <= {"image_edit.partial_image"}


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    """Each that is listed can be read."""
    listed = [model.id for model in client.models.list()]
    assert "shapes-sd15" in listed
    assert client.models.retrieve(listed[0]).id == listed[0]


ERRORS: list[tuple[Callable[[openai.OpenAI], Any], type[openai.APIStatusError], str | None, str]] = [
    (lambda api: api.images.generate(prompt="x", size="129x128"), openai.BadRequestError, "size", "invalid_request"),
    (lambda api: api.images.generate(prompt="x", model="none"), openai.BadRequestError, "model", "model_unknown"),
    (
        lambda api: api.images.generate(prompt="x", extra_body={"clip_skip": 12}),
        openai.BadRequestError,
        "clip_skip",
        "option_unsupported",
    ),
    (lambda api: api.models.retrieve("none"), openai.NotFoundError, None, "not_found"),
    (
        lambda api: api.with_options(api_key="wrong").images.generate(prompt="x"),
        openai.AuthenticationError,
        None,
        "key_invalid",
    ),
]


@pytest.mark.parametrize(
    ("call", "kind", "param", "code"), ERRORS, ids=["size", "model", "clip_skip", "retrieve", "key"]
)
def test_error_is_the_clients_own(client: openai.OpenAI, call: Any, kind: Any, param: str | None, code: str) -> None:
    """With the field at fault and a code."""
    with pytest.raises(kind) as refused:
        call(client)
    assert (refused.value.param, refused.value.code) == (param, code)


def _native(http: httpx.Client) -> bytes:
    job = http.post("/v1/jobs", params={"wait": 60}, json={"prompt": PROMPT, **SEED}).json()
    return http.get(job["images"][0]["url"]).content


def _a1111(http: httpx.Client) -> bytes:
    return base64.b64decode(http.post("/sdapi/v1/txt2img", json={"prompt": PROMPT, **SEED}).json()["images"][0])


def _openai(http: httpx.Client) -> bytes:
    body = http.post("/v1/images/generations", json={"prompt": PROMPT, **SEED}).json()
    return base64.b64decode(body["data"][0]["b64_json"])


@pytest.mark.parametrize("door", [_native, _a1111, _openai], ids=["native", "a1111", "openai"])
def test_one_job_is_seen_the_same_through_all_doors(
    http: httpx.Client, source: bytes, door: Callable[[httpx.Client], bytes]
) -> None:
    """Its picture is the one that every door draws, is read back to the byte, and is drawn again from its own text."""
    given = door(http)
    assert np.array_equal(_pixels(given), _pixels(source))
    job = http.get("/v1/jobs").json()["items"][0]
    result = http.get("/v1/results").json()["items"][0]
    assert (job["state"], job["request"]["prompt"], job["request"]["seed"]) == ("succeeded", PROMPT, 7)
    assert (result["job"], result["index"], result["prompt"]) == (job["id"], 0, PROMPT)
    assert result["sha256"] == job["images"][0]["sha256"]
    assert http.get(job["images"][0]["url"]).content == http.get(result["url"]).content == given
    # Once from our own metadata, once from A1111's text alone.
    text = PngInfo()
    bare = io.BytesIO()
    with Image.open(io.BytesIO(given)) as picture:
        text.add_text("parameters", picture.info["parameters"])
        picture.save(bare, "PNG", pnginfo=text)
    for file in (given, bare.getvalue()):
        body = {"image": base64.b64encode(file).decode()}
        again = http.post("/v1/replay", params={"wait": 60}, json=body).json()
        assert np.array_equal(_pixels(http.get(again["images"][0]["url"]).content), _pixels(given))


def test_documented_examples_run(fleet: FleetProcess, tmp_path: Path) -> None:
    """Those of the page about doors, word for word, against this fleet."""
    page = (Path(__file__).parents[2] / "docs" / "doors.md").read_text(encoding="utf-8")
    section = page[page.index("## OpenAI") :]
    blocks = re.findall(r"```(python|sh)\n(.*?)```", section, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["python", "sh"]
    for kind, text in blocks:
        program = [sys.executable, "-c"] if kind == "python" else ["bash", "-euc"]
        done = subprocess.run(
            [*program, text.replace("http://127.0.0.1:8420", fleet.url)],
            env=os.environ | {"KEY": fleet.key},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "shapes-sd15" in done.stdout or '"b64_json"' in done.stdout
    names = {"drawn.png", "image_generation.partial_image.png", "image_generation.completed.png"}
    assert {file.name for file in tmp_path.iterdir()} == names
