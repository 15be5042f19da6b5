"""Say what was drawn as A1111 says it: pictures as base64, the request echoed, `info` as JSON inside a string; pure."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from broker_api.doors.sdapi.drawing import Drawn
from broker_api.doors.sdapi.payloads import Generation, Img2Img
from jobs.contract import DiffusionParameters, Img2ImgParameters, InpaintParameters, JobParameters, Txt2ImgParameters
from jobs.prompts.infotext import write_infotext
from models_registry.schedulers import SchedulerNameError, find_scheduler

HASH_DIGITS: Final = 10
#: Longer texts inside script arguments (pictures, mostly) are not sent back.
LONGEST_ECHO: Final = 1000


def generation_answer(
    payload: Generation, drawn: Sequence[Drawn], notes: Sequence[str], *, fingerprint: str, version: str
) -> dict[str, Any]:
    """Return the body of an answer to txt2img or img2img."""
    sent = [picture for each in drawn for picture in each.pictures] if payload.send_images else []
    return {
        "images": [base64.b64encode(picture).decode() for picture in sent],
        "parameters": echo(payload, drawn[0].view.request),
        "info": json.dumps(info(payload, drawn, notes, fingerprint=fingerprint, version=version), ensure_ascii=False),
    }


def info(
    payload: Generation, drawn: Sequence[Drawn], notes: Sequence[str], *, fingerprint: str, version: str
) -> dict[str, Any]:
    """Return what A1111 tells of a finished request; `notes` say what was asked for and is not done here."""
    first = drawn[0].view.request
    if not isinstance(first, DiffusionParameters):
        raise TypeError("only what denoises has an info")
    digest = fingerprint[:HASH_DIGITS]
    seeds = [(each.view.request, image.seed) for each in drawn for image in each.view.images]
    # Interrupted before the first picture: clients read the first infotext all the same.
    seeds = seeds or [(first, first.seed)]
    prompts = [_diffusion(parameters) for parameters, _ in seeds]
    return {
        "prompt": first.prompt,
        "all_prompts": [parameters.prompt for parameters in prompts],
        "negative_prompt": first.negative_prompt,
        "all_negative_prompts": [parameters.negative_prompt for parameters in prompts],
        "seed": seeds[0][1],
        "all_seeds": [seed for _, seed in seeds],
        "subseed": payload.subseed,
        "all_subseeds": [payload.subseed for _ in seeds],
        "subseed_strength": 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": _sampler_name(first),
        "cfg_scale": first.guidance_scale,
        "steps": first.steps,
        "batch_size": payload.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": first.model,
        "sd_model_hash": digest,
        "sd_vae_name": first.vae,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": _strength(first),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [write_infotext(parameters, seed, digest) for parameters, seed in seeds],
        "styles": [],
        "job_timestamp": drawn[0].view.created_at.strftime("%Y%m%d%H%M%S"),
        "clip_skip": first.clip_skip,
        "is_using_inpainting_conditioning": isinstance(first, InpaintParameters),
        "version": version,
        # Ours.
        "jobs": [str(each.view.id) for each in drawn],
        "interrupted": any(each.interrupted for each in drawn),
        "notes": list(notes),
    }


def echo(payload: Generation, resolved: JobParameters) -> dict[str, Any]:
    """Return the request as it was understood; what it left out as it was resolved."""
    said = payload.model_dump(mode="json")
    if isinstance(resolved, DiffusionParameters):
        usual = {
            "width": resolved.width,
            "height": resolved.height,
            "steps": resolved.steps,
            "cfg_scale": resolved.guidance_scale,
            "sampler_name": _sampler_name(resolved),
            "denoising_strength": _strength(resolved),
        }
        said |= {name: value for name, value in usual.items() if said.get(name) is None}
    if isinstance(payload, Img2Img) and not payload.include_init_images:
        said |= {"init_images": None, "mask": None}
    return {**said, **{name: shortened(said[name]) for name in ("alwayson_scripts", "script_args", "control_units")}}


def shortened(value: Any) -> Any:
    """Replace long texts, pictures mostly, by their length, as SD.Next does."""
    if isinstance(value, str):
        return f"<str {len(value)}>" if len(value) >= LONGEST_ECHO else value
    if isinstance(value, Mapping):
        return {name: shortened(inner) for name, inner in value.items()}
    return [shortened(inner) for inner in value] if isinstance(value, list) else value


def _diffusion(parameters: JobParameters) -> DiffusionParameters:
    if not isinstance(parameters, DiffusionParameters):
        raise TypeError("only what denoises has a prompt")
    return parameters


def _sampler_name(parameters: DiffusionParameters) -> str:
    try:
        return find_scheduler(parameters.scheduler).name
    except SchedulerNameError:
        return parameters.scheduler


def _strength(parameters: JobParameters) -> float | None:
    if isinstance(parameters, Txt2ImgParameters):
        return None if parameters.hires is None else parameters.hires.strength
    return parameters.strength if isinstance(parameters, Img2ImgParameters | InpaintParameters) else None
