"""/v1/library/lookups: have entries that are here looked up by what CivitAI knows of their files."""

from http import HTTPStatus
from typing import Annotated, Final, cast
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response
from uuid_utils.compat import uuid7

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from broker_api.library.following import ProgressStream
from jobs.parts import Strict
from models_registry.pulls.lookups import Lookup, add_lookup, read_lookup
from models_registry.pulls.states import ENDED

MOST_NAMED: Final = 10_000


class CreateLookup(Strict):
    """Which entries to look up."""

    entries: Annotated[list[UUID], Field(min_length=1, max_length=MOST_NAMED)] | None = Field(
        default=None, description="Ids; left out, all that you may change. Those that you may not change are left out."
    )


async def create_lookup(call: Call) -> Response:
    """Queue a look-up."""
    wanted = call.body(CreateLookup)
    caller = call.principal
    async with call.services.pool.connection() as connection:
        made = await add_lookup(connection, uuid7(), caller.owner, everyones=caller.is_admin, entries=wanted.entries)
    return json_answer(made, HTTPStatus.ACCEPTED, {"location": f"/v1/library/lookups/{made.id}"})


async def read_one_lookup(call: Call) -> Response:
    """Return a look-up."""
    return json_answer(await _read(call))


async def follow_lookup(call: Call) -> Response:
    """Stream how a look-up goes."""
    await _read(call)
    identity, sees, pool = call.job(), call.principal.sees, call.services.pool

    async def read() -> BaseModel | None:
        async with pool.connection() as connection:
            return await read_lookup(connection, sees, identity)

    return ProgressStream(call.services.hub, read, _state)


def _state(view: BaseModel) -> tuple[str, bool]:
    state = cast("Lookup", view).state
    return state.value, state in ENDED


async def _read(call: Call) -> Lookup:
    async with call.services.pool.connection() as connection:
        found = await read_lookup(connection, call.principal.sees, call.job())
    if found is None:
        raise not_found()
    return found
