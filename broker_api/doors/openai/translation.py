"""Turn OpenAI's requests into ours; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from broker_api.doors.openai.payloads import AUTO, Drawing, Variation
from broker_api.doors.openai.presets import is_theirs, preset_steps, size_problem
from broker_api.doors.openai.refusals import FieldRefused
from broker_api.doors.uses import without_meaningless
from broker_api.problems import problem_of
from jobs.contract import JobRequest, Task, parse_request
from jobs.errors import RequestRefused
from models_registry.entries import ModelEntry
from models_registry.families import Guidance, facts_of
from models_registry.offers import Catalogue

#: How far a variation without a word of its own goes from its source.
VARIATION_STRENGTH: Final = 0.6


@dataclass(frozen=True)
class Sources:
    """The pictures of a request, as our requests name them."""

    image: str
    mask: str | None = None


def model_of(payload: Drawing, catalogue: Catalogue) -> str | None:
    """Return the model that is meant; OpenAI's own names mean the default where no model here has them."""
    name = payload.model
    return None if name is None or (is_theirs(name) and catalogue.find(name) is None) else name


def task_of(sources: Sources | None) -> Task:
    """Return the task that pictures make of a request."""
    if sources is None:
        return "txt2img"
    return "img2img" if sources.mask is None else "inpaint"


def request_of(payload: Drawing, entry: ModelEntry, sources: Sources | None = None) -> JobRequest:
    """Return our request, raising `FieldRefused` with their name of the field at fault."""
    names = their_names(payload)
    width, height = payload.asked_size
    problem = size_problem(width, height, entry)
    if problem is not None:
        raise FieldRefused(problem, field=names["width"])
    # The true scale is that of a guidance by the negative prompt.
    true_scale = payload.true_cfg_scale if facts_of(entry).guidance is Guidance.CLASSIFIER_FREE else None
    fields: dict[str, Any] = {
        "task": task_of(sources),
        "model": entry.name,
        "prompt": payload.prompt,
        "negative_prompt": payload.negative_prompt,
        "width": width,
        "height": height,
        "num_images": payload.n,
        "steps": payload.asked_steps or preset_steps(payload.quality, entry),
        "guidance_scale": true_scale if payload.guidance_scale is None else payload.guidance_scale,
        "scheduler": payload.scheduler,
        "seed": payload.seed,
        "clip_skip": payload.clip_skip,
        "loras": [lora.ours() for lora in (*payload.loras, *payload.lora)],
        "output": _output(payload),
    }
    if sources is not None:
        usual = VARIATION_STRENGTH if isinstance(payload, Variation) else None
        fields |= {"image": sources.image, "mask": sources.mask}
        fields["strength"] = usual if payload.strength is None else payload.strength
    try:
        useful = without_meaningless(fields, entry)
        return parse_request({name: value for name, value in useful.items() if value is not None})
    except ValidationError as error:
        found = problem_of(error).problem
        raise FieldRefused(found.detail, field=their_name(found.field, names)) from None


def their_names(payload: Drawing) -> Mapping[str, str]:
    """Return our names of fields to those under which this request has them."""
    given = payload.model_fields_set
    steps = next((name for name in ("num_inference_steps", "steps") if name in given), "quality")
    sized = {side: side if side in given or payload.size == AUTO else "size" for side in ("width", "height")}
    return {
        **sized,
        "num_images": "n",
        "steps": steps,
        "guidance_scale": "guidance_scale" if "guidance_scale" in given else "true_cfg_scale",
        "output.format": "output_format",
        "output.quality": "output_compression",
        "loras": "lora" if payload.lora and not payload.loras else "loras",
        "schedule_type": "scheduler",
        "task": "model",
    }


def their_name(field: str | None, names: Mapping[str, str]) -> str | None:
    """Return their name of one of our fields."""
    if field is None:
        return None
    head, dot, rest = field.partition(".")
    return names.get(field) or (f"{names[head]}{dot}{rest}" if head in names else field)


def renamed(error: RequestRefused, names: Mapping[str, str]) -> RequestRefused:
    """Return a refusal that names the field as this request has it."""
    error.field = their_name(error.field, names)
    return error


def _output(payload: Drawing) -> dict[str, Any]:
    if payload.output_format == "png":
        return {"format": "png"}
    return {"format": payload.output_format, "quality": max(1, payload.output_compression)}
