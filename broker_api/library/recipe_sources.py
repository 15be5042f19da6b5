"""Where a recipe's content comes from: a person, a job, a picture's file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from broker_api.library.recipe_forms import RecipeSettings
from broker_api.library.refusals import RecipeUnsuitable
from broker_api.pictures.metadata import request_in, texts_in
from jobs.contract import DiffusionRequest, JobParameters
from jobs.parts import MAX_PROMPT, MAX_STACK, Lora
from jobs.prompts.resources import read_resources
from jobs.prompts.tags import take_tags
from jobs.replaying import request_of

LONGEST_DEFAULT_NAME: Final = 60
_LORAS: Final = TypeAdapter(list[Lora])


@dataclass(frozen=True)
class Content:
    """What a recipe draws."""

    prompt: str
    negative_prompt: str = ""
    model: str | None = None
    loras: tuple[Lora, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Hashes that a picture names, by the LoRAs' names; of the checkpoint under the empty name.
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Return a name for a recipe that was given none."""
        words = " ".join(self.prompt.split()) or ", ".join(lora.name for lora in self.loras) or "recipe"
        return words if len(words) <= LONGEST_DEFAULT_NAME else words[: LONGEST_DEFAULT_NAME - 1].rstrip() + "…"


def content_of_job(parameters: JobParameters) -> Content:
    """Return what a job drew, without the pictures it started from."""
    if not isinstance(parameters, DiffusionRequest):
        raise RecipeUnsuitable(
            f"The job's task is {parameters.task}: nothing was drawn from a prompt.", field="from_job"
        )
    return content_of_request(request_of(parameters))


def content_of_picture(file: bytes) -> Content:
    """Return what a picture's file says, ours or A1111's, with the hashes that it names."""
    request = request_in(file, field="image")
    ours, infotext = texts_in(file, "image")
    resources = read_resources(infotext)
    digests = dict(resources.loras)
    if resources.model is not None and not _is_json(ours):
        digests[""] = resources.model
    return content_of_request(request, digests)


def content_of_request(request: Mapping[str, Any], digests: Mapping[str, str] | None = None) -> Content:
    """Return the part of a request that a recipe keeps; what cannot be understood is left out."""
    tagged = take_tags(_text(request.get("prompt")))
    negative = take_tags(_text(request.get("negative_prompt")))
    try:
        listed = _LORAS.validate_python(request.get("loras") or [])
    except ValidationError:
        listed = []
    loras = {lora.name.casefold(): lora for lora in (*listed, *tagged.loras)}
    model = request.get("model")
    return Content(
        prompt=tagged.text,
        negative_prompt=negative.text,
        model=model if isinstance(model, str) and model else None,
        loras=tuple(loras.values())[:MAX_STACK],
        settings=_settings(request),
        digests=digests or {},
    )


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in RecipeSettings.model_fields:
        value = request.get(name)
        if value is None:
            continue
        try:
            found |= RecipeSettings.model_validate_json(json.dumps({name: value})).given()
        except (ValidationError, ValueError, TypeError):
            continue
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    return value.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_PROMPT]


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
