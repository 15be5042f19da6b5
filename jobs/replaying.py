"""Make a request again out of what was drawn: of a job's parameters, of our metadata, of an infotext; pure."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from jobs.contract import REQUESTS, JobParameters, PreprocessParameters, UpscaleParameters
from jobs.prompts.infotext import Infotext

#: Fields of an infotext that are one number or name of ours.
_PLAIN: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "Steps": ("steps", int),
        "Sampler": ("scheduler", str),
        "CFG scale": ("guidance_scale", float),
        "Seed": ("seed", int),
        "Model": ("model", str),
        "Clip skip": ("clip_skip", int),
        "VAE": ("vae", str),
    }
)
_HIRES: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {
        "Hires upscale": ("scale", float),
        "Hires steps": ("steps", int),
        "Denoising strength": ("strength", float),
        "Hires upscaler": ("upscaler", str),
    }
)
_REFINER: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = MappingProxyType(
    {"Refiner": ("model", str), "Refiner switch at": ("switch_at", float)}
)
#: As A1111 writes them, and what stands for the model's own.
_RESAMPLERS: Final = frozenset({"latent", "lanczos", "nearest"})
_AUTOMATIC: Final = frozenset({"", "Automatic", "None"})


def request_of(parameters: JobParameters) -> dict[str, Any]:
    """Return the request that asks for what a job drew, seed included."""
    data = without_foreign(parameters.model_dump(mode="json"))
    if isinstance(parameters, PreprocessParameters) or (
        isinstance(parameters, UpscaleParameters) and parameters.refine is None
    ):
        # No checkpoint drew it: the name is that of what did.
        data.pop("model", None)
    return data


def without_foreign(data: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an object what is no field of its task's request, and what says nothing."""
    task = data.get("task", "txt2img")
    known = REQUESTS.get(task) if isinstance(task, str) else None
    fields = REQUESTS["txt2img"].model_fields if known is None else known.model_fields
    return {name: value for name, value in data.items() if name == "task" or (name in fields and value is not None)}


def request_of_infotext(infotext: Infotext) -> dict[str, Any]:
    """Return the request that an infotext describes; what it says in a way nobody understands is left out."""
    request: dict[str, Any] = {
        "task": "txt2img",
        "prompt": infotext.prompt,
        "negative_prompt": infotext.negative_prompt,
        **_read(infotext.fields, _PLAIN),
    }
    width, _, height = infotext.fields.get("Size", "").partition("x")
    if width.isdecimal() and height.isdecimal():
        request |= {"width": int(width[:6]), "height": int(height[:6])}
    refiner = _read(infotext.fields, _REFINER)
    if "model" in refiner:
        request["refiner"] = refiner
    schedule = infotext.fields.get("Schedule type", "")
    if schedule not in _AUTOMATIC:
        request["schedule_type"] = schedule
    if "Hires upscale" in infotext.fields:
        hires = _read(infotext.fields, _HIRES)
        upscaler = str(hires.get("upscaler", "latent"))
        hires["upscaler"] = upscaler.lower() if upscaler.lower() in _RESAMPLERS else upscaler
        request["hires"] = hires
    return request


def changed(request: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request with other fields; null takes a field back to its default."""
    merged = {**request, **changes}
    if "scheduler" in changes and "schedule_type" not in changes:
        # The schedule belonged to the scheduler that was there.
        merged.pop("schedule_type", None)
    return {name: value for name, value in merged.items() if value is not None}


def _read(fields: Mapping[str, str], names: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (field, convert) in names.items():
        text = fields.get(name, "")
        if text in _AUTOMATIC:
            continue
        try:
            found[field] = convert(text)
        except ValueError:
            continue
    return found
