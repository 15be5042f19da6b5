"""Say how long prompts are, as the text encoder of a model counts."""

import asyncio
from typing import Final

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.admission.models import Models
from broker_api.admission.refusals import NoModels
from broker_api.admission.vocabularies import count_windows
from broker_api.endpoints import Answer, Body, Call, Endpoint
from broker_api.http.answers import json_answer
from broker_api.refusals import Starting
from jobs.errors import ModelUnknown
from jobs.parts import Name, Prompt, Strict
from jobs.prompts.tags import named_embeddings, take_tags
from models_registry.compatibility import mismatch
from models_registry.entries import ModelEntry


class CountTokens(Strict):
    """Prompts, as a request would have them."""

    model: Name | None = Field(default=None, description="The one that draws when a request names none, if left out.")
    prompt: Prompt = ""
    negative_prompt: Prompt = ""


class TokenCount(BaseModel):
    """How long one prompt is."""

    tokens: int = Field(
        description="Without LoRA tags and the marks of emphasis; an embedding's name counts its vectors."
    )
    windows: int = Field(
        description="How many the text encoder reads one behind the other; `BREAK` begins a new one. T5 and Qwen have one."
    )


class TokenCounts(BaseModel):
    """How long prompts are for one model."""

    model: str
    window: int | None = Field(
        description="Tokens that fit into one window: with T5 and Qwen the most that a prompt may have. Null where this server cannot know."
    )
    prompt: TokenCount | None
    negative_prompt: TokenCount | None


async def count_tokens(call: Call) -> Response:
    """Count the tokens of prompts."""
    asked = call.body(CountTokens)
    snapshots, reads_as = call.services.snapshots, call.principal.reader
    try:
        models = Models(snapshots.now.catalogue.seen_by(reads_as))
        entry = _model(models, asked.model)
    except ModelUnknown:
        # It may be newer than the snapshot.
        models = Models((await snapshots.refresh()).catalogue.seen_by(reads_as))
        entry = _model(models, asked.model)
    reader = await call.services.vocabularies.reader(entry)
    prompts = [take_tags(text).text for text in (asked.prompt, asked.negative_prompt)]
    words = _words(models, entry, prompts)
    unknown = TokenCounts(model=entry.name, window=None, prompt=None, negative_prompt=None)
    if reader is None or words is None:
        return json_answer(unknown)
    try:
        laid = [await asyncio.to_thread(count_windows, reader, prompt, words) for prompt in prompts]
    except ValueError:
        return json_answer(unknown)
    counted = [TokenCount(tokens=sum(windows), windows=len(windows)) for windows in laid]
    return json_answer(TokenCounts(model=entry.name, window=reader.room, prompt=counted[0], negative_prompt=counted[1]))


def _model(models: Models, name: str | None) -> ModelEntry:
    if name is not None:
        return models.named(name)
    found = models.catalogue.default()
    if found is None:
        raise NoModels("No model is registered yet: `imagefleet models scan` looks for some.", field="model")
    return found


def _words(models: Models, entry: ModelEntry, prompts: list[str]) -> dict[str, int] | None:
    """Return the embeddings that prompts name, with their places; None where one's are not known."""
    fitting = [each for each in models.catalogue.embeddings_in(prompts) if mismatch(each, entry) is None]
    named = set(named_embeddings(prompts, [each.name for each in fitting]))
    words = {each.name.casefold(): each.vectors for each in fitting if each.name in named}
    return None if None in words.values() else {name: count for name, count in words.items() if count is not None}


PROMPT_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/prompts/tokens", "countTokens", "Count the tokens of a prompt", "jobs", count_tokens,
        description=(
            "As the model's own text encoder counts them: a prompt longer than `window` is read in several windows, one behind the other. "
            "T5 (of Stable Diffusion 3 and FLUX.1), Qwen (of FLUX.2 klein, Qwen-Image and Z-Image) and Mistral (of FLUX.2 dev) have one "
            "window, and a longer prompt is refused at submit. "
            "Null where this server cannot know: the model's files lie on another host, hold T5's vocabulary as `spiece.model` alone, or "
            "have rules of their own."
        ),
        body=Body(models=(CountTokens,), parse=CountTokens.model_validate, example={"prompt": "a red circle on a blue background"}),
        answers=(Answer(200, "The counts.", TokenCounts),), errors=(ModelUnknown, NoModels, Starting),
    ),
)  # fmt: skip
