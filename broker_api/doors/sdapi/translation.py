"""Turn A1111's and SD.Next's requests into ours; pure.

What they can ask for and the fleet does not do is left out and said in the notes, which go into the answer's `info`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import ValidationError

from broker_api.doors.sdapi.choices import NOTHING, Choices
from broker_api.doors.sdapi.controls import controls_of
from broker_api.doors.sdapi.payloads import MOST_PICTURES, Generation, Img2Img, Txt2Img
from broker_api.doors.sdapi.refusals import (
    FieldsRefused,
    SamplerNotFound,
    ScriptRefused,
    ThingNotFound,
    details_of,
    field_refused,
)
from broker_api.doors.uses import without_meaningless
from jobs.contract import MAX_SEED, JobRequest, parse_request
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, Guidance, Prediction, facts_of
from models_registry.schedulers import SCHEDULERS, SchedulerNameError, find_schedule_type, find_scheduler

#: Labels by which a key's own jobs are found again.
KEY_LABEL: Final = "sdapi_key"
TASK_LABEL: Final = "sdapi_task"
#: The originals draw at multiples of this many pixels, and round down to them.
LATENT: Final = 8
_RESIZE: Final[tuple[Literal["stretch", "crop", "fill"], ...]] = ("stretch", "crop", "fill", "stretch")
_CONTENT: Final = ("fill", "original", "noise", "nothing")
#: Our names of fields to theirs, for refusals.
THEIR_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "guidance_scale": "cfg_scale",
        "num_images": "n_iter",
        "model": "override_settings.sd_model_checkpoint",
        "vae": "override_settings.sd_vae",
        "clip_skip": "override_settings.CLIP_stop_at_last_layers",
        "schedule_type": "scheduler",
        "scheduler": "sampler_name",
        "strength": "denoising_strength",
        "image": "init_images.0",
        "inpaint_padding": "inpaint_full_res_padding",
        "controls": "alwayson_scripts.controlnet.args",
        "refiner.model": "refiner_checkpoint",
        "refiner.switch_at": "refiner_switch_at",
        "hires.scale": "hr_scale",
        "hires.steps": "hr_second_pass_steps",
        "hires.strength": "denoising_strength",
        "hires.upscaler": "hr_upscaler",
        "labels.sdapi_task": "force_task_id",
    }
)


@dataclass(frozen=True)
class Translated:
    """The jobs a request becomes, in the order of its pictures."""

    requests: list[JobRequest]
    notes: list[str] = field(default_factory=list)


def txt2img(payload: Txt2Img, usual: Choices, labels: Mapping[str, str], entry: ModelEntry | None = None) -> Translated:
    """Return the job of a txt2img request; `entry` is the model that is meant, None where it is not known here."""
    notes: list[str] = []
    fields = _common(payload, usual, labels, entry, notes)
    fields["task"] = "txt2img"
    fields["controls"] = controls_of(payload, None, notes)
    fields["refiner"] = refiner_of(payload, notes)
    if payload.enable_hr:
        fields |= _hires(payload, fields, _size_step(entry), notes)
    return Translated([request_of(fields)], notes)


def img2img(
    payload: Img2Img, usual: Choices, labels: Mapping[str, str], *, seed: int, entry: ModelEntry | None = None
) -> Translated:
    """Return the jobs of an img2img request: one, or one per picture where several pictures are given.

    `seed` stands in for a seed of -1, which several jobs could not share.
    """
    images = [image for image in payload.init_images if image]
    if not images:
        raise ThingNotFound("Init image not found")
    if len(images) > max(1, payload.batch_size):
        raise field_refused("init_images", f"More images than the batch_size of {payload.batch_size}")
    notes: list[str] = []
    common = _common(payload, usual, labels, entry, notes) | _source(payload, notes)
    one = {"controls": controls_of(payload, _picture("init_images.0", images[0]), notes)}
    if len(images) == 1:
        return Translated([request_of({**common, **one, "image": _picture("init_images.0", images[0])})], notes)
    first = payload.seed if payload.seed >= 0 else seed
    requests = []
    for number in range(common["num_images"]):
        # The originals lay the batches one behind the other.
        place = number % payload.batch_size % len(images)
        image = _picture(f"init_images.{place}", images[place])
        each = {"image": image, "controls": controls_of(payload, image, []), "num_images": 1}
        requests.append(request_of({**common, **each, "seed": (first + number) % (MAX_SEED + 1)}))
    return Translated(requests, notes)


def request_of(fields: Mapping[str, Any], names: Mapping[str, str] = THEIR_NAMES) -> JobRequest:
    """Return our request, raising `FieldsRefused` with their names of the fields at fault."""
    try:
        return parse_request({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise FieldsRefused(details_of(error, names)) from None


def choices_of(payload: Generation, usual: Choices) -> Choices:
    """Return the settings of one request: its own, over those its key has chosen."""
    try:
        own = Choices.model_validate(payload.override_settings)
        top = Choices.model_validate(
            {
                "sd_model_checkpoint": payload.sd_model_checkpoint,
                "samples_format": payload.samples_format,
                "jpeg_quality": payload.jpeg_quality,
                "CLIP_stop_at_last_layers": payload.clip_skip or None,
            }
        )
    except ValidationError as error:
        names = {name: f"override_settings.{name}" for name in Choices.model_fields}
        raise FieldsRefused(details_of(error, names)) from None
    return own.over(top).over(usual)


def _common(
    payload: Generation, usual: Choices, labels: Mapping[str, str], entry: ModelEntry | None, notes: list[str]
) -> dict[str, Any]:
    if payload.script_name and payload.script_name.strip().lower() not in NOTHING:
        raise ScriptRefused(f"Script '{payload.script_name[:100]}' not found")
    if payload.batch_size * payload.n_iter > MOST_PICTURES:
        raise field_refused("n_iter", f"n_iter times batch_size must be at most {MOST_PICTURES}")
    _note_what_is_left_out(payload, notes)
    facts = None if entry is None or entry.family not in FAMILIES else facts_of(entry)
    scheduler, schedule_type = _sampler(payload, Prediction.EPSILON if facts is None else facts.prediction, notes)
    choices = choices_of(payload, usual)
    guidance = payload.cfg_scale if payload.cfg_scale is not None else payload.guidance_scale
    if facts is not None and facts.guidance is Guidance.EMBEDDED:
        # As Forge has it: the one scale stays at 1 and the other is what the network reads.
        guidance = payload.distilled_cfg_scale
    size_step = _size_step(entry)
    fields = {
        "model": choices.sd_model_checkpoint,
        "prompt": payload.prompt,
        "negative_prompt": payload.negative_prompt,
        "seed": max(-1, payload.seed),
        "steps": payload.steps,
        "guidance_scale": guidance,
        "width": _floored(payload.width, size_step),
        "height": _floored(payload.height, size_step),
        "scheduler": scheduler,
        "schedule_type": schedule_type,
        "num_images": payload.batch_size * payload.n_iter,
        "clip_skip": choices.CLIP_stop_at_last_layers,
        "vae": choices.sd_vae,
        "output": {
            "format": choices.samples_format or "png",
            "quality": choices.jpeg_quality or 90,
            "metadata": choices.enable_pnginfo is not False,
        },
        "labels": dict(labels),
    }
    return without_meaningless(fields, entry)


def _size_step(entry: ModelEntry | None) -> int:
    # An unknown model is refused later, with the names that are near.
    family = None if entry is None else FAMILIES.get(entry.family)
    return LATENT if family is None else family.size_step


def refiner_of(payload: Generation, notes: list[str]) -> dict[str, Any] | None:
    """Return the checkpoint that takes over; None where none does."""
    name = (payload.refiner_checkpoint or "").strip()
    if name.lower() in NOTHING:
        return None
    switch_at = payload.refiner_switch_at
    if switch_at is not None and not 0 < switch_at < 1:
        notes.append("the refiner never takes over: refiner_switch_at is not between 0 and 1")
        return None
    return {"model": name, **({} if switch_at is None else {"switch_at": switch_at})}


def _floored(side: int | None, step: int) -> int | None:
    # Only what the originals would have rounded too: a side too small to be rounded is refused as it was sent.
    return side if side is None or side < step else side // step * step


def _sampler(payload: Generation, prediction: Prediction, notes: list[str]) -> tuple[str | None, str | None]:
    name = payload.sampler_name or (payload.sampler_index if isinstance(payload.sampler_index, str) else None)
    if name is None or name.strip().lower() in NOTHING:
        name = None
    kind = payload.scheduler if payload.scheduler and payload.scheduler.strip() else None
    if name is None:
        # The model's own sampler, which may have a schedule of its own.
        return None, None if kind is None or kind.strip().lower() in NOTHING else kind
    try:
        spec = find_scheduler(name)
    except SchedulerNameError:
        raise SamplerNotFound("Sampler not found", field="sampler_name") from None
    if prediction not in SCHEDULERS[spec.name].predictions:
        # Clients send one sampler with whatever they draw.
        notes.append(f"{spec.name} cannot draw with this model, which takes its own")
        return None, None
    if kind is None:
        return name, "automatic"
    try:
        find_schedule_type(kind)
    except SchedulerNameError:
        notes.append(f"the scheduler {kind[:50]!r} is not here: {spec.name} takes its own")
        return name, "automatic"
    try:
        find_scheduler(name, kind, prediction=prediction)
    except SchedulerNameError as error:
        # The originals draw every pair somehow.
        notes.append(error.message)
        return name, "automatic"
    return name, kind


def _source(payload: Img2Img, notes: list[str]) -> dict[str, Any]:
    if not 0 <= payload.resize_mode < len(_RESIZE):
        raise field_refused("resize_mode", f"Input should be 0 to {len(_RESIZE) - 1}")
    if not 0 <= payload.inpainting_fill < len(_CONTENT):
        raise field_refused("inpainting_fill", f"Input should be 0 to {len(_CONTENT) - 1}")
    if payload.resize_mode == len(_RESIZE) - 1:
        notes.append("the picture is resized, not its latents")
    if payload.latent_mask is not None:
        notes.append("latent_mask is ignored")
    if payload.initial_noise_multiplier not in {None, 1.0}:
        notes.append("initial_noise_multiplier is ignored")
    fields: dict[str, Any] = {
        "task": "img2img",
        "strength": 0.75 if payload.denoising_strength is None else payload.denoising_strength,
        "resize_mode": _RESIZE[payload.resize_mode],
    }
    if not payload.mask:
        return fields
    blur = payload.mask_blur if payload.mask_blur is not None else max(payload.mask_blur_x, payload.mask_blur_y)
    return fields | {
        "task": "inpaint",
        "mask": _picture("mask", payload.mask),
        "mask_blur": blur,
        "mask_invert": bool(payload.inpainting_mask_invert),
        "masked_content": _CONTENT[payload.inpainting_fill],
        "inpaint_area": "masked" if payload.inpaint_full_res else "whole",
        "inpaint_padding": payload.inpaint_full_res_padding,
    }


def _picture(name: str, text: str) -> str:
    if text[:8].lower().startswith(("http:", "https:", "file:")):
        raise field_refused(name, "Requests not allowed: send the picture itself, as base64")
    return text


def _hires(payload: Txt2Img, fields: Mapping[str, Any], size_step: int, notes: list[str]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    width, height = fields["width"], fields["height"]
    target = (payload.hr_resize_x, payload.hr_resize_y)
    if payload.firstphase_width > 0 and payload.firstphase_height > 0:
        target = (width or 0, height or 0)
        width, height = (_floored(side, size_step) for side in (payload.firstphase_width, payload.firstphase_height))
        changes |= {"width": width, "height": height}
    scale = payload.hr_scale
    if any(target):
        if width is None or height is None:
            raise field_refused("width", "With hr_resize_x or hr_resize_y the first pass needs a width and a height")
        scale = max(target[0] / max(1, width), target[1] / max(1, height))
        if all(target) and target[0] * height != target[1] * width:
            notes.append("the second pass keeps the shape of the first: it is not cropped")
    strength = payload.hr_denoising_strength or payload.denoising_strength
    changes["hires"] = {
        "scale": scale,
        "strength": 0.75 if strength is None else strength,
        "upscaler": upscaler_of(payload.hr_upscaler or "Latent"),
        **({"steps": payload.hr_second_pass_steps} if payload.hr_second_pass_steps else {}),
    }
    for name in ("hr_checkpoint_name", "hr_sampler_name", "hr_scheduler", "hr_prompt", "hr_negative_prompt"):
        value = getattr(payload, name)
        if value and not value.lower().startswith("use same") and value.lower() != "same as primary":
            notes.append(f"{name} is ignored: the second pass draws as the first")
    if payload.firstpass_image is not None:
        notes.append("firstpass_image is ignored")
    return changes


def upscaler_of(name: str) -> str:
    """Return our name of an upscaler: A1111's resamplers are ours, every other name is a model's."""
    folded = name.strip().lower()
    if folded == "latent" or folded.startswith("latent ("):
        return "latent"
    if folded in {"lanczos", "nearest", "bicubic"}:
        return folded
    # The originals resize with Lanczos where no upscaler is chosen.
    return "lanczos" if folded in NOTHING else name.strip()


def _note_what_is_left_out(payload: Generation, notes: list[str]) -> None:
    # Some clients send these values on every call; they mean "not set".
    usual = {"eta": {None, 1.0, 0.0}, "s_churn": {None, 0.0}, "s_tmax": {None, 0.0}, "s_tmin": {None, 0.0},
             "s_noise": {None, 1.0}, "s_min_uncond": {None, 0.0}}  # fmt: skip
    notes += [f"{name} is ignored" for name, values in usual.items() if getattr(payload, name) not in values]
    asked = {
        "styles": bool(payload.styles),
        "subseed": payload.subseed_strength != 0,
        "seed_resize_from": payload.seed_resize_from_h > 0 and payload.seed_resize_from_w > 0,
        "restore_faces": bool(payload.restore_faces),
        "tiling": bool(payload.tiling),
        "refiner_checkpoint": isinstance(payload, Img2Img) and refiner_of(payload, []) is not None,
        "detailer_enabled": payload.detailer_enabled,
        "enhance_prompt": payload.enhance_prompt,
    }
    notes += [f"{name} is ignored" for name, wanted in asked.items() if wanted]
