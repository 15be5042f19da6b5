"""What waits and which models there are: lists that every key may read."""

from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.answers import json_answer
from broker_api.endpoints import Call
from broker_api.refusals import NotFound
from jobs.reading import QueueView, queues
from models_registry.entries import Component, Kind, ModelEntry
from models_registry.families import FAMILIES, tasks_of


class QueuePage(BaseModel):
    """All queues in which something waits or runs, or which a worker serves."""

    items: list[QueueView]
    next_cursor: str | None = None


class ModelView(BaseModel):
    """A checkpoint and what a request may ask of it."""

    name: str
    title: str = Field(description="As A1111's clients show it.")
    kind: str
    family: str
    variant: str
    tasks: list[str]
    native_size: int = Field(description="Side of a picture when the request names no size, pixels.")
    text_width: int | None = Field(description="Adapters must be made for text features of this width.")
    size_step: int = Field(description="Width and height must be multiples of this.")
    min_side: int
    max_side: int
    default_steps: int
    default_guidance_scale: float
    default_scheduler: str
    fingerprint: str
    bytes: int
    components: list[Component]
    is_default: bool


class OpenAIModel(BaseModel):
    """A model as OpenAI's clients list it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "imagefleet"


class OneModel(ModelView, OpenAIModel):
    """A model, for our clients and for OpenAI's."""


class ModelPage(BaseModel):
    """All models, for our clients and for OpenAI's."""

    items: list[ModelView]
    next_cursor: str | None = None
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


async def list_queues(call: Call) -> Response:
    """Return every queue."""
    async with call.services.pool.connection() as connection:
        return json_answer(QueuePage(items=await queues(connection)))


async def list_models(call: Call) -> Response:
    """Return every checkpoint that can be asked for."""
    catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    default = catalogue.default()
    entries = catalogue.of_kind(Kind.CHECKPOINT)
    return json_answer(
        ModelPage(
            items=[_model_view(entry, is_default=entry is default) for entry in entries],
            data=[OpenAIModel(id=entry.name) for entry in entries],
        )
    )


async def read_model(call: Call) -> Response:
    """Return one checkpoint."""
    name = call.request.path_params["id"]
    catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    found = catalogue.find(name)
    if found is None:
        raise NotFound(f"No model is named {name[:100]!r}.", field="model")
    default = catalogue.default()
    view = _model_view(found, is_default=default is not None and found.name == default.name)
    return json_answer(OneModel(id=found.name, **view.model_dump()))


def _model_view(entry: ModelEntry, *, is_default: bool) -> ModelView:
    family = FAMILIES[entry.family]
    guidance = entry.default_guidance_scale
    # Without its path: where files lie on a server is no client's business.
    return ModelView(
        name=entry.name,
        title=entry.title,
        kind=entry.kind,
        family=entry.family,
        variant=entry.variant,
        tasks=sorted(tasks_of(entry)),
        native_size=entry.native_size,
        text_width=entry.text_width,
        size_step=family.size_step,
        min_side=min(family.min_side, entry.native_size),
        max_side=family.max_side,
        default_steps=entry.default_steps or family.default_steps,
        default_guidance_scale=family.default_guidance_scale if guidance is None else guidance,
        default_scheduler=entry.default_scheduler or family.default_scheduler,
        fingerprint=entry.fingerprint,
        bytes=entry.bytes,
        components=list(entry.components),
        is_default=is_default,
    )
