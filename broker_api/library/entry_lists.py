"""GET /v1/adapters, GET /v1/models and their tags: the library, searched."""

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from broker_api.library.entry_finding import kinds_of
from broker_api.library.entry_views import AdapterKind, AdapterView, ModelView, OpenAIModel, adapter_view, model_view
from jobs.cursors import CursorInvalid
from jobs.history.use_totals import BY_USES, UNUSED, Uses, read_uses
from jobs.parts import Name, Text
from models_registry.entries import Kind
from models_registry.listing import (
    Order,
    Ordering,
    PageInvalid,
    TagCount,
    Wanted,
    count_tags,
    list_entries,
    list_refs,
)
from models_registry.records import Entry

MOST_LISTED = 1000
_LISTED = 200
#: Models that are named at once to OpenAI's clients, which ask for no second page.
MOST_NAMED = 10_000
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

    sort: Order | Literal["uses"] | None = Field(
        default=None, description="By default relevance where `q` is given, else `created`, oldest first."
    )
    order: Literal["asc", "desc"] | None = Field(
        default=None, description="By default names rise, everything else falls."
    )
    cursor: Cursor | None = None
    limit: int = Field(default=_LISTED, ge=1, le=MOST_LISTED)

    @property
    def sorted_by(self) -> Order | Ordering | None:
        """Return what the registry sorts by."""
        return BY_USES if self.sort == "uses" else self.sort

    @property
    def falls(self) -> bool | None:
        """Tell whether what is sorted by falls; None for what is usual."""
        return None if self.order is None else self.order == "desc"


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
    data: list[OpenAIModel] = Field(
        description=f"The page's; where neither `limit` nor `cursor` is given every model that is wanted, up to {MOST_NAMED}: OpenAI's "
        "clients do not page."
    )


class TagPage(BaseModel):
    """A page of tags, the most frequent first."""

    items: list[TagCount]
    next_cursor: str | None = None


async def list_adapters(call: Call) -> Response:
    """Return a page of adapters."""
    query = call.query(AdapterQuery)
    kinds = kinds_of(call) if query.kind is None else (Kind(query.kind),)
    found, following = await _page(call, query, kinds)
    uses = await uses_of(call, found)
    items = [adapter_view(entry, call.principal.reader, uses(entry)) for entry in found]
    return json_answer(AdapterPage(items=items, next_cursor=following))


async def list_models(call: Call) -> Response:
    """Return a page of checkpoints."""
    query = call.query(EntryQuery)
    found, following = await _page(call, query, (Kind.CHECKPOINT,))
    default, uses = await default_ref(call), await uses_of(call, found)
    items = [model_view(entry, call.principal.reader, uses(entry), is_default=entry.ref == default) for entry in found]
    refs = [entry.ref for entry in found]
    if following is not None and not {"limit", "cursor"} & query.model_fields_set:
        refs = await _all_refs(call, query)
    data = [OpenAIModel(id=ref) for ref in refs]
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


async def uses_of(call: Call, entries: Sequence[Entry]) -> Callable[[Entry], Uses]:
    """Return what tells how much each of these entries was used, having read it in one statement."""
    async with call.services.pool.connection() as connection:
        found = await read_uses(connection, [entry.id for entry in entries])
    return lambda entry: found.get(entry.id, UNUSED)


async def _all_refs(call: Call, query: EntryQuery) -> list[str]:
    async with call.services.pool.connection() as connection:
        return await list_refs(
            connection, query.wanted((Kind.CHECKPOINT,)), reader=call.principal.reader, order=query.sorted_by, falls=query.falls,
            limit=MOST_NAMED,
        )  # fmt: skip


async def _page(call: Call, query: EntryQuery, kinds: tuple[Kind, ...]) -> tuple[list[Entry], str | None]:
    async with call.services.pool.connection() as connection:
        try:
            return await list_entries(
                connection, query.wanted(kinds), reader=call.principal.reader, order=query.sorted_by, falls=query.falls,
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
