"""POST /v1/compose: the active adapters, a recipe or a list become a prompt, and a job where that is wanted."""

import contextlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found, parse_id
from broker_api.http.answers import json_answer
from broker_api.library.recipe_forms import RecipeSettings
from broker_api.library.recipe_views import lora_here, loras_here, reader_of
from broker_api.library.recipes import request_of_recipe
from broker_api.library.refusals import NothingActive, RecipeUnknown
from broker_api.library.stacks import Asked, Found, choose_checkpoint, find_adapters
from broker_api.native.jobs import LONGEST_WAIT_SECONDS, CreateQuery, accept, accepted
from broker_api.native.replay import Changes
from broker_api.refusals import NotFound
from jobs.composing import Composed, Piece, compose
from jobs.contract import JobView, parse_request
from jobs.errors import AdapterUnknown
from jobs.parts import MAX_STACK, Lora, Name, Prompt, Strict
from jobs.replaying import changed
from jobs.states import TERMINAL
from models_registry.entries import Kind
from models_registry.recipes.stacks import active_stack
from models_registry.recipes.store import Recipe, find_recipe, read_recipe

_UUID_LENGTH: Final = 36


class ComposeQuery(Query):
    """Whether to draw at once."""

    submit: bool = Field(default=False, description="Submit the job, as the field of the body does.")
    wait: float = Field(default=0, ge=0, le=LONGEST_WAIT_SECONDS, description="As of `POST /v1/jobs`.")


class StackedLora(Strict):
    """A LoRA of an explicit list."""

    name: Name
    weight: float | None = Field(default=None, ge=-10, le=10, description="Left out, the entry's own, else 1.")
    text_encoder_weight: float | None = Field(default=None, ge=-10, le=10)


class Compose(Strict):
    """What to compose: by default the caller's active adapters."""

    prompt: Prompt = ""
    negative_prompt: Prompt = ""
    model: Name | None = Field(default=None, description="Left out, the recipe's, else one that fits the adapters.")
    recipe: Name | None = Field(default=None, description="Id or name of a recipe, in place of what is active.")
    loras: list[StackedLora] | None = Field(
        default=None, max_length=MAX_STACK, description="An explicit stack, in place of what is active or the recipe's."
    )
    trigger_words: bool = Field(default=True, description="Say each adapter's trigger words, unless the prompt does.")
    skip_missing: bool = Field(
        default=False, description="Leave out what is not here, and warn, in place of a refusal."
    )
    settings: RecipeSettings = RecipeSettings()
    submit: bool = Field(default=False, description="Submit the job at once.")


class Composition(BaseModel):
    """A prompt that asks for a stack of adapters."""

    prompt: str = Field(description="With `<lora:name:weight>` for each LoRA, and trigger words.")
    negative_prompt: str
    loras: list[Lora]
    model: str = Field(description="The checkpoint that it was checked against.")
    vae: str | None
    settings: dict[str, Any]
    warnings: list[str]
    job: JobView | None = Field(default=None, description="With `submit`, the job.")


class GenerateRecipe(Strict):
    """What to change of a recipe for this once."""

    changes: Changes = Field(default_factory=dict)


async def compose_prompt(call: Call) -> Response:
    """Compose a prompt, and submit it where that is wanted."""
    wanted, query = call.body(Compose), call.query(ComposeQuery)
    recipe = None if wanted.recipe is None else await _recipe(call, wanted.recipe)
    warnings: list[str] = []
    asked = await _asked(call, wanted, recipe, warnings)
    found = await find_adapters(call, asked, skip_missing=wanted.skip_missing, warnings=warnings)
    if not found and recipe is None:
        raise NothingActive(
            "Nothing is active: activate adapters, name a recipe, or send `loras`.",
            field="loras" if wanted.loras == [] else None,
        )
    model = await choose_checkpoint(call, wanted.model or (recipe.model if recipe else None), found)
    composed = compose(
        [_piece(each) for each in found],
        _joined(recipe.prompt if recipe else "", wanted.prompt),
        _joined(recipe.negative_prompt if recipe else "", wanted.negative_prompt),
        trigger_words=wanted.trigger_words,
    )
    settings = {**(recipe.settings if recipe else {}), **wanted.settings.given()}
    answer = Composition(
        prompt=composed.prompt, negative_prompt=composed.negative_prompt, loras=list(composed.loras), model=model,
        vae=settings.get("vae") or composed.vae, settings=settings, warnings=[*warnings, *composed.warnings],
    )  # fmt: skip
    if not (wanted.submit or query.submit):
        return json_answer(answer)
    job, headers = await accepted(call, parse_request(_request(answer, composed)), CreateQuery(wait=query.wait))
    if not isinstance(job, JobView):
        raise TypeError("only a dry run gives no job")
    answer.job = job
    return json_answer(answer, HTTPStatus.OK if job.state in TERMINAL else HTTPStatus.ACCEPTED, headers)


async def generate_recipe(call: Call) -> Response:
    """Draw a recipe as `POST /v1/jobs` draws a request."""
    async with call.services.pool.connection() as connection:
        recipe = await read_recipe(connection, call.principal.sees, call.job())
    if recipe is None:
        raise not_found()
    loras = [lora for lora, _ in await _here(call, recipe, None)]
    request = changed(request_of_recipe(recipe, loras), call.body(GenerateRecipe).changes)
    return await accept(call, parse_request(request), call.query(CreateQuery))


async def _recipe(call: Call, named: str) -> Recipe:
    async with call.services.pool.connection() as connection:
        found = await find_recipe(connection, call.principal.owner, named)
        if found is None and len(named) == _UUID_LENGTH:
            with contextlib.suppress(NotFound):
                found = await read_recipe(connection, call.principal.sees, parse_id(named))
    if found is None:
        raise RecipeUnknown("There is no recipe of this name or id that you may see.", field="recipe")
    return found


async def _asked(call: Call, wanted: Compose, recipe: Recipe | None, warnings: list[str]) -> list[Asked]:
    if wanted.loras is not None:
        return [
            Asked(Kind.LORA, lora.name, lora.weight, lora.text_encoder_weight, f"loras.{place}.name")
            for place, lora in enumerate(wanted.loras)
        ]
    if recipe is not None:
        here = await _here(call, recipe, warnings if wanted.skip_missing else None)
        return [
            Asked(Kind.LORA, lora.name, lora.weight, lora.text_encoder_weight, f"recipe.loras.{place}")
            for lora, place in here
        ]
    async with call.services.pool.connection() as connection:
        marks = await active_stack(connection, reader_of(call))
    return [Asked(mark.ref.kind, mark.ref.name, mark.weight, None, None) for mark in marks]


async def _here(call: Call, recipe: Recipe, warnings: list[str] | None) -> list[tuple[Lora, int]]:
    """Return a recipe's LoRAs under the names they have here; missing ones are refused, or skipped where warnings are taken."""
    async with call.services.pool.connection() as connection:
        here = await loras_here(connection, reader_of(call), recipe.loras)
    found: list[tuple[Lora, int]] = []
    missing = []
    for place, lora in enumerate(recipe.loras):
        entry = lora_here(lora, here)
        if entry is None:
            missing.append(lora.name)
        else:
            values = lora.model_dump(exclude={"sha256"}) | {"name": entry.name}
            found.append((Lora(**values), place))
    if missing and warnings is None:
        raise AdapterUnknown(f"The recipe names LoRAs that are not here: {', '.join(missing)}.", field="recipe.loras")
    if warnings is not None:
        warnings += [f"{name} is not here and was left out." for name in missing]
    return found


def _piece(found: Found) -> Piece:
    facts = found.facts
    return Piece(
        kind=found.entry.kind, name=found.entry.name, weight=found.asked.weight, text_encoder_weight=found.asked.text_encoder_weight,
        usual=facts.weight, lightest=facts.weight_min, heaviest=facts.weight_max, trigger_words=facts.trigger_words, tags=facts.tags,
    )  # fmt: skip


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _request(answer: Composition, composed: Composed) -> Mapping[str, Any]:
    # The list in place of the tags: it holds every name, and nothing twice.
    loras: Sequence[Lora] = answer.loras
    request = {
        "task": "txt2img", **answer.settings, "model": answer.model, "prompt": composed.plain, "negative_prompt": answer.negative_prompt,
        "loras": [lora.model_dump() for lora in loras], "vae": answer.vae,
    }  # fmt: skip
    return {name: value for name, value in request.items() if value is not None}
