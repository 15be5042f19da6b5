"""The unmodified `webuiapi` package speaks to a running fleet as it speaks to A1111."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
import webuiapi
from PIL import Image

from reference_models.judge import border_colour, centre_colour, nearest_colour
from tests.fleet_process import FleetProcess, eventually

PROMPT = "a red circle on a blue background"
SMALL: dict[str, Any] = {"prompt": PROMPT, "width": 128, "height": 128, "seed": 7}


def _client(fleet: FleetProcess, key: str) -> Any:
    return webuiapi.WebUIApi(host="127.0.0.1", port=fleet.port, username="anyone", password=key)


@pytest.fixture
def api(fleet: FleetProcess) -> Any:
    """Return a client with the fleet's first key as its password."""
    return _client(fleet, fleet.key)


@pytest.fixture
def new_key(http: httpx.Client) -> Callable[[str], str]:
    """Return a way to make a key of an owner."""
    return lambda owner: str(http.post("/v1/keys", json={"name": "webuiapi", "owner": owner}).json()["key"])


def _array(picture: Image.Image) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return np.asarray(picture.convert("RGB"))


def _beside(call: Callable[[], Any]) -> Callable[[], Any]:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()

    def result() -> Any:
        thread.join(120)
        return found[0]

    return result


def test_txt2img_draws_what_was_asked(api: Any) -> None:
    """Two pictures with a seed and an infotext each; the first shows the prompt's colours and carries its parameters."""
    done = api.txt2img(**SMALL, batch_size=2, sampler_name="DPM++ 2M", scheduler="Karras")
    assert [picture.size for picture in done.images] == [(128, 128)] * 2
    assert nearest_colour(centre_colour(_array(done.image))) == "red"
    assert nearest_colour(border_colour(_array(done.image))) == "blue"
    assert done.info["all_seeds"] == [7, 8]
    assert done.info["infotexts"][0] == done.image.info["parameters"]
    assert done.info["infotexts"][0].startswith(PROMPT)
    assert done.parameters["sampler_name"] == "DPM++ 2M"
    assert done.info["notes"] == []


def test_png_info_reads_the_picture_back(api: Any) -> None:
    """What a picture says of itself is what was asked."""
    done = api.txt2img(**SMALL, steps=4)
    read = api.png_info(done.image)
    assert read.info == done.info["infotexts"][0]
    assert read.parameters["Seed"] == "7"


def test_client_finds_controlnet(api: Any) -> None:
    """Otherwise it would carry ControlNet units from one call into the next."""
    assert api.has_controlnet


def test_options_choose_the_model_of_this_key(fleet: FleetProcess, api: Any, new_key: Any) -> None:
    """The checkpoint is named by its title, is kept for the key, and another key never sees it."""
    title = api.get_sd_models()[0]["title"]
    other = _client(fleet, new_key("bob"))
    assert api.set_options({"sd_model_checkpoint": title, "samples_format": "webp"}) is None
    try:
        assert api.get_options()["sd_model_checkpoint"] == title
        assert api.txt2img(**SMALL, steps=2).image.format == "WEBP"
        assert other.get_options()["samples_format"] == "png"
    finally:
        api.set_options({"samples_format": "png"})


def test_lists_are_read(api: Any) -> None:
    """Every list of the client gives something it can use."""
    assert "Euler a" in {sampler["name"] for sampler in api.get_samplers()}
    assert "karras" in {scheduler["name"] for scheduler in api.get_schedulers()}
    assert api.get_upscalers()[0]["name"] == "None"
    for read in (api.get_cmd_flags, api.get_memory, api.get_embeddings, api.get_scripts):
        assert isinstance(read(), dict)
    for read in (
        api.get_sd_vae, api.get_loras, api.get_hypernetworks, api.get_face_restorers, api.get_realesrgan_models,
        api.get_prompt_styles, api.get_latent_upscale_modes,
    ):  # fmt: skip
        assert isinstance(read(), list)
    assert isinstance(api.refresh_checkpoints(), dict)


def test_progress_and_interrupt(api: Any) -> None:
    """While a picture forms its progress grows and a preview shows; an interrupt ends the call without a picture."""
    result = _beside(lambda: api.txt2img(**SMALL, steps=200, n_iter=8))

    def forming() -> Any:
        seen = api.get_progress()
        return seen if seen["current_image"] else None

    seen = eventually(forming)
    assert 0 < seen["progress"] < 1
    assert seen["state"]["job_count"] == 8
    eventually(lambda: api.get_progress()["progress"] > seen["progress"])
    assert api.interrupt() == {}
    stopped = result()
    assert stopped.images == []
    assert stopped.info["interrupted"]
    idle = api.get_progress()
    assert (idle["progress"], idle["state"]["job_count"]) == (0, 0)


def test_two_keys_never_meet(fleet: FleetProcess, http: httpx.Client, new_key: Any) -> None:
    """One key's interrupt, progress and options leave the other's call alone, which draws the picture it would have drawn."""
    ann, bob = (_client(fleet, new_key(owner)) for owner in ("ann", "bob"))
    alone = bob.txt2img(**SMALL, steps=10)
    long = _beside(lambda: ann.txt2img(**SMALL, steps=200, n_iter=8))
    eventually(lambda: ann.get_progress()["progress"] > 0)
    assert bob.get_progress()["state"]["job_count"] == 0
    # There is nothing of bob's to stop.
    assert bob.interrupt() == {}
    again = bob.txt2img(**SMALL, steps=10)
    assert np.array_equal(_array(again.image), _array(alone.image))
    assert ann.get_progress()["state"]["job_count"] == 8
    assert ann.interrupt() == {}
    assert long().images == []
    owners = {job["labels"]["sdapi_key"] for job in (item["request"] for item in http.get("/v1/jobs").json()["items"])}
    assert len(owners) >= 2


def test_wrong_password_and_wrong_fields_raise_what_they_are(fleet: FleetProcess, api: Any) -> None:
    """The client's own errors carry the status and the sentence."""
    with pytest.raises(RuntimeError, match="401"):
        _client(fleet, "wrong").txt2img(**SMALL)
    with pytest.raises(RuntimeError, match="Sampler not found"):
        api.txt2img(**SMALL, sampler_name="none such")
    with pytest.raises(RuntimeError, match="no_such"):
        api.txt2img(**SMALL, override_settings={"sd_model_checkpoint": "no_such"})
