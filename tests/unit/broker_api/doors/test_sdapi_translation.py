"""A1111's and SD.Next's requests become ours, field by field."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker_api.doors.sdapi.choices import Choices
from broker_api.doors.sdapi.controls import options_of, preprocessor_of
from broker_api.doors.sdapi.payloads import Img2Img, Txt2Img
from broker_api.doors.sdapi.prefilled import prefilled
from broker_api.doors.sdapi.refusals import FieldsRefused, SamplerNotFound, ScriptRefused, ThingNotFound
from broker_api.doors.sdapi.translation import Translated, img2img, request_of, txt2img, upscaler_of
from jobs.contract import Img2ImgRequest, InpaintRequest, Txt2ImgRequest
from jobs.parts import Output, Refiner
from models_registry.entries import Kind, Layout, ModelEntry


def model(family: str, variant: str) -> ModelEntry:
    """Make a checkpoint of a family."""
    return ModelEntry(
        name="m", kind=Kind.CHECKPOINT, layout=Layout.DIFFUSERS, family=family, variant=variant, path=Path("m"),
        fingerprint="0" * 64, components=(), native_size=128, latent_factor=8, latent_channels=4,
    )  # fmt: skip


LABELS = {"sdapi_key": "k"}
NONE = Choices()
PICTURE = "data:image/png;base64,AAAA"


def _text(usual: Choices = NONE, **fields: Any) -> Translated:
    return txt2img(Txt2Img.model_validate(fields), usual, LABELS)


def _one(usual: Choices = NONE, **fields: Any) -> Txt2ImgRequest:
    found = _text(usual, **fields).requests[0]
    assert isinstance(found, Txt2ImgRequest)
    return found


def _pictures(**fields: Any) -> Translated:
    return img2img(Img2Img.model_validate({"init_images": [PICTURE]} | fields), NONE, LABELS, seed=50)


def _inpaint(**fields: Any) -> InpaintRequest:
    found = _pictures(mask="bWFzaw==", **fields).requests[0]
    assert isinstance(found, InpaintRequest)
    return found


def _refused(call: Any) -> list[Any]:
    with pytest.raises(FieldsRefused) as caught:
        call()
    return [detail["loc"] for detail in caught.value.details]


def test_txt2img_says_the_same_in_our_words() -> None:
    """Every common field arrives under its own name here."""
    asked = _one(
        prompt="a cat", negative_prompt="blur", seed=7, steps=12, cfg_scale=5, width=192, height=128, batch_size=2, n_iter=3,
        sampler_name="DPM++ 2M", scheduler="Karras",
        override_settings={"sd_model_checkpoint": "m [0123456789]", "sd_vae": "v", "CLIP_stop_at_last_layers": 2, "samples_format": "jpg"},
    )  # fmt: skip
    assert asked == Txt2ImgRequest(
        prompt="a cat", negative_prompt="blur", seed=7, steps=12, guidance_scale=5, width=192, height=128, num_images=6,
        scheduler="DPM++ 2M", schedule_type="Karras", model="m [0123456789]", vae="v", clip_skip=2,
        output=Output(format="jpeg"), labels=LABELS,
    )  # fmt: skip


def test_txt2img_leaves_what_is_left_out_to_the_model() -> None:
    """No default of another program takes the place of the model's own; null is the same as absent."""
    bare = Txt2ImgRequest(prompt="a", labels=LABELS)
    assert _one(prompt="a") == bare
    assert _one(prompt="a", steps=None, sampler_name=None, hr_scheduler=None, url="http://x", auth="secret") == bare
    assert _one(prompt="a", sampler_index=0, sampler_name="Default", scheduler="automatic") == bare


def test_sampler_name_may_carry_its_schedule() -> None:
    """`sampler_name` wins over `sampler_index`; the schedule stands beside it, behind it, or is the sampler's own."""
    assert _one(prompt="a", sampler_name="Euler a", sampler_index="DDIM", scheduler="automatic").scheduler == "Euler a"
    assert _one(prompt="a", sampler_index="DDIM").scheduler == "DDIM"
    asked = _one(prompt="a", sampler_name="DPM++ 2M Karras")
    assert (asked.scheduler, asked.schedule_type) == ("DPM++ 2M Karras", "automatic")


def test_sampler_that_is_unknown_is_refused() -> None:
    """With the words of A1111."""
    with pytest.raises(SamplerNotFound, match="Sampler not found"):
        _text(prompt="a", sampler_name="no such sampler")


@pytest.mark.parametrize("scheduler", ["karras", "turbo"])
def test_schedule_that_the_sampler_cannot_follow_is_noted(scheduler: str) -> None:
    """The originals draw every pair, so it is drawn with the sampler's own, and said."""
    found = _text(prompt="a", sampler_name="Euler a", scheduler=scheduler)
    assert isinstance(found.requests[0], Txt2ImgRequest)
    assert found.requests[0].schedule_type == "automatic"
    assert len(found.notes) == 1


def test_sizes_are_rounded_down_as_the_originals_do() -> None:
    """A latent covers 8 pixels, of some families 16."""
    assert (_one(prompt="a", width=515, height=519).width, _one(prompt="a", height=519).height) == (512, 512)
    sixteen = txt2img(Txt2Img(prompt="a", width=520), NONE, LABELS, model("flux", "dev")).requests[0]
    assert isinstance(sixteen, Txt2ImgRequest)
    assert sixteen.width == 512


def _for(entry: ModelEntry, **fields: Any) -> tuple[Txt2ImgRequest, list[str]]:
    asked = {"prompt": "a", "negative_prompt": "blur", "cfg_scale": 7, "sampler_name": "Euler a", "clip_skip": 2}
    found = txt2img(Txt2Img.model_validate(asked | fields), NONE, LABELS, entry)
    request = found.requests[0]
    assert isinstance(request, Txt2ImgRequest)
    return request, found.notes


def test_what_a_model_has_no_use_for_is_left_out() -> None:
    """Clients send a negative prompt, a guidance and a sampler with whatever they draw; the originals drop what says nothing."""
    dev, notes = _for(model("flux", "dev"))
    assert (dev.negative_prompt, dev.guidance_scale, dev.clip_skip, dev.scheduler) == ("", None, 1, None)
    assert notes == ["Euler a cannot draw with this model, which takes its own"]
    guided, _ = _for(model("flux", "dev"), distilled_cfg_scale=2.5, sampler_name="Euler", scheduler="Beta")
    assert (guided.guidance_scale, guided.scheduler, guided.schedule_type) == (2.5, "Euler", "Beta")
    schnell, _ = _for(model("flux", "schnell"), distilled_cfg_scale=2.5)
    assert (schnell.negative_prompt, schnell.guidance_scale) == ("", None)
    medium, _ = _for(model("sd3", "medium"), sampler_name="Euler")
    assert (medium.negative_prompt, medium.guidance_scale, medium.clip_skip) == ("blur", 7, 1)
    plain, notes = _for(model("sdxl", "turbo"))
    assert (plain.negative_prompt, plain.guidance_scale, plain.clip_skip, plain.scheduler) == ("blur", 7, 2, "Euler a")
    assert notes == []


def test_a_refiner_takes_over() -> None:
    """SDXL's second checkpoint is named as the originals name it; where it never takes over, nothing is asked of it."""
    found = _one(prompt="a", refiner_checkpoint="refiner [0123456789]", refiner_switch_at=0.7)
    assert found.refiner == Refiner(model="refiner [0123456789]", switch_at=0.7)
    assert _one(prompt="a", refiner_checkpoint="refiner").refiner == Refiner(model="refiner", switch_at=0.8)
    assert _one(prompt="a", refiner_checkpoint="None").refiner is None
    never = _text(prompt="a", refiner_checkpoint="refiner", refiner_switch_at=1.0)
    assert isinstance(never.requests[0], Txt2ImgRequest)
    assert (never.requests[0].refiner, len(never.notes)) == (None, 1)
    assert _pictures(prompt="a", refiner_checkpoint="refiner").notes == ["refiner_checkpoint is ignored"]


def test_settings_of_the_request_stand_over_those_of_the_key() -> None:
    """`override_settings`, then SD.Next's own fields, then what the key has chosen."""
    usual = Choices(sd_model_checkpoint="usual", sd_vae="v", samples_format="webp")
    assert _one(usual, prompt="a").model == "usual"
    assert _one(usual, prompt="a", sd_model_checkpoint="top").model == "top"
    asked = _one(usual, prompt="a", sd_model_checkpoint="top", override_settings={"sd_model_checkpoint": "own"})
    assert (asked.model, asked.vae, asked.output.format) == ("own", "v", "webp")
    assert _one(usual, prompt="a", override_settings={"sd_vae": "Automatic"}).vae == "v"


def test_hires_becomes_a_second_pass() -> None:
    """By a scale, by a target, and in the old form; the first pass keeps its size."""
    asked = _one(
        prompt="a", width=128, height=128, enable_hr=True, hr_upscaler="Latent (nearest)", hr_second_pass_steps=5
    )
    assert asked.hires is not None
    assert (asked.hires.scale, asked.hires.upscaler, asked.hires.steps, asked.hires.strength) == (2, "latent", 5, 0.75)
    wide = _one(prompt="a", width=128, height=64, enable_hr=True, hr_resize_x=384, denoising_strength=0.4)
    assert wide.hires is not None
    assert (wide.hires.scale, wide.hires.strength) == (3, 0.4)
    old = _one(prompt="a", width=256, height=256, enable_hr=True, firstphase_width=128, firstphase_height=128)
    assert old.hires is not None
    assert (old.width, old.height, old.hires.scale) == (128, 128, 2)
    assert _one(prompt="a", hr_scale=2, denoising_strength=0.7).hires is None


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("Latent", "latent"),
        ("Latent (bicubic)", "latent"),
        ("Lanczos", "lanczos"),
        ("None", "lanczos"),
        ("4x-My", "4x-My"),
    ],
)
def test_upscaler_names(theirs: str, ours: str) -> None:
    """A1111's resamplers have our names; others are models."""
    assert upscaler_of(theirs) == ours


def test_img2img_draws_from_the_picture() -> None:
    """The strength is A1111's default where it is left out."""
    found = _pictures(prompt="a", resize_mode=1).requests
    assert found == [
        Img2ImgRequest(task="img2img", prompt="a", image=PICTURE, strength=0.75, resize_mode="crop", labels=LABELS)
    ]


def test_img2img_without_a_picture_is_not_found() -> None:
    """As A1111 says it."""
    with pytest.raises(ThingNotFound, match="Init image not found"):
        _pictures(init_images=[])


def test_img2img_with_a_mask_is_inpainting() -> None:
    """All its fields; the masked area alone is the usual way."""
    asked = _inpaint(mask_blur=2, inpainting_fill=2, inpaint_full_res_padding=16, inpainting_mask_invert=1)
    assert (asked.mask, asked.mask_blur, asked.masked_content, asked.inpaint_area) == ("bWFzaw==", 2, "noise", "masked")
    assert (asked.inpaint_padding, asked.mask_invert) == (16, True)
    assert _inpaint(inpaint_full_res=0).inpaint_area == "whole"
    assert _inpaint(mask_blur_x=1, mask_blur_y=9).mask_blur == 9


def test_several_init_images_are_several_jobs() -> None:
    """Picture after picture as A1111 orders them, with a seed each; more than the batch has are refused."""
    found = _pictures(init_images=["YQ==", "Yg=="], batch_size=2, n_iter=2).requests
    assert [(each.image, each.seed) for each in found if isinstance(each, Img2ImgRequest)] == [
        ("YQ==", 50), ("Yg==", 51), ("YQ==", 52), ("Yg==", 53),
    ]  # fmt: skip
    assert _refused(lambda: _pictures(init_images=["YQ==", "Yg=="])) == [["body", "init_images"]]
    many = {"init_images": ["YQ==", "Yg=="], "batch_size": 2, "n_iter": 33}
    assert _refused(lambda: _pictures(**many)) == [["body", "n_iter"]]


def test_addresses_of_pictures_are_refused() -> None:
    """Nobody makes the fleet fetch what it is told to."""
    assert _refused(lambda: _pictures(init_images=["http://169.254.169.254/"])) == [["body", "init_images", 0]]
    assert _refused(lambda: _pictures(mask="https://x/")) == [["body", "mask"]]


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"steps": 0}, ["steps"]),
        ({"cfg_scale": -1}, ["cfg_scale"]),
        ({"n_iter": 9, "batch_size": 8}, ["n_iter"]),
        ({"prompt": "a\0"}, ["prompt"]),
        ({"enable_hr": True, "hr_scale": 9}, ["hr_scale"]),
        ({"override_settings": {"CLIP_stop_at_last_layers": 0}}, ["override_settings", "CLIP_stop_at_last_layers"]),
        ({"force_task_id": "\0"}, []),
    ],
)
def test_refusals_name_their_fields(fields: dict[str, Any], where: list[str]) -> None:
    """Not ours: the sender has never heard of `guidance_scale`."""
    if not where:
        labels = {"sdapi_task": fields["force_task_id"]}
        found = _refused(lambda: txt2img(Txt2Img(prompt="a"), NONE, labels))
        assert found == [["body", "force_task_id"]]
        return
    assert _refused(lambda: _text(**({"prompt": "a"} | fields))) == [["body", *where]]


@pytest.mark.parametrize("fields", [{"n_iter": 0}, {"batch_size": 0}, {"n_iter": 10**9}, {"hr_resize_x": 10**9}])
def test_counts_outside_their_bounds_are_refused(fields: dict[str, Any]) -> None:
    """Before anything is counted out."""
    with pytest.raises(ValidationError):
        Txt2Img.model_validate(fields)


def test_scripts_that_are_unknown_are_refused() -> None:
    """A selectable and an always-on one, in A1111's words; those that clients always send are let pass."""
    with pytest.raises(ScriptRefused, match="Script 'xyz' not found"):
        _text(prompt="a", script_name="xyz")
    with pytest.raises(ScriptRefused, match="always on script nonsense not found"):
        _text(prompt="a", alwayson_scripts={"nonsense": {"args": []}})
    off = _text(
        prompt="a", script_name="None", alwayson_scripts={"ADetailer": {"args": [False]}, "ControlNet": {"args": []}}
    )
    assert off.notes == []
    assert _text(prompt="a", alwayson_scripts={"ADetailer": {"args": [True, {}]}}).notes == [
        "the script ADetailer is not here"
    ]


def test_what_is_not_done_is_noted() -> None:
    """What a client asks for and does not get is said; values that mean "not set" are not."""
    quiet: dict[str, Any] = {
        "eta": 1.0,
        "s_churn": 0,
        "s_tmax": 0,
        "s_tmin": 0,
        "s_noise": 1,
        "seed_resize_from_h": 0,
        "subseed": 5,
    }
    assert _text(prompt="a", **quiet).notes == []
    noted = _text(prompt="a", subseed_strength=0.2, restore_faces=True, tiling=True, styles=["x"], s_churn=2).notes
    assert noted == [f"{name} is ignored" for name in ("s_churn", "styles", "subseed", "restore_faces", "tiling")]


def _unit(**fields: Any) -> dict[str, Any]:
    return {"model": "canny", "image": "YQ==", **fields}


def _controls(*units: Any, name: str = "ControlNet", **fields: Any) -> Translated:
    return _text(prompt="a", alwayson_scripts={name: {"args": list(units)}}, **fields)


def test_controlnet_units_become_controls() -> None:
    """Under any spelling of the script, with any form of the picture, disabled ones left out."""
    units = [
        _unit(weight=0.5, guidance_start=0.1, guidance_end=0.8, module="canny", threshold_a=10, threshold_b=90),
        _unit(enabled=False),
        _unit(image={"image": "Yg==", "mask": None}, module="None", guidance=0.5),
    ]
    asked = _controls(*units, name="controlnet").requests[0]
    assert isinstance(asked, Txt2ImgRequest)
    first, second = asked.controls
    assert (first.image, first.scale, first.start, first.end, first.preprocessor) == ("YQ==", 0.5, 0.1, 0.8, "canny")
    assert first.preprocessor_options == {"low_threshold": 10, "high_threshold": 90}
    assert (second.image, second.preprocessor, second.end) == ("Yg==", None, 0.5)


def test_controlnet_units_that_cannot_be_used_are_refused() -> None:
    """No picture, no model, one thing said twice, an end before the start."""
    args = ["body", "alwayson_scripts", "controlnet", "args"]
    assert _refused(lambda: _controls(_unit(image=""))) == [[*args, 0, "image"]]
    assert _refused(lambda: _controls(_unit(model="None"))) == [[*args, 0, "model"]]
    assert _refused(lambda: _controls(_unit(input_image="Yg=="))) == [[*args, 0, "input_image"]]
    assert _refused(lambda: _controls(_unit(weight="x"))) == [[*args, 0, "weight"]]
    assert _refused(lambda: _controls(_unit(guidance_start=0.9, guidance_end=0.1))) == [[*args, 0]]


def test_controlnet_takes_the_init_image_where_it_has_none() -> None:
    """In img2img alone, and no more than three units."""
    scripts = {"alwayson_scripts": {"controlnet": {"args": [_unit(image=None)] * 4}}}
    found = _pictures(prompt="a", **scripts)
    asked = found.requests[0]
    assert isinstance(asked, Img2ImgRequest)
    assert [control.image for control in asked.controls] == [PICTURE] * 3
    assert found.notes == ["ControlNet units beyond 3 are dropped"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("None", None), ("Canny", "canny"), ("invert (from white bg & black line)", "invert"), ("own", "own")],
)
def test_preprocessor_names(theirs: str, ours: str | None) -> None:
    """The extension's names lead to ours; one that nobody knows is left to admission."""
    assert preprocessor_of(theirs) == ours


def test_preprocessor_options_outside_their_bounds_are_left_out() -> None:
    """Clients send the same figures for every preprocessor; negative ones mean the default."""
    assert options_of("canny", 64, 64, 512) == {"low_threshold": 64, "high_threshold": 64}
    assert options_of("canny", -1, 5000, -1) == {}
    assert options_of(None, 1, 1, 1) == {}


def test_sdnext_control_units_become_controls() -> None:
    """Other kinds than ControlNet are noted."""
    units = [
        {"model": "canny", "override": "YQ==", "strength": 0.7},
        {"unit_type": "ip", "model": "x", "image": "YQ=="},
    ]
    found = _text(prompt="a", control_units=units)
    asked = found.requests[0]
    assert isinstance(asked, Txt2ImgRequest)
    assert [(control.model, control.scale) for control in asked.controls] == [("canny", 0.7)]
    assert found.notes == ["control unit 1: ip is not here"]


def test_infotext_fills_what_is_left_out() -> None:
    """A field that is set wins over the text."""
    text = 'a "cat"\nNegative prompt: blur\nSteps: 9, Sampler: DDIM, CFG scale: 3.5, Seed: 4, Size: 256x128, Model: m, Clip skip: 2'
    asked = txt2img(
        Txt2Img.model_validate(prefilled({"infotext": text, "seed": 5, "steps": None})), NONE, LABELS
    ).requests[0]
    assert isinstance(asked, Txt2ImgRequest)
    assert (asked.prompt, asked.negative_prompt, asked.steps, asked.seed) == ('a "cat"', "blur", 9, 5)
    assert (asked.width, asked.height, asked.model, asked.clip_skip, asked.scheduler) == (256, 128, "m", 2, "DDIM")
    assert prefilled({"prompt": "a"}) == {"prompt": "a"}
    assert prefilled([1]) == [1]


def test_request_of_names_fields_as_it_is_told() -> None:
    """Extras have other names for the same fields."""
    where = _refused(
        lambda: request_of({"task": "upscale", "image": "YQ==", "scale": 1}, {"scale": "upscaling_resize"})
    )
    assert where == [["body", "upscaling_resize"]]
