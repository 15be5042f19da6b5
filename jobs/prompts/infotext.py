"""Write and read the line of text in which the A1111 world keeps a picture's parameters; pure.

```
a red circle
Negative prompt: blurry
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: 0a1b2c3d4e, Model: name
```
"""

import json
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from jobs.contract import DiffusionParameters, JobParameters
from models_registry.schedulers import SCHEDULE_TYPES, SchedulerNameError, find_scheduler

NEGATIVE: Final = "Negative prompt:"
#: A line with fewer fields than this belongs to the prompt.
FEWEST_FIELDS: Final = 3
_FIELD: Final = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


class Infotext(NamedTuple):
    """What an infotext says."""

    prompt: str
    negative_prompt: str
    #: The last line's fields as written: `Steps`, `Sampler`, `CFG scale`, `Seed`, `Size`, `Model` …
    fields: Mapping[str, str]


def write_infotext(parameters: JobParameters, seed: int, model_hash: str) -> str:
    """Return the infotext of one picture; `seed` is the picture's own."""
    if not isinstance(parameters, DiffusionParameters):
        return f"Size: {parameters.width}x{parameters.height}, Model hash: {model_hash}, Model: {parameters.model}"
    sampler, schedule = _sampler(parameters)
    fields = {
        "Steps": str(parameters.steps),
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": _number(parameters.guidance_scale),
        "Seed": str(seed),
        "Size": f"{parameters.width}x{parameters.height}",
        "Model hash": model_hash,
        "Model": parameters.model,
    }
    lines = [parameters.prompt]
    if parameters.negative_prompt:
        lines.append(f"{NEGATIVE} {parameters.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items() if value))
    return "\n".join(lines)


def parse_infotext(text: str) -> Infotext:
    """Read an infotext of ours or of another program; a text without fields is all prompt."""
    *lines, last = text.strip("\n").split("\n")
    fields = {name: _unquoted(value) for name, value in _FIELD.findall(last)}
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


def _sampler(parameters: DiffusionParameters) -> tuple[str, str]:
    try:
        spec = find_scheduler(parameters.scheduler, parameters.schedule_type)
    except SchedulerNameError:
        return parameters.scheduler, parameters.schedule_type or ""
    return spec.name, "" if spec.schedule_type is None else SCHEDULE_TYPES[spec.schedule_type].label


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ",\n:") else value


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
