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


@pytest.fixture(scope="module")
def source(fleet: FleetProcess) -> Image.Image:
    """Draw one picture for the tests that begin with one."""
    drawn: Image.Image = _client(fleet, fleet.key).txt2img(**SMALL).image
    return drawn


def test_img2img_follows_prompt_and_picture(api: Any, source: Image.Image) -> None:
    """A weak change keeps the picture, a strong one follows the prompt; the answer has the form of txt2img's."""
    asked = SMALL | {"prompt": "a green square on a white background", "images": [source]}
    weak = api.img2img(**asked, denoising_strength=0.1)
    strong = api.img2img(**asked, denoising_strength=1.0)
    near, far = (np.abs(_array(each.image).astype(int) - _array(source)).mean() for each in (weak, strong))
    assert near < far
    assert nearest_colour(border_colour(_array(weak.image))) == "blue"
    assert nearest_colour(border_colour(_array(strong.image))) == "white"
    assert weak.info["denoising_strength"] == 0.1
    assert weak.parameters["init_images"] is None


def test_img2img_with_a_mask_changes_the_masked_part_alone(api: Any, source: Image.Image) -> None:
    """White is drawn anew, whether the mask is grey or drawn as transparency; an empty mask masks nothing."""
    mask = Image.new("L", source.size, 0)
    mask.paste(255, (0, 0, 64, 128))
    asked = SMALL | {"prompt": "a green square on a white background", "images": [source], "mask_blur": 0}
    whole = {"inpaint_full_res": False, "inpainting_fill": 1, "denoising_strength": 1.0}
    painted = api.img2img(**asked, **whole, mask_image=mask)
    before, after = _array(source), _array(painted.image)
    assert np.array_equal(after[:, 72:], before[:, 72:])
    assert not np.array_equal(after[:, :56], before[:, :56])
    clear = Image.new("RGBA", source.size, (0, 0, 0, 0))
    clear.paste((255, 255, 255, 255), (0, 0, 64, 128))
    assert np.array_equal(_array(api.img2img(**asked, **whole, mask_image=clear).image), after)
    blank = api.img2img(**asked, denoising_strength=0.1, mask_image=Image.new("L", source.size, 0))
    plain = api.img2img(**asked, denoising_strength=0.1)
    assert np.array_equal(_array(blank.image), _array(plain.image))


def test_several_init_images_are_drawn_each(api: Any, source: Image.Image) -> None:
    """Picture by picture, with the seeds of one batch."""
    other = Image.new("RGB", source.size, "white")
    done = api.img2img(**SMALL, images=[source, other], batch_size=2, steps=4, denoising_strength=0.3)
    assert done.info["all_seeds"] == [7, 8]
    alone = api.img2img(**SMALL, images=[source], steps=4, denoising_strength=0.3)
    assert np.array_equal(_array(done.images[0]), _array(alone.image))


def test_second_pass_enlarges(api: Any) -> None:
    """Latents or pixels, by A1111's names."""
    for upscaler in ("Latent", "Lanczos"):
        done = api.txt2img(**SMALL, steps=8, enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler, hr_second_pass_steps=4)
        assert done.image.size == (192, 192)
        assert "Hires upscale" in done.info["infotexts"][0]


def test_controlnet_unit_guides_the_picture(api: Any, source: Image.Image) -> None:
    """Through the client's own class; the next call carries no unit."""
    model = next(name for name in api.controlnet_model_list() if name.startswith("shapes-canny"))
    assert "canny" in api.controlnet_module_list()
    unit = webuiapi.ControlNetUnit(image=source, module="canny", model=model, threshold_a=100, threshold_b=200)
    plain = api.txt2img(**SMALL | {"prompt": "a green shape"}, steps=8)
    guided = api.txt2img(**SMALL | {"prompt": "a green shape"}, steps=8, controlnet_units=[unit])
    after = api.txt2img(**SMALL | {"prompt": "a green shape"}, steps=8)
    assert "ControlNet 0" in guided.info["infotexts"][0]
    assert not np.array_equal(_array(guided.image), _array(plain.image))
    assert np.array_equal(_array(after.image), _array(plain.image))


def test_controlnet_detect_finds_edges(api: Any, source: Image.Image) -> None:
    """The preprocessor alone."""
    found = api.controlnet_detect(images=[source], module="canny")
    edges = _array(found.image)
    assert edges.shape[:2] == (128, 128)
    assert set(np.unique(edges)) <= {0, 255}


def test_extras_enlarge_pictures(api: Any, source: Image.Image) -> None:
    """By a factor, to a size, one or several."""
    assert api.extra_single_image(source, upscaler_1="Lanczos", upscaling_resize=2).image.size == (256, 256)
    sized = api.extra_single_image(
        source, upscaler_1="Lanczos", resize_mode=1, upscaling_resize_w=300, upscaling_resize_h=200
    )
    assert sized.image.size == (300, 200)
    several = api.extra_batch_images([source, source.rotate(90)], upscaler_1="Nearest", upscaling_resize=2)
    assert [picture.size for picture in several.images] == [(256, 256)] * 2
    assert api.extra_single_image(source).image.size == source.size


def test_wrong_password_and_wrong_fields_raise_what_they_are(fleet: FleetProcess, api: Any) -> None:
    """The client's own errors carry the status and the sentence."""
    with pytest.raises(RuntimeError, match="401"):
        _client(fleet, "wrong").txt2img(**SMALL)
    with pytest.raises(RuntimeError, match="Sampler not found"):
        api.txt2img(**SMALL, sampler_name="none such")
    with pytest.raises(RuntimeError, match="no_such"):
        api.txt2img(**SMALL, override_settings={"sd_model_checkpoint": "no_such"})
