"""GET /v1/adapters, GET /v1/models and their tags: the library, searched."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.answers import json_answer
from broker_api.endpoints import Call, Query
from broker_api.library.entry_finding import kinds_of
from broker_api.library.entry_views import AdapterKind, AdapterView, ModelView, OpenAIModel, adapter_view, model_view
from jobs.cursors import CursorInvalid
from jobs.parts import Name, Text
from models_registry.entries import Kind
from models_registry.listing import Order, PageInvalid, TagCount, Wanted, count_tags, list_entries
from models_registry.records import Entry

MOST_LISTED = 1000
_LISTED = 200
_MOST_CURSOR = 1000
_MANY = 30

Cursor = Annotated[str, Field(max_length=_MOST_CURSOR, description="`next_cursor` of the page before.")]


class Filters(Query):
    """Which entries are wanted."""

    q: Text | None = Field(
        default=None, max_length=500, description="Beginnings of words of its name, tags, trigger words, description."
    )
    family: Name | None = Field(
        default=None, description="`sd15`; several with commas; `any` for what serves every family."
    )
    base_model: Name | None = None
    tag: Name | None = Field(default=None, description="Several with commas: it has all of them.")
    owner: Name | None = Field(default=None, description="Who added it.")
    favourite: bool | None = Field(default=None, description="Of the caller.")
    active: bool | None = Field(default=None, description="In the stack that the caller composes with.")
    rating: int | None = Field(default=None, ge=1, le=5, description="The caller's, at least.")
    missing: bool = Field(default=False, description="Those whose files are away, instead of those that are offered.")
    previewed: bool | None = Field(default=None, description="Whether it has preview pictures.")

    def wanted(self, kinds: tuple[Kind, ...]) -> Wanted:
        """Return what the registry looks for."""
        return Wanted(
            kinds=kinds, text=self.q, families=_several(self.family), base_model=self.base_model, tags=_several(self.tag),
            added_by=self.owner, favourite=self.favourite, active=self.active, rating=self.rating, missing=self.missing,
            previewed=self.previewed,
        )  # fmt: skip


class EntryQuery(Filters):
    """Which entries to list, in which order."""

    sort: Order | None = Field(
        default=None, description="By default relevance where `q` is given, else `created`, oldest first."
    )
    order: Literal["asc", "desc"] | None = Field(
        default=None, description="By default names rise, everything else falls."
    )
    cursor: Cursor | None = None
    limit: int = Field(default=_LISTED, ge=1, le=MOST_LISTED)


class AdapterQuery(EntryQuery):
    """Which adapters to list, in which order."""

    kind: AdapterKind | None = None


class TagQuery(Query):
    """Which tags to count."""

    kind: AdapterKind | None = None
    q: Text = Field(default="", max_length=100, description="What the tags begin with.")
    cursor: Cursor | None = None
    limit: int = Field(default=100, ge=1, le=MOST_LISTED)


class AdapterPage(BaseModel):
    """A page of adapters."""

    items: list[AdapterView]
    next_cursor: str | None = None


class ModelPage(BaseModel):
    """A page of models, for our clients and for OpenAI's."""

    items: list[ModelView]
    next_cursor: str | None = None
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class TagPage(BaseModel):
    """A page of tags, the most frequent first."""

    items: list[TagCount]
    next_cursor: str | None = None


async def list_adapters(call: Call) -> Response:
    """Return a page of adapters."""
    query = call.query(AdapterQuery)
    kinds = kinds_of(call) if query.kind is None else (Kind(query.kind),)
    found, following = await _page(call, query, kinds)
    items = [adapter_view(entry, call.principal.reader) for entry in found]
    return json_answer(AdapterPage(items=items, next_cursor=following))


async def list_models(call: Call) -> Response:
    """Return a page of checkpoints."""
    found, following = await _page(call, call.query(EntryQuery), (Kind.CHECKPOINT,))
    default = await default_ref(call)
    items = [model_view(entry, call.principal.reader, is_default=entry.ref == default) for entry in found]
    data = [OpenAIModel(id=entry.ref) for entry in found]
    return json_answer(ModelPage(items=items, next_cursor=following, data=data))


async def list_tags(call: Call) -> Response:
    """Return a page of the tags of what the caller may use."""
    query = call.query(TagQuery)
    kinds = kinds_of(call) if query.kind is None else (Kind(query.kind),)
    async with call.services.pool.connection() as connection:
        try:
            items, following = await count_tags(
                connection, kinds, reader=call.principal.reader, start=query.q, cursor=query.cursor, limit=query.limit
            )
        except PageInvalid:
            raise _cursor_invalid() from None
    return json_answer(TagPage(items=items, next_cursor=following))


async def default_ref(call: Call) -> str | None:
    """Return the model that draws for this caller when a request names none."""
    default = (await call.services.snapshots.refresh()).catalogue.seen_by(call.principal.reader).default()
    return None if default is None else default.name


async def _page(call: Call, query: EntryQuery, kinds: tuple[Kind, ...]) -> tuple[list[Entry], str | None]:
    falls = None if query.order is None else query.order == "desc"
    async with call.services.pool.connection() as connection:
        try:
            return await list_entries(
                connection, query.wanted(kinds), reader=call.principal.reader, order=query.sort, falls=falls,
                cursor=query.cursor, limit=query.limit,
            )  # fmt: skip
        except PageInvalid:
            raise _cursor_invalid() from None


def _several(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",")[:_MANY] if part.strip()) or None


def _cursor_invalid() -> CursorInvalid:
    return CursorInvalid("The cursor is not one this list gave out, in this order.", field="cursor")
