"""POST /v1/adapters/bulk: do one thing to many entries in one transaction, all or none."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from broker_api.library.entry_deleting import delete_all
from broker_api.library.entry_finding import kinds_of
from broker_api.library.entry_forms import Tags
from broker_api.library.entry_lists import Filters
from broker_api.library.entry_refusals import BulkRefused
from broker_api.library.entry_views import AdapterKind, may_change
from infra.database import AsyncConnection
from jobs.parts import Strict
from models_registry.entries import Kind
from models_registry.library import read_many
from models_registry.listing import matching
from models_registry.marks import mark
from models_registry.records import Entry
from models_registry.tagging import MOST_TAGS, tag, untag

MOST_AT_ONCE: Final = 10_000


class Action(StrEnum):
    """Name what can be done to many entries."""

    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    FAVOURITE = "favourite"
    UNFAVOURITE = "unfavourite"
    TAG = "tag"
    UNTAG = "untag"
    DELETE = "delete"


#: What only changes the caller's own marks.
_MARKS: Final[Mapping[Action, Mapping[str, bool]]] = {
    Action.ACTIVATE: {"active": True},
    Action.DEACTIVATE: {"active": False},
    Action.FAVOURITE: {"favourite": True},
    Action.UNFAVOURITE: {"favourite": False},
}


class BulkFilter(Filters):
    """Which entries are meant, as their list finds them."""

    kind: AdapterKind | None = None


class Bulk(Strict):
    """What to do, and to which entries: by their ids, or by what finds them in their list."""

    # Names and numbers in JSON, as in a query.
    model_config = ConfigDict(strict=False, extra="forbid", frozen=True)

    action: Action
    ids: list[UUID] | None = Field(default=None, min_length=1, max_length=MOST_AT_ONCE)
    filter: BulkFilter | None = None
    tags: Tags = Field(default_factory=list, description="For `tag` and `untag`.")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise PydanticCustomError("bulk_target", "Give either `ids` or `filter`")
        if (self.action in {Action.TAG, Action.UNTAG}) != bool(self.tags):
            raise PydanticCustomError("bulk_tags", "`tags` belong to `tag` and `untag`, which need some")
        return self


class BulkDone(BaseModel):
    """What was done: to all of these."""

    action: Action
    ids: list[UUID]


async def bulk(call: Call) -> Response:
    """Do one thing to many entries, or nothing; a refusal says of each entry in the way why."""
    asked = call.body(Bulk)
    async with call.services.pool.connection() as connection, connection.transaction():
        ids = await _meant(call, connection, asked)
        found = await read_many(connection, ids, kinds=kinds_of(call), reader=call.principal.reader)
        _refuse(
            {each: ("not_found", "There is no such thing, or it is not yours.") for each in ids if each not in found},
            asked,
        )
        if asked.action in _MARKS:
            await mark(connection, call.principal.owner, ids, _MARKS[asked.action])
        else:
            await _change(call, connection, asked, [found[each] for each in ids])
    return json_answer(BulkDone(action=asked.action, ids=ids))


async def _meant(call: Call, connection: AsyncConnection, asked: Bulk) -> list[UUID]:
    if asked.filter is None:
        return list(dict.fromkeys(asked.ids or []))
    kinds = kinds_of(call) if asked.filter.kind is None else (Kind(asked.filter.kind),)
    wanted = asked.filter.wanted(kinds)
    found = await matching(connection, wanted, reader=call.principal.reader, limit=MOST_AT_ONCE + 1)
    if len(found) > MOST_AT_ONCE:
        raise BulkRefused(f"The filter finds more than {MOST_AT_ONCE} entries.", field="filter")
    return found


async def _change(call: Call, connection: AsyncConnection, asked: Bulk, entries: Sequence[Entry]) -> None:
    reader = call.principal.reader
    foreign = {
        entry.id: ("forbidden", "Only who added it, or an admin, may change it.")
        for entry in entries
        if not may_change(entry, reader)
    }
    _refuse(foreign, asked)
    ids = [entry.id for entry in entries]
    if asked.action is Action.TAG:
        full = await tag(connection, ids, asked.tags)
        _refuse(dict.fromkeys(full, ("tags_full", f"It would have more than {MOST_TAGS} tags.")), asked)
    elif asked.action is Action.UNTAG:
        await untag(connection, ids, asked.tags)
    else:
        refused = await delete_all(connection, entries)
        _refuse({each: ("in_use", message) for each, message in refused.items()}, asked)


def _refuse(reasons: Mapping[UUID, tuple[str, str]], asked: Bulk) -> None:
    """Undo everything, unless there is no reason to."""
    if not reasons:
        return
    places = {each: f"ids.{place}" for place, each in enumerate(asked.ids or [])}
    each = [(places.get(which, str(which)), code, f"{which}: {message}") for which, (code, message) in reasons.items()]
    raise BulkRefused(
        f"Nothing was done: {asked.action} cannot be done to {len(each)} of the entries. {each[0][2]}",
        field=each[0][0],
        each=each,
    )
