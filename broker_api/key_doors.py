"""Create, list and revoke API keys over HTTP."""

from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.answers import json_answer
from broker_api.endpoints import Call, not_found
from broker_api.key_format import ID_LENGTH
from broker_api.keys import KeyView, Scope, create_key_async, list_keys_async, revoke_key_async
from jobs.parts import Name, Strict


def _user_alone() -> list[Scope]:
    return ["user"]


class CreateKey(Strict):
    """A key to be created."""

    name: Name = Field(description="For people: what the key is for.")
    owner: Name | None = Field(default=None, description="Whose jobs its user sees; the caller's own owner by default.")
    scopes: list[Scope] = Field(default_factory=_user_alone, min_length=1, max_length=2)


class KeyPage(BaseModel):
    """All keys, revoked ones too; none can be used from here, for only their hashes are stored."""

    items: list[KeyView]
    next_cursor: str | None = None


async def create_one_key(call: Call) -> Response:
    """Create a key and show it this once."""
    wanted = call.body(CreateKey)
    async with call.services.pool.connection() as connection:
        created = await create_key_async(
            connection, owner=wanted.owner or call.principal.owner, name=wanted.name, scopes=wanted.scopes
        )
    return json_answer(created, HTTPStatus.CREATED, {"location": f"/v1/keys/{created.id}"})


async def list_all_keys(call: Call) -> Response:
    """Return all keys."""
    async with call.services.pool.connection() as connection:
        return json_answer(KeyPage(items=await list_keys_async(connection)))


async def revoke_one_key(call: Call) -> Response:
    """Revoke a key: within a second no process of the fleet takes it any more."""
    key_id = call.request.path_params["id"]
    if len(key_id) != ID_LENGTH or not (key_id.isascii() and key_id.isalnum()):
        raise not_found()
    async with call.services.pool.connection() as connection:
        if not await revoke_key_async(connection, key_id):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)
