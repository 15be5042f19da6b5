"""Every task's admission: what is filled in, what is refused, by which code and field."""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from broker_api.admission.admission import Admission, request_hash
from jobs.contract import (
    DiffusionParameters,
    Img2ImgParameters,
    InpaintParameters,
    PreprocessParameters,
    Txt2ImgParameters,
    UpscaleParameters,
    parse_request,
)
from jobs.errors import RequestRefused
from jobs.fleet import Fleet
from jobs.intake import NewJob, batch_key, lora_key
from jobs.pictures import pictures_of, upload_ref
from jobs.uploads import Upload
from models_registry.entries import ANY_FAMILY, Component, Kind, Layout, ModelEntry
from models_registry.memory import weights_memory
from models_registry.offers import Catalogue

MIB = 1024**2
SHA = hashlib.sha256(b"a picture").hexdigest()
REF = upload_ref(SHA)


def model(name: str, kind: Kind = Kind.CHECKPOINT, **changes: Any) -> ModelEntry:
    """Make a model of 100 MiB at half precision, adapters of 10."""
    size = 100 * MIB if kind is Kind.CHECKPOINT else 10 * MIB
    values: dict[str, Any] = {
        "name": name, "kind": kind, "layout": Layout.DIFFUSERS, "family": "sd15", "path": Path("/models") / name,
        "fingerprint": hashlib.sha256(f"{kind}{name}".encode()).hexdigest(),
        "components": (Component(name="weights", bytes=size, parameters=size // 2, dtype="F16"),),
    }  # fmt: skip
    if kind is Kind.CHECKPOINT:
        values |= {"native_size": 128, "latent_factor": 8, "latent_channels": 4}
    return ModelEntry(**(values | changes))


BASE = model("shapes-sd15", default_steps=20, text_width=64, text_layers=2)
MODELS = (
    BASE,
    model("shapes-inpaint", variant="inpaint"),
    model("frame", Kind.LORA),
    model("ground", Kind.LORA),
    model("foreign", Kind.LORA, text_width=768),
    model("dusk", Kind.EMBEDDING),
    model("canny-net", Kind.CONTROLNET),
    model("grey", Kind.VAE),
    model("shapes-x4", Kind.UPSCALER, family=ANY_FAMILY, scale=4),
    model("shapes-x2", Kind.UPSCALER, family=ANY_FAMILY, scale=2),
)


def admit(
    fields: dict[str, Any],
    *,
    size: tuple[int, int] = (128, 128),
    brightest: int = 255,
    models: tuple[ModelEntry, ...] = MODELS,
    max_pixels: int = 2**20,
) -> NewJob:
    """Admit a request whose pictures are all of this size."""
    catalogue = Catalogue(MappingProxyType({each.ref: each for each in models}), frozenset())
    request = parse_request(fields)
    upload = Upload(SHA, "image/png", *size, 1000, brightest)
    pictures = dict.fromkeys(pictures_of(request), upload)
    return Admission(catalogue, Fleet(), max_pixels, draw_seed=lambda: 7).admit(request, owner="ann", pictures=pictures)


def drawn(fields: dict[str, Any], **options: Any) -> DiffusionParameters:
    """Return what a request that denoises is drawn from."""
    parameters = admit(fields, **options).parameters
    assert isinstance(parameters, DiffusionParameters)
    return parameters


TXT = {"task": "txt2img", "prompt": "a red circle"}
IMG = {"task": "img2img", "prompt": "a red circle", "image": REF}
INPAINT = {"task": "inpaint", "prompt": "a red circle", "image": REF, "mask": REF}
OUTPAINT = {"task": "inpaint", "prompt": "a red circle", "image": REF, "outpaint": {"left": 64}}
UPSCALE = {"task": "upscale", "image": REF}
PREPROCESS = {"task": "preprocess", "image": REF, "preprocessor": "canny"}


def test_admit_takes_tags_out_of_the_prompts_and_adds_them_up() -> None:
    """Tags of both prompts and the list are one stack; the same LoRA, in any case, counts once with its weights added."""
    found = drawn(
        TXT | {
            "prompt": "a red circle <lora:Frame:0.5> <lora:ground:0.25:1>", "negative_prompt": "blur <lora:frame:0.25>",
            "loras": [{"name": "frame", "weight": 0.125}],
        }
    )  # fmt: skip
    assert (found.prompt, found.negative_prompt) == ("a red circle", "blur")
    assert [(lora.name, lora.weight, lora.text_encoder_weight) for lora in found.loras] == [
        ("frame", 0.875, None), ("ground", 1.0, 0.25),
    ]  # fmt: skip


def test_admit_finds_embeddings_in_the_prompts() -> None:
    """Names in either prompt count as if they were listed, but only those that fit the checkpoint."""
    found = drawn(TXT | {"prompt": "a circle at DUSK", "negative_prompt": "dawn"})
    assert found.embeddings == ["dusk"]
    foreign = model("dawn", Kind.EMBEDDING, text_width=768)
    assert drawn(TXT | {"prompt": "a circle at dawn"}, models=(*MODELS, foreign)).embeddings == []


def test_admit_fills_in_a_second_pass() -> None:
    """Names become exact and previews are spread over both passes."""
    found = drawn(TXT | {"hires": {"scale": 2.0, "upscaler": "Lanczos"}, "steps": 20})
    assert isinstance(found, Txt2ImgParameters)
    assert found.hires is not None
    assert (found.hires.upscaler, found.width, found.preview_every) == ("lanczos", 128, 3)
    named = drawn(TXT | {"hires": {"upscaler": "SHAPES-X2"}})
    assert isinstance(named, Txt2ImgParameters)
    assert named.hires is not None
    assert named.hires.upscaler == "shapes-x2"


@pytest.mark.parametrize(
    ("source", "asked", "wanted"),
    [
        ((128, 128), {}, (128, 128)),
        ((131, 77), {}, (128, 80)),
        ((20, 10), {}, (128, 64)),
        ((6000, 3000), {}, (1440, 728)),
        ((200, 100), {"width": 128}, (128, 64)),
        ((200, 100), {"height": 128}, (256, 128)),
        ((200, 100), {"width": 64, "height": 256}, (64, 256)),
    ],
)
def test_admit_draws_img2img_at_a_size_like_the_sources(
    source: tuple[int, int], asked: dict[str, int], wanted: tuple[int, int]
) -> None:
    """What is left out follows from the picture's shape, in multiples and limits of the family and the server."""
    found = drawn(IMG | asked, size=source)
    assert isinstance(found, Img2ImgParameters)
    assert (found.width, found.height) == wanted
    assert found.width * found.height <= 2**20
    assert (found.image, found.strength, found.model) == (REF, 0.75, "shapes-sd15")


def test_admit_inpaints_at_the_sources_own_size() -> None:
    """The whole picture keeps its size, multiples or not; a cut-out is drawn at one the model likes; outpainting keeps the source's."""
    whole = drawn(INPAINT, size=(131, 77))
    assert isinstance(whole, InpaintParameters)
    assert (whole.width, whole.height, whole.model) == (131, 77, "shapes-sd15")
    masked = drawn(INPAINT | {"inpaint_area": "masked"}, size=(131, 77))
    assert (masked.width, masked.height) == (128, 80)
    grown = drawn(OUTPAINT, size=(131, 77))
    assert (grown.width, grown.height) == (131, 77)
    assert drawn(INPAINT | {"model": "shapes-inpaint"}).model == "shapes-inpaint"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, ("shapes-x4", "shapes-x4", 4.0, 4, 400)),
        ({"scale": 3.0}, ("shapes-x4", "shapes-x4", 3.0, 4, 300)),
        ({"upscaler": "shapes-X2"}, ("shapes-x2", "shapes-x2", 2.0, 2, 200)),
        ({"upscaler": "Lanczos"}, ("lanczos", "lanczos", 2.0, 1, 200)),
        ({"upscaler": "nearest", "scale": 1.5}, ("nearest", "nearest", 1.5, 1, 150)),
        ({"model": "shapes-x2"}, ("shapes-x2", "shapes-x2", 2.0, 2, 200)),
        ({"upscaler": "shapes-x2", "refine": {}}, ("shapes-sd15", "shapes-x2", 2.0, 2, 200)),
        ({"model": "shapes-x2", "refine": {}}, ("shapes-sd15", "shapes-x2", 2.0, 2, 200)),
        ({"model": "shapes-sd15", "refine": {}}, ("shapes-sd15", "shapes-x4", 4.0, 4, 400)),
    ],
)
def test_admit_chooses_upscaler_and_scale(fields: dict[str, Any], wanted: tuple[str, str, float, int, int]) -> None:
    """The first upscaler and its own scale are the defaults; `model` may name it; `refine` draws with the default checkpoint."""
    found = admit(UPSCALE | fields, size=(100, 50)).parameters
    assert isinstance(found, UpscaleParameters)
    assert (found.model, found.upscaler, found.scale, found.upscaler_scale, found.width) == wanted
    assert (found.source_width, found.source_height, found.height) == (100, 50, wanted[-1] // 2)


def test_admit_upscales_without_any_upscaler() -> None:
    """A fresh installation enlarges by resampling."""
    found = admit(UPSCALE, models=()).parameters
    assert isinstance(found, UpscaleParameters)
    assert (found.upscaler, found.model, found.scale) == ("lanczos", "lanczos", 2.0)


def test_admit_fills_in_what_refines() -> None:
    """Steps, guidance, scheduler and tile come from the checkpoint."""
    found = admit(UPSCALE | {"refine": {"strength": 0.5, "scheduler": "Euler a"}}).parameters
    assert isinstance(found, UpscaleParameters)
    assert found.refine is not None
    assert (found.refine.steps, found.refine.guidance_scale, found.refine.tile) == (20, 7.0, 128)
    assert (found.refine.scheduler, found.refine.strength) == ("Euler a", 0.5)


def test_admit_preprocesses_at_the_sources_size() -> None:
    """The control picture is as large as its source, and no model is needed."""
    job = admit(PREPROCESS | {"preprocessor": "Canny", "preprocessor_options": {"low_threshold": 50.0}}, size=(33, 20))
    found = job.parameters
    assert isinstance(found, PreprocessParameters)
    assert (found.model, found.preprocessor, found.width, found.height) == ("canny", "canny", 33, 20)
    assert (job.needs_memory, job.model_key) == (0, "canny")


CONTROL = {"model": "canny-net", "image": REF}


@pytest.mark.parametrize(
    ("fields", "code", "field", "says"),
    [
        (TXT | {"model": "shapes-inpaint"}, "task_unsupported", "task", "use the model shapes-sd15"),
        (IMG | {"model": "shapes-inpaint"}, "task_unsupported", "task", "can do: inpaint"),
        (TXT | {"loras": [{"name": "frane"}]}, "adapter_unknown", "loras.0.name", "frame"),
        (TXT | {"prompt": "x <lora:frane:1>"}, "adapter_unknown", "prompt", "frame"),
        (TXT | {"negative_prompt": "x <lora:frane:1>"}, "adapter_unknown", "negative_prompt", "frame"),
        (TXT | {"loras": [{"name": "foreign"}]}, "family_mismatch", "loras.0.name", "foreign"),
        (TXT | {"prompt": "<lora:frame:9>", "loras": [{"name": "frame", "weight": 2.0}]}, "option_unsupported", "prompt", "11"),
        (TXT | {"embeddings": ["dust"]}, "adapter_unknown", "embeddings.0", "dusk"),
        (TXT | {"clip_skip": 3}, "option_unsupported", "clip_skip", "from 1 to 2"),
        (IMG | {"clip_skip": 12}, "option_unsupported", "clip_skip", "2 layers"),
        (TXT | {"vae": "gray"}, "adapter_unknown", "vae", "grey"),
        (TXT | {"controls": [CONTROL | {"model": "canny"}]}, "adapter_unknown", "controls.0.model", "canny-net"),
        (TXT | {"controls": [CONTROL | {"preprocessor": "cany"}]}, "preprocessor_unknown", "controls.0.preprocessor", "canny"),
        (
            TXT | {"controls": [CONTROL | {"preprocessor": "canny", "preprocessor_options": {"low": 1.0}}]},
            "option_unsupported", "controls.0.preprocessor_options.low", "low_threshold",
        ),
        (
            TXT | {"controls": [CONTROL | {"preprocessor_options": {"low": 1.0}}]},
            "option_unsupported", "controls.0.preprocessor_options", "need a preprocessor",
        ),
        (TXT | {"hires": {"scale": 8.0, "upscaler": "latent"}, "width": 1024}, "size_unsupported", "hires.scale", "8192"),
        (TXT | {"hires": {"scale": 4.0}, "width": 512, "height": 512}, "size_unsupported", "hires.scale", "pixels"),
        (TXT | {"hires": {"upscaler": "shapes-x3"}}, "adapter_unknown", "hires.upscaler", "shapes-x2"),
        (IMG | {"width": 130}, "size_unsupported", "width", "multiple of 8"),
        (IMG | {"width": 2048, "height": 2048}, "size_unsupported", "width", "pixels"),
        (INPAINT | {"width": 130, "height": 128}, "size_unsupported", "width", "multiple of 8"),
        (OUTPAINT | {"outpaint": {"right": 4096}}, "size_unsupported", "outpaint", "4224 x 128"),
        (UPSCALE | {"scale": 16.0}, "size_unsupported", "scale", "2048 x 2048"),
        (UPSCALE | {"upscaler": "latent"}, "option_unsupported", "upscaler", "lanczos"),
        (UPSCALE | {"upscaler": "shapes-x3"}, "adapter_unknown", "upscaler", "shapes-x2"),
        (UPSCALE | {"model": "shapes-x3"}, "adapter_unknown", "model", "shapes-x2"),
        (UPSCALE | {"model": "shapes-sd15"}, "option_unsupported", "model", "refine"),
        (UPSCALE | {"model": "shapes-sd15", "upscaler": "lanczos"}, "option_unsupported", "model", "refine"),
        (UPSCALE | {"model": "shapes-inpaint", "refine": {}}, "task_unsupported", "model", "shapes-sd15"),
        (UPSCALE | {"refine": {"tile": 100}}, "size_unsupported", "refine.tile", "multiple of 8"),
        (UPSCALE | {"refine": {"scheduler": "Eulr"}}, "scheduler_unknown", "refine.scheduler", "Euler"),
        (UPSCALE | {"refine": {"prompt": "<lora:frame>"}}, "option_unsupported", "refine.prompt", "LoRA"),
        (PREPROCESS | {"preprocessor": "cany"}, "preprocessor_unknown", "preprocessor", "canny"),
        (PREPROCESS | {"preprocessor_options": {"low_threshold": -1.0}}, "option_unsupported", "preprocessor_options.low_threshold", "0"),
        (PREPROCESS | {"model": "shapes-sd15"}, "option_unsupported", "model", "preprocessor"),
    ],
)  # fmt: skip
def test_admit_refuses_what_cannot_be_done(fields: dict[str, Any], code: str, field: str, says: str) -> None:
    """Each refusal has a code, names the field, and helps."""
    with pytest.raises(RequestRefused) as refused:
        admit(fields)
    assert (refused.value.code, refused.value.field) == (code, field)
    assert says in refused.value.message


def test_admit_refuses_a_mask_that_masks_nothing() -> None:
    """An all-black mask is refused, unless it is turned round or the picture also grows."""
    with pytest.raises(RequestRefused) as refused:
        admit(INPAINT, brightest=0)
    assert (refused.value.code, refused.value.field) == ("picture_refused", "mask")
    assert admit(INPAINT | {"mask_invert": True}, brightest=0)
    assert admit(OUTPAINT | {"mask": REF}, brightest=0)


def test_admit_refuses_a_source_too_large_to_inpaint_whole() -> None:
    """The picture is named, and what helps."""
    with pytest.raises(RequestRefused) as refused:
        admit(INPAINT, size=(5000, 100))
    assert (refused.value.code, refused.value.field) == ("size_unsupported", "image")
    assert "masked" in refused.value.message


def test_admit_refuses_an_enlargement_whose_last_pass_overshoots_by_far() -> None:
    """A scale just above one pass would need a second one, sixteen times the picture before it."""
    with pytest.raises(RequestRefused) as refused:
        admit(UPSCALE | {"scale": 4.5, "upscaler": "shapes-x4"}, size=(200, 200))
    assert (refused.value.code, refused.value.field) == ("size_unsupported", "scale")


def test_admit_refuses_more_than_a_job_may_stack() -> None:
    """The limit holds over list and prompts together."""
    loras = tuple(model(f"l{number}", Kind.LORA) for number in range(17))
    prompt = "".join(f"<lora:l{number}>" for number in range(17))
    with pytest.raises(RequestRefused) as refused:
        admit(TXT | {"prompt": prompt}, models=(BASE, *loras))
    assert (refused.value.code, refused.value.field) == ("option_unsupported", "loras")
    assert len(drawn(TXT | {"prompt": prompt.replace("<lora:l16>", "")}, models=(BASE, *loras)).loras) == 16


def test_admit_counts_the_memory_of_everything_a_job_loads() -> None:
    """Adapters weigh, and the larger pass sets the activations."""
    plain = admit(TXT).needs_memory
    stacked = admit(TXT | {"prompt": "<lora:frame>", "vae": "grey", "controls": [CONTROL, CONTROL]}).needs_memory
    assert stacked - plain == 3 * weights_memory(model("frame", Kind.LORA))
    larger = admit(TXT | {"hires": {"scale": 2.0}}).needs_memory
    assert larger - plain == 3 * 128 * 128 * 5_000
    enlarged = admit(UPSCALE, size=(100, 50)).needs_memory
    assert enlarged == weights_memory(model("shapes-x4", Kind.UPSCALER)) + 100 * 50 * 7_000


def test_lora_key_follows_the_stack_and_not_its_order() -> None:
    """Jobs with the same stack are neighbours; another weight is another stack, and never drawn in one batch."""
    one, other, changed = (
        admit(TXT | {"prompt": text}).parameters
        for text in ("<lora:frame><lora:ground>", "<lora:ground><lora:frame>", "<lora:ground><lora:frame:0.5>")
    )
    assert lora_key(one) == lora_key(other) != lora_key(changed)
    assert lora_key(admit(TXT).parameters) == lora_key(admit(UPSCALE).parameters) == ""
    assert batch_key(one, "m") == batch_key(other, "m") != batch_key(changed, "m")


def test_request_hash_counts_pictures() -> None:
    """Another picture is another request."""
    assert request_hash(parse_request(IMG)) != request_hash(parse_request(IMG | {"image": upload_ref("0" * 64)}))


def test_admit_skips_as_many_layers_as_there_are() -> None:
    """And where they have not been counted yet, as many as are asked for."""
    counted = admit(TXT | {"clip_skip": 2}).parameters
    uncounted = admit(TXT | {"clip_skip": 12}, models=(model("old"),)).parameters
    assert isinstance(counted, Txt2ImgParameters)
    assert isinstance(uncounted, Txt2ImgParameters)
    assert (counted.clip_skip, uncounted.clip_skip) == (2, 12)
