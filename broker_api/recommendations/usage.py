"""How adapters are used, and which deserve to be shown first."""

from typing import Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from broker_api.recommendations.asking import find_adapter, reader_of
from broker_api.recommendations.hearing import CANDIDATES
from broker_api.recommendations.use import use_opinions
from broker_api.recommendations.views import MOST, Adapter
from broker_api.recommendations.weighing import shown
from jobs.history.usage import UNUSED, Usage, most_used, read_usage
from jobs.parts import Name
from models_registry.likeness.scores import Opinion
from models_registry.likeness.tastes import newest, read_facts, read_preferences, read_said


class AdapterUsage(BaseModel):
    """What jobs did with an adapter."""

    fleet: Usage
    mine: Usage
    owners: int = Field(description="How many owners used it.")


class FeaturedQuery(Query):
    """What to feature."""

    kind: Literal["lora", "embedding", "controlnet", "vae", "upscaler"] = "lora"
    family: Name | None = None
    limit: int = Field(default=8, ge=1, le=MOST)


class Featured(BaseModel):
    """An adapter worth a look, and why."""

    adapter: Adapter
    score: float
    why: str


class FeaturedList(BaseModel):
    """The best first; what is new where little was used."""

    items: list[Featured]
    next_cursor: str | None = None


async def read_adapter_usage(call: Call) -> Response:
    """Return what jobs did with an adapter: the caller's, and everybody's."""
    entry = await find_adapter(call, call.request.path_params["id"])
    async with call.services.pool.connection() as line:
        fleet = (await read_usage(line, [entry.id])).get(entry.id, UNUSED)
        mine = (await read_usage(line, [entry.id], call.principal.owner)).get(entry.id, UNUSED)
    return json_answer(AdapterUsage(fleet=fleet.usage, mine=mine.usage, owners=fleet.owners))


async def list_featured(call: Call) -> Response:
    """Return the adapters that are used and liked most, then those that came last."""
    query = call.query(FeaturedQuery)
    reader = reader_of(call)
    families = None if query.family is None else (query.family,)
    async with call.services.pool.connection() as line:
        hidden = (await read_preferences(line, reader.owner)).hidden
        new = await newest(line, reader, (query.kind,), families, CANDIDATES)
        candidates = {*new, *await most_used(line, (query.kind,), families, CANDIDATES)} - hidden
        facts = await read_facts(line, reader, candidates)
        opinions = use_opinions(await read_usage(line, list(facts)), await read_said(line, facts))
    fresh = Opinion(0.0, "New in the library; not used yet.")
    order = {entry: place for place, entry in enumerate(new)}
    chosen = sorted(facts, key=lambda each: (-opinions.get(each, fresh).score, order.get(each, len(order))))
    items = [
        Featured(adapter=shown(facts[each]), score=round(said.score, 4), why=said.why)
        for each in chosen[: query.limit]
        for said in (opinions.get(each, fresh),)
    ]
    return json_answer(FeaturedList(items=items))
