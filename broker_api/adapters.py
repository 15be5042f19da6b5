"""What can be added to a checkpoint or used without one: LoRAs, ControlNets, embeddings, VAEs, upscalers, annotators."""

from enum import StrEnum

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.answers import json_answer
from broker_api.endpoints import Call, Query
from models_registry.entries import Kind, ModelEntry


class AdapterKind(StrEnum):
    """Name every kind but checkpoints, which are listed as models."""

    LORA = "lora"
    CONTROLNET = "controlnet"
    EMBEDDING = "embedding"
    VAE = "vae"
    UPSCALER = "upscaler"
    PREPROCESSOR = "preprocessor"


class AdapterQuery(Query):
    """Which adapters to list."""

    kind: AdapterKind | None = None
    family: str | None = Field(
        default=None, max_length=40, description="`sd15`; `any` for what serves every family, as upscalers do."
    )


class AdapterView(BaseModel):
    """One adapter."""

    name: str
    title: str = Field(description="As A1111's clients show it.")
    kind: AdapterKind
    family: str
    variant: str = Field(
        description="LoRAs: `lora`, `locon`, `loha`, `lokr`; VAEs: `base`, `tiny`; upscalers: the architecture."
    )
    fingerprint: str
    bytes: int
    rank: int | None = Field(description="LoRAs: the largest rank of their matrices.")
    scale: int | None = Field(description="Upscalers: how much one pass enlarges, where the file tells.")
    vectors: int | None = Field(description="Embeddings: how many tokens the name stands for.")
    text_width: int | None = Field(description="What it adapts must have text features of this width.")


class AdapterPage(BaseModel):
    """All adapters, kind by kind, those known longest first."""

    items: list[AdapterView]
    next_cursor: str | None = None


async def list_adapters(call: Call) -> Response:
    """Return every adapter of a kind and family."""
    query = call.query(AdapterQuery)
    catalogue = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader)
    found = [
        entry
        for kind in ([Kind(query.kind)] if query.kind is not None else map(Kind, AdapterKind))
        for entry in catalogue.of_kind(kind)
        if query.family in {None, entry.family}
    ]
    return json_answer(AdapterPage(items=[_view(entry) for entry in found]))


def _view(entry: ModelEntry) -> AdapterView:
    # Without its path: where files lie on a server is no client's business.
    return AdapterView(
        name=entry.name,
        title=entry.title,
        kind=AdapterKind(entry.kind),
        family=entry.family,
        variant=entry.variant,
        fingerprint=entry.fingerprint,
        bytes=entry.bytes,
        rank=entry.rank,
        scale=entry.scale,
        vectors=entry.vectors,
        text_width=entry.text_width,
    )
