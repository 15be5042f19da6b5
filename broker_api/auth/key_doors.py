"""Create, list and revoke API keys over HTTP."""

from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.auth.key_format import ID_LENGTH
from broker_api.auth.keys import KeyView, Scope, change_key_async, create_key_async, list_keys_async, revoke_key_async
from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from jobs.parts import Name, Strict


def _user_alone() -> list[Scope]:
    return ["user"]


Retention = Annotated[
    float | None,
    Field(gt=0, le=36_500, description="How long its jobs are kept once they have ended; null as long as the fleet's."),
]


class CreateKey(Strict):
    """A key to be created."""

    name: Name = Field(description="For people: what the key is for.")
    owner: Name | None = Field(default=None, description="Whose jobs its user sees; the caller's own owner by default.")
    scopes: list[Scope] = Field(default_factory=_user_alone, min_length=1, max_length=2)
    retention_days: Retention = None


class ChangeKey(Strict):
    """What to change of a key; jobs that were submitted before keep the retention they had."""

    retention_days: Retention


class KeyPage(BaseModel):
    """All keys, revoked ones too; none can be used from here, for only their hashes are stored."""

    items: list[KeyView]
    next_cursor: str | None = None


async def create_one_key(call: Call) -> Response:
    """Create a key and show it this once."""
    wanted = call.body(CreateKey)
    async with call.services.pool.connection() as connection:
        created = await create_key_async(
            connection,
            owner=wanted.owner or call.principal.owner,
            name=wanted.name,
            scopes=wanted.scopes,
            retention_days=wanted.retention_days,
        )
    return json_answer(created, HTTPStatus.CREATED, {"location": f"/v1/keys/{created.id}"})


async def list_all_keys(call: Call) -> Response:
    """Return all keys."""
    async with call.services.pool.connection() as connection:
        return json_answer(KeyPage(items=await list_keys_async(connection)))


async def change_one_key(call: Call) -> Response:
    """Change how long a key's jobs are kept."""
    key_id, wanted = _key_id(call), call.body(ChangeKey)
    async with call.services.pool.connection() as connection:
        found = await change_key_async(connection, key_id, retention_days=wanted.retention_days)
    if found is None:
        raise not_found()
    return json_answer(found)


async def revoke_one_key(call: Call) -> Response:
    """Revoke a key: within a second no process of the fleet takes it any more."""
    key_id = _key_id(call)
    async with call.services.pool.connection() as connection:
        if not await revoke_key_async(connection, key_id):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _key_id(call: Call) -> str:
    key_id: str = call.request.path_params["id"]
    if len(key_id) != ID_LENGTH or not (key_id.isascii() and key_id.isalnum()):
        raise not_found()
    return key_id
