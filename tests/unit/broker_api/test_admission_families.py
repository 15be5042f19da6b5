"""What a family or variant cannot do is refused at submit, with the field, the reason and what would do it."""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from broker_api.admission.admission import Admission
from jobs.contract import DiffusionParameters, Txt2ImgParameters, UpscaleParameters, parse_request
from jobs.errors import RequestRefused
from jobs.fleet import Fleet
from jobs.intake import NewJob
from jobs.needs import needs_of
from jobs.pictures import pictures_of, upload_ref
from jobs.uploads import Upload
from models_registry.entries import ANY_FAMILY, Component, Kind, Layout, ModelEntry, ModelRef
from models_registry.families import FAMILIES, Guidance, facts_of
from models_registry.offers import Catalogue

SHA = hashlib.sha256(b"a picture").hexdigest()
REF = upload_ref(SHA)


def model(name: str, family: str, variant: str, kind: Kind = Kind.CHECKPOINT, **changes: Any) -> ModelEntry:
    """Make a model of a family."""
    values: dict[str, Any] = {
        "name": name, "kind": kind, "layout": Layout.DIFFUSERS, "family": family, "variant": variant, "path": Path(name),
        "fingerprint": hashlib.sha256(f"{kind}{name}".encode()).hexdigest(),
        "components": (Component(name="weights", bytes=1000, parameters=500, dtype="F16"),),
    }  # fmt: skip
    if kind is Kind.CHECKPOINT:
        values |= {"native_size": 128, "latent_factor": 8, "latent_channels": FAMILIES[family].latent_channels}
    return ModelEntry(**(values | changes))


CHECKPOINTS = tuple(
    model(f"{family.name}-{variant}", family.name, variant)
    for family in FAMILIES.values()
    for variant in family.variants
)
MODELS = (
    *CHECKPOINTS,
    *(model(f"{family}-lora", family, "lora", Kind.LORA) for family in FAMILIES),
    *(model(f"{family}-net", family, "base", Kind.CONTROLNET) for family in FAMILIES),
    *(
        model(f"{family}-vae", family, "base", Kind.VAE, latent_channels=FAMILIES[family].latent_channels)
        for family in FAMILIES
    ),
    *(model(f"{family}-word", family, "base", Kind.EMBEDDING) for family in ("sd15", "sd2", "sdxl")),
    model("large-lora", "flux", "lora", Kind.LORA, width=3072),
    model("flux-small", "flux", "dev", width=128),
    model("flux2-large-lora", "flux2", "lora", Kind.LORA, width=6144),
    model("flux2-4b", "flux2", "klein", width=3072),
    model("flux2-large", "flux2", "dev", width=6144),
    model("x4", ANY_FAMILY, "base", Kind.UPSCALER, scale=4),
)
TEXT = {"task": "txt2img", "prompt": "a red circle"}
PICTURE = {"task": "img2img", "prompt": "a red circle", "image": REF}


def admit(fields: dict[str, Any], models: tuple[ModelEntry, ...] = MODELS) -> NewJob:
    """Admit a request whose pictures are all of the models' native size."""
    catalogue = Catalogue(MappingProxyType({each.ref: each for each in models}), frozenset())
    request = parse_request(fields)
    pictures = dict.fromkeys(pictures_of(request), Upload(SHA, "image/png", 128, 128, 1000, 255))
    return Admission(catalogue, Fleet(), 2**20, draw_seed=lambda: 7).admit(request, owner="ann", pictures=pictures)


def drawn(fields: dict[str, Any], models: tuple[ModelEntry, ...] = MODELS) -> DiffusionParameters:
    """Return what a request that denoises is drawn from."""
    parameters = admit(fields, models).parameters
    assert isinstance(parameters, DiffusionParameters)
    return parameters


def request_for(entry: ModelEntry) -> dict[str, Any]:
    """Return a request that the model can do."""
    facts = facts_of(entry)
    if "txt2img" in facts.tasks:
        fields = dict(TEXT)
    elif "img2img" in facts.tasks:
        fields = dict(PICTURE)
    else:
        fields = PICTURE | {"task": "inpaint", "mask": REF}
    return fields | {"model": entry.name} | ({"controls": [{"image": REF}]} if facts.reads_control else {})


@pytest.mark.parametrize("entry", CHECKPOINTS, ids=lambda entry: entry.name)
def test_defaults_are_those_of_the_variant(entry: ModelEntry) -> None:
    """Steps, guidance and scheduler of every variant are its published ones, and can be drawn."""
    found, facts = drawn(request_for(entry)), facts_of(entry)
    assert (found.steps, found.guidance_scale) == (facts.steps, facts.guidance_scale)
    assert facts.scheduler.startswith(found.scheduler)
    assert found.model == entry.name


#: Name of the case → what is asked beside a red circle, code, field, words of the reason.
REFUSED: dict[str, tuple[dict[str, Any], str, str, tuple[str, ...]]] = {
    "a negative prompt for FLUX": (
        {"model": "flux-dev", "negative_prompt": "blur"},
        "option_unsupported", "negative_prompt", ("FLUX.1 dev", "or use the model sd15-base"),
    ),
    "a negative prompt for schnell": (
        {"model": "flux-schnell", "negative_prompt": "blur"}, "option_unsupported", "negative_prompt", ("no negative prompt",),
    ),
    "guidance for schnell": (
        {"model": "flux-schnell", "guidance_scale": 3.5},
        "option_unsupported", "guidance_scale", ("without guidance", "or use the model flux-dev"),
    ),
    "clip_skip for FLUX": ({"model": "flux-dev", "clip_skip": 2}, "option_unsupported", "clip_skip", ("FLUX.1", "leave")),
    "a negative prompt for FLUX.2 klein": (
        {"model": "flux2-klein", "negative_prompt": "blur"}, "option_unsupported", "negative_prompt", ("no negative prompt",),
    ),
    "guidance for FLUX.2 klein": (
        {"model": "flux2-klein", "guidance_scale": 4}, "option_unsupported", "guidance_scale", ("without guidance",),
    ),
    "a negative prompt for FLUX.2 dev": (
        {"model": "flux2-dev", "negative_prompt": "blur"}, "option_unsupported", "negative_prompt", ("no negative prompt",),
    ),
    "a LoRA of FLUX.2 dev for klein": (
        {"model": "flux2-4b", "loras": [{"name": "flux2-large-lora"}]}, "family_mismatch", "loras.0.name", ("width 6144", "has 3072"),
    ),
    "clip_skip for FLUX.2": ({"model": "flux2-klein-base", "clip_skip": 2}, "option_unsupported", "clip_skip", ("FLUX.2", "leave")),
    "an embedding for FLUX.2": (
        {"model": "flux2-klein", "embeddings": ["sdxl-word"]}, "family_mismatch", "embeddings.0", ("for SDXL", "is FLUX.2"),
    ),
    "a ControlNet for FLUX.2": (
        {"model": "flux2-klein-base", "controls": [{"image": REF, "model": "flux-net"}]},
        "option_unsupported", "controls", ("cannot be guided by ControlNets; none of its family can",),
    ),
    "a LoRA of FLUX.1 for FLUX.2": (
        {"model": "flux2-klein", "loras": [{"name": "flux-lora"}]}, "family_mismatch", "loras.0.name", ("a LoRA for FLUX.1", "is FLUX.2"),
    ),
    "a VAE of FLUX.1 for FLUX.2": (
        {"model": "flux2-klein", "vae": "flux-vae"}, "family_mismatch", "vae", ("a VAE for FLUX.1", "is FLUX.2"),
    ),
    "a size off the step of FLUX.2": ({"model": "flux2-klein", "height": 72}, "size_unsupported", "height", ("multiple of 16",)),
    "clip_skip for SD 3": ({"model": "sd3-medium", "clip_skip": 2}, "option_unsupported", "clip_skip", ("Stable Diffusion 3",)),
    "an embedding for FLUX": (
        {"model": "flux-dev", "embeddings": ["sdxl-word"]}, "family_mismatch", "embeddings.0", ("for SDXL", "is FLUX.1"),
    ),
    "an embedding of SD 1 for SDXL": (
        {"model": "sdxl-base", "embeddings": ["sd15-word"]}, "family_mismatch", "embeddings.0", ("Stable Diffusion 1.x",),
    ),
    "an ancestral scheduler for SD 3": (
        {"model": "sd3-medium", "scheduler": "Euler a"},
        "scheduler_unsupported", "scheduler", ("Stable Diffusion 3 Medium cannot", "it can with: Euler,", "UniPC"),
    ),
    "a spacing that no flow has": (
        {"model": "flux-dev", "scheduler": "UniPC", "schedule_type": "karras"},
        "schedule_type_unknown", "schedule_type", ("UniPC cannot follow Karras",),
    ),
    "a spacing in the name": (
        {"model": "flux-dev", "scheduler": "DPM++ 2M Karras"}, "schedule_type_unknown", "scheduler", ("cannot follow Karras",),
    ),
    "a size off the step": ({"model": "flux-dev", "width": 136}, "size_unsupported", "width", ("multiple of 16 for FLUX.1",)),
    "a size off the step of SD 3": ({"model": "sd3-medium", "height": 72}, "size_unsupported", "height", ("multiple of 16",)),
    "a size beyond FLUX": ({"model": "flux-dev", "width": 4096}, "size_unsupported", "width", ("to 2048",)),
    "text to image of a refiner": (
        {"model": "sdxl-refiner"}, "task_unsupported", "task", ("SDXL refiner) can do: img2img", "use the model sdxl-base"),
    ),
    "text to image of Fill": (
        {"model": "flux-fill"}, "task_unsupported", "task", ("FLUX.1 Fill) can do: inpaint", "use the model flux-dev"),
    ),
    "inpainting of Canny": (
        {"model": "flux-canny", "task": "inpaint", "image": REF, "mask": REF, "controls": [{"image": REF}]},
        "task_unsupported", "task", ("FLUX.1 Canny", "use the model flux-"),
    ),
    "Canny without a picture": ({"model": "flux-canny"}, "option_unsupported", "controls", ("exactly one",)),
    "Canny of two pictures": (
        {"model": "flux-canny", "controls": [{"image": REF}] * 2}, "option_unsupported", "controls", ("exactly one",),
    ),
    "Canny with a ControlNet": (
        {"model": "flux-canny", "controls": [{"image": REF, "model": "flux-net"}]},
        "option_unsupported", "controls.0.model", ("reads its control picture itself",),
    ),
    "half of Depth": (
        {"model": "flux-depth", "controls": [{"image": REF, "scale": 0.5}]}, "option_unsupported", "controls.0.scale", ("every step",),
    ),
    "Depth of the first half": (
        {"model": "flux-depth", "controls": [{"image": REF, "end": 0.5}]}, "option_unsupported", "controls.0.end", ("every step",),
    ),
    "a ControlNet for Fill": (
        {"model": "flux-fill", "task": "inpaint", "image": REF, "mask": REF, "controls": [{"image": REF, "model": "flux-net"}]},
        "option_unsupported", "controls", ("cannot be guided", "these can: FLUX.1 dev"),
    ),
    "a negative prompt for Z-Image Turbo": (
        {"model": "zimage-turbo", "negative_prompt": "blur"}, "option_unsupported", "negative_prompt", ("Z-Image Turbo",),
    ),
    "guidance for Z-Image Turbo": (
        {"model": "zimage-turbo", "guidance_scale": 4}, "option_unsupported", "guidance_scale", ("without guidance",),
    ),
    "clip_skip for Z-Image": ({"model": "zimage-base", "clip_skip": 2}, "option_unsupported", "clip_skip", ("Z-Image",)),
    "an embedding for Z-Image": (
        {"model": "zimage-base", "embeddings": ["sdxl-word"]}, "family_mismatch", "embeddings.0", ("is Z-Image",),
    ),
    "a ControlNet for Z-Image": (
        {"model": "zimage-base", "controls": [{"image": REF, "model": "flux-net"}]},
        "option_unsupported", "controls", ("cannot be guided by ControlNets; none of its family can",),
    ),
    "an ancestral scheduler for Z-Image": (
        {"model": "zimage-base", "scheduler": "Euler a"}, "scheduler_unsupported", "scheduler", ("Z-Image cannot", "UniPC"),
    ),
    "a ControlNet for the refiner": (
        {"model": "sdxl-refiner", "task": "img2img", "image": REF, "controls": [{"image": REF, "model": "sdxl-net"}]},
        "option_unsupported", "controls", ("SDXL refiner", "cannot be guided"),
    ),
    "a control of nobody": (
        {"model": "flux-dev", "controls": [{"image": REF}]}, "option_unsupported", "controls.0.model", ("There is: flux-net",),
    ),
    "a ControlNet of SD 1 for SDXL": (
        {"model": "sdxl-base", "controls": [{"image": REF, "model": "sd15-net"}]},
        "family_mismatch", "controls.0.model", ("a ControlNet for Stable Diffusion 1.x", "is SDXL"),
    ),
    "a LoRA of SDXL for SD 2": (
        {"model": "sd2-v", "loras": [{"name": "sdxl-lora"}]}, "family_mismatch", "loras.0.name", ("a LoRA for SDXL",),
    ),
    "a LoRA of SD 3 for FLUX": (
        {"model": "flux-dev", "prompt": "a <lora:sd3-lora:1>"}, "family_mismatch", "prompt", ("a LoRA for Stable Diffusion 3",),
    ),
    "a LoRA of the large FLUX for a small one": (
        {"model": "flux-small", "loras": [{"name": "large-lora"}]}, "family_mismatch", "loras.0.name", ("width 3072", "has 128"),
    ),
    "a VAE of FLUX for SD 3": (
        {"model": "sd3-medium", "vae": "flux-vae"}, "family_mismatch", "vae", ("a VAE for FLUX.1",),
    ),
    "a VAE of SDXL for SD 1": ({"model": "sd15-base", "vae": "sdxl-vae"}, "family_mismatch", "vae", ("a VAE for SDXL",)),
    "a VAE of FLUX for Qwen-Image": (
        {"model": "qwenimage-base", "vae": "flux-vae"}, "family_mismatch", "vae", ("a VAE for FLUX.1", "is Qwen-Image"),
    ),
    "a ControlNet of FLUX for Qwen-Image": (
        {"model": "qwenimage-base", "controls": [{"image": REF, "model": "flux-net"}]},
        "family_mismatch", "controls.0.model", ("a ControlNet for FLUX.1", "is Qwen-Image"),
    ),
    "a ControlNet of Qwen-Image for FLUX": (
        {"model": "flux-dev", "controls": [{"image": REF, "model": "qwenimage-net"}]},
        "family_mismatch", "controls.0.model", ("a ControlNet for Qwen-Image", "is FLUX.1"),
    ),
    "an embedding for Qwen-Image": (
        {"model": "qwenimage-base", "embeddings": ["sdxl-word"]}, "family_mismatch", "embeddings.0", ("for SDXL", "is Qwen-Image"),
    ),
    "clip_skip for Qwen-Image": (
        {"model": "qwenimage-base", "clip_skip": 2}, "option_unsupported", "clip_skip", ("Qwen-Image reads its text encoders to the end",),
    ),
    "a LoRA of FLUX for Qwen-Image": (
        {"model": "qwenimage-base", "loras": [{"name": "flux-lora"}]}, "family_mismatch", "loras.0.name", ("a LoRA for FLUX.1",),
    ),
    "a size off the step of Qwen-Image": (
        {"model": "qwenimage-base", "width": 1336}, "size_unsupported", "width", ("multiple of 16 for Qwen-Image",),
    ),
    "a refiner for Qwen-Image": (
        {"model": "qwenimage-base", "refiner": {"model": "sdxl-refiner"}}, "option_unsupported", "refiner", ("Qwen-Image",),
    ),
    "a refiner for SD 1": (
        {"model": "sd15-base", "refiner": {"model": "sdxl-refiner"}}, "option_unsupported", "refiner", ("SDXL can be refined",),
    ),
    "a refiner of SD 1": (
        {"model": "sdxl-base", "refiner": {"model": "sd15-base"}},
        "family_mismatch", "refiner.model", ("Stable Diffusion 1.x", "or use the model sdxl-refiner"),
    ),
    "a refiner that inpaints": (
        {"model": "sdxl-base", "refiner": {"model": "sdxl-inpaint"}}, "family_mismatch", "refiner.model", ("cannot go on",),
    ),
    "a refiner of noise for velocity": (
        {"model": "sdxl-v", "refiner": {"model": "sdxl-refiner"}}, "family_mismatch", "refiner.model", ("cannot go on",),
    ),
    "a refiner that is not there": (
        {"model": "sdxl-base", "refiner": {"model": "sdxl-refine"}}, "model_unknown", "refiner.model", ("Near it: sdxl-refiner",),
    ),
    "a negative prompt for tiles of FLUX": (
        {"task": "upscale", "image": REF, "upscaler": "x4", "model": "flux-dev", "refine": {"negative_prompt": "blur"}},
        "option_unsupported", "refine.negative_prompt", ("FLUX.1 dev",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_admit_refuses_what_does_not_go_together(name: str) -> None:
    """Each wrong combination is refused with its code, its field, the reason and what would do it."""
    fields, code, field, words = REFUSED[name]
    asked = fields if fields.get("task") == "upscale" else TEXT | fields
    with pytest.raises(RequestRefused) as caught:
        admit(asked)
    assert (caught.value.code, caught.value.field) == (code, field), str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_says_nothing_is_no_reason_to_refuse() -> None:
    """An empty negative prompt, no guidance and a clip_skip of one are what is drawn anyway."""
    for guidance in (None, 0, 1):
        found = drawn(
            TEXT | {"model": "flux-schnell", "negative_prompt": " ", "clip_skip": 1}
            | ({} if guidance is None else {"guidance_scale": guidance})
        )  # fmt: skip
        assert found.negative_prompt.strip() == ""


def test_a_lora_as_wide_as_its_model_is_taken() -> None:
    """One for FLUX.2 dev, whose width is no klein's."""
    assert drawn(TEXT | {"model": "flux2-large", "loras": [{"name": "flux2-large-lora"}]}).loras


def test_vaes_of_both_older_families_serve_both() -> None:
    """Stable Diffusion 1.x and 2.x have the same latents."""
    assert drawn(TEXT | {"model": "sd2-base", "vae": "sd15-vae"}).vae == "sd15-vae"
    assert drawn(TEXT | {"model": "sd15-base", "vae": "sd2-vae"}).vae == "sd2-vae"


def test_vae_of_flux_serves_zimage() -> None:
    """Z-Image was trained on the latents of FLUX.1."""
    assert drawn(TEXT | {"model": "zimage-base", "vae": "flux-vae"}).vae == "flux-vae"
    with pytest.raises(RequestRefused, match="a VAE for Z-Image"):
        drawn(TEXT | {"model": "sd15-base", "vae": "zimage-vae"})


def test_own_control_pictures_may_be_prepared() -> None:
    """A model that reads a control picture takes one without a model, through a preprocessor."""
    found = admit(TEXT | {"model": "flux-canny", "controls": [{"image": REF, "preprocessor": "Canny"}]}).parameters
    assert isinstance(found, Txt2ImgParameters)
    assert [(each.model, each.preprocessor) for each in found.controls] == [(None, "canny")]
    assert [need.ref for need in needs_of(found)] == [ModelRef(Kind.CHECKPOINT, "flux-canny")]


def test_a_refiner_is_a_model_that_the_job_needs() -> None:
    """Names become exact, and the second checkpoint is needed and counted like the first."""
    job = admit(TEXT | {"model": "sdxl-base", "refiner": {"model": "SDXL-Refiner", "switch_at": 0.5}})
    assert isinstance(job.parameters, Txt2ImgParameters)
    assert job.parameters.refiner is not None
    assert (job.parameters.refiner.model, job.parameters.refiner.switch_at) == ("sdxl-refiner", 0.5)
    refs = [need.ref for need in needs_of(job.parameters)]
    assert refs == [ModelRef(Kind.CHECKPOINT, "sdxl-base"), ModelRef(Kind.CHECKPOINT, "sdxl-refiner")]
    assert job.needs_memory > admit(TEXT | {"model": "sdxl-base"}).needs_memory


def test_nobody_gets_a_model_that_needs_a_control_picture() -> None:
    """A request without a model is drawn by one that needs nothing more, as long as there is one."""
    canny, dev = (each for each in CHECKPOINTS if each.name in {"flux-canny", "flux-dev"})
    dev, canny = sorted((canny, dev), key=lambda each: facts_of(each).reads_control)
    assert drawn(TEXT, (canny, dev)).model == "flux-dev"
    with pytest.raises(RequestRefused) as caught:
        drawn(TEXT, (canny,))
    assert caught.value.field == "controls"


def test_tiles_are_redrawn_by_any_family() -> None:
    """Diffusion upscaling takes its defaults from the variant."""
    found = admit({"task": "upscale", "image": REF, "upscaler": "x4", "model": "flux-dev", "refine": {}}).parameters
    assert isinstance(found, UpscaleParameters)
    assert found.refine is not None
    assert (found.refine.guidance_scale, found.refine.scheduler) == (3.5, "Euler")
    assert facts_of(next(each for each in CHECKPOINTS if each.name == "flux-dev")).guidance is Guidance.EMBEDDED
