"""Write and read the line of text in which the A1111 world keeps a picture's parameters; pure.

```
a red circle <lora:frame:0.8>
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 0a1b2c3d4e, Model: name
```

What a task adds is named as A1111 and its ControlNet extension name it: `Denoising strength`, `Hires upscale`, `ControlNet 0`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from jobs.contract import (
    AnalyseParameters,
    DiffusionParameters,
    Img2ImgParameters,
    InpaintParameters,
    JobParameters,
    RefineParameters,
    Txt2ImgParameters,
    UpscaleParameters,
)
from jobs.parts import Control, Hires
from jobs.prompts.tags import write_number, write_tag
from models_registry.schedulers import SCHEDULE_TYPES, SchedulerNameError, find_scheduler

NEGATIVE: Final = "Negative prompt:"
#: A line with fewer fields than this belongs to the prompt.
FEWEST_FIELDS: Final = 3
#: Preprocessors' options under the names of A1111's ControlNet extension.
_OPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"low_threshold": "Threshold A", "high_threshold": "Threshold B", "threshold": "Threshold A"}
)
_FIELD: Final = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


class Infotext(NamedTuple):
    """What an infotext says."""

    prompt: str
    negative_prompt: str
    #: The last line's fields as written: `Steps`, `Sampler`, `CFG scale`, `Seed`, `Size`, `Model` …
    fields: Mapping[str, str]


def write_infotext(parameters: JobParameters, seed: int, model_hash: str) -> str:
    """Return the infotext of one picture; `seed` is the picture's own."""
    prompt, negative, fields = "", "", _own_fields(parameters)
    last = {"Size": f"{parameters.width}x{parameters.height}", "Model hash": model_hash, "Model": parameters.model}
    if isinstance(parameters, DiffusionParameters):
        tags = [write_tag(lora) for lora in parameters.loras]
        prompt, negative = (
            " ".join([parameters.prompt, *tags] if parameters.prompt else tags),
            parameters.negative_prompt,
        )
        fields = {**_denoising(parameters), "Seed": str(seed), **last, **fields}
    elif isinstance(parameters, UpscaleParameters) and parameters.refine is not None:
        refine = parameters.refine
        prompt, negative = refine.prompt, refine.negative_prompt
        fields = {
            **_denoising(refine),
            "Seed": str(seed),
            **last,
            "Denoising strength": write_number(refine.strength),
        } | fields
    else:
        fields = {**last, **fields}
    lines = [prompt] if prompt or isinstance(parameters, DiffusionParameters) else []
    if negative:
        lines.append(f"{NEGATIVE} {negative}")
    lines.append(_joined(fields))
    return "\n".join(lines)


def parse_infotext(text: str) -> Infotext:
    """Read an infotext of ours or of another program; a text without fields is all prompt."""
    *lines, last = text.strip("\n").split("\n")
    fields = parse_fields(last)
    if len(fields) < FEWEST_FIELDS:
        lines, fields = [*lines, last], {}
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in lines:
        if into is prompt and line.startswith(NEGATIVE):
            into = negative
            line = line.removeprefix(NEGATIVE).removeprefix(" ")  # noqa: PLW2901 - the rest of the same line
        into.append(line)
    return Infotext("\n".join(prompt), "\n".join(negative), fields)


def parse_fields(text: str) -> dict[str, str]:
    """Read `name: value` pairs with commas between; the value of `ControlNet 0` is such a text again."""
    return {name: _unquoted(value) for name, value in _FIELD.findall(text)}


def _denoising(parameters: DiffusionParameters | RefineParameters) -> dict[str, str]:
    sampler, schedule = _sampler(parameters.scheduler, parameters.schedule_type)
    return {
        "Steps": str(parameters.steps),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": write_number(parameters.guidance_scale),
    }


def _own_fields(parameters: JobParameters) -> dict[str, str]:
    """Return what the task and its additions say of themselves."""
    if isinstance(parameters, DiffusionParameters):
        fields = {"VAE": parameters.vae or ""}
        if parameters.clip_skip > 1:
            fields["Clip skip"] = str(parameters.clip_skip)
        return fields | _task_fields(parameters) | _refiner(parameters) | _controls(parameters.controls)
    if isinstance(parameters, UpscaleParameters):
        return {
            "Postprocess upscale by": write_number(parameters.scale),
            "Postprocess upscaler": parameters.upscaler,
        }
    if isinstance(parameters, AnalyseParameters):
        return {}
    return {"Preprocessor": parameters.preprocessor, **_options(parameters.preprocessor_options)}


def _task_fields(parameters: DiffusionParameters) -> dict[str, str]:
    match parameters:
        case Txt2ImgParameters(hires=Hires() as hires):
            return {
                "Denoising strength": write_number(hires.strength),
                "Hires upscale": write_number(hires.scale),
                "Hires steps": "" if hires.steps is None else str(hires.steps),
                "Hires upscaler": hires.upscaler,
            }
        case Img2ImgParameters():
            return {"Denoising strength": write_number(parameters.strength)}
        case InpaintParameters():
            fields = {
                "Denoising strength": write_number(parameters.strength),
                "Mask blur": str(parameters.mask_blur),
            }
            if parameters.inpaint_area == "masked":
                fields |= {"Inpaint area": "Only masked", "Masked area padding": str(parameters.inpaint_padding)}
            return fields
        case _:
            return {}


def _refiner(parameters: DiffusionParameters) -> dict[str, str]:
    refiner = parameters.refiner if isinstance(parameters, Txt2ImgParameters) else None
    if refiner is None:
        return {}
    return {"Refiner": refiner.model, "Refiner switch at": write_number(refiner.switch_at)}


def _controls(controls: Sequence[Control]) -> dict[str, str]:
    return {
        f"ControlNet {place}": _joined(
            {
                "Module": control.preprocessor or "none",
                "Model": control.model or "None",
                "Weight": write_number(control.scale),
                **_options(control.preprocessor_options),
                "Guidance Start": write_number(control.start),
                "Guidance End": write_number(control.end),
            }
        )
        for place, control in enumerate(controls)
    }


def _options(options: Mapping[str, float]) -> dict[str, str]:
    return {_OPTIONS.get(name, name): write_number(value) for name, value in options.items()}


def _sampler(scheduler: str, schedule_type: str | None) -> tuple[str, str]:
    try:
        spec = find_scheduler(scheduler, schedule_type)
    except SchedulerNameError:
        return scheduler, schedule_type or ""
    return spec.name, "" if spec.schedule_type is None else SCHEDULE_TYPES[spec.schedule_type].label


def _joined(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items() if value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",\n:") else value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
