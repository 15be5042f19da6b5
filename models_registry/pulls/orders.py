"""Downloads as people see and steer them: order, list, pause, resume, cancel; statements of the API."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field

from models_registry.entries import Kind
from models_registry.pulls.states import State
from models_registry.records import Visibility

#: Downloads of one owner that have not ended.
MOST_OPEN: Final = 200


class Order(BaseModel):
    """What a fetched model is to become; what is left open, its source decides."""

    model_config = ConfigDict(frozen=True)

    name: str | None = None
    version: str = ""
    kind: Kind | None = None
    #: What the one file must hash to.
    sha256: str | None = None
    visibility: Visibility = "public"
    description: str = ""
    licence: str = ""
    tags: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    base_model: str = ""
    weight: float | None = None


class Download(BaseModel):
    """A model that is fetched, or was."""

    model_config = ConfigDict(frozen=True)

    id: UUID
    owner: str
    source: str
    state: State
    #: What the entry is, or will be, called, once that is known.
    name: str | None
    files: int = Field(description="How many files there are, once the source was asked; 0 before.")
    bytes_done: int
    bytes_total: int | None = Field(description="None until the source has said it.")
    #: The entry that it became.
    model: UUID | None = Field(description="Id of the entry that it became.")
    ref: str | None = Field(description="What a job names that entry by.")
    error_code: str | None = Field(description="Why it failed, or why it waits.")
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    available_at: datetime = Field(description="A waiting one is tried then.")


#: Columns of a `Download`, of `downloads` alone.
COLUMNS: Final = """downloads.id, owner, source, state, coalesce(request ->> 'name', plan ->> 'name') as name,
    coalesce(jsonb_array_length(plan -> 'files'), 0) as files, bytes_done, bytes_total, model,
    (select name from models where models.id = downloads.model) as ref,
    error_code, error_message, created_at, started_at, finished_at, available_at"""

# One statement, so that two requests at once cannot both be the last that fits.
_ADD: Final = f"""
with locked as (select pg_advisory_xact_lock(hashtextextended('downloads ' || %(owner)s, 0)))
insert into downloads (id, owner, source, request)
select %(id)s, %(owner)s, %(source)s, %(request)s from locked
where (select count(*) from downloads where owner = %(owner)s and state in ('queued', 'running', 'paused')) < {MOST_OPEN}
returning {COLUMNS}
"""
_MINE: Final = "(%(owner)s::text is null or owner = %(owner)s)"
_LIST: Final = f"""
select {COLUMNS} from downloads
where {_MINE} and (%(before)s::uuid is null or id < %(before)s) and (%(states)s::text[] is null or state = any (%(states)s))
order by id desc limit %(limit)s
"""
_READ: Final = f"select {COLUMNS} from downloads where id = %(id)s and {_MINE}"
_CHANGES: Final[dict[str, str]] = {
    "pause": "state = 'paused', lease_until = null",
    "resume": "state = 'queued', available_at = now(), delays = 0, error_code = null, error_message = null, finished_at = null",
    "cancel": "state = 'cancelled', lease_until = null, finished_at = now(), error_code = null, error_message = null",
}
#: From which states each verb leads.
FROM: Final[dict[str, frozenset[State]]] = {
    "pause": frozenset({State.QUEUED, State.RUNNING}),
    "resume": frozenset({State.PAUSED, State.FAILED}),
    "cancel": frozenset({State.QUEUED, State.RUNNING, State.PAUSED}),
}


async def add_download(
    connection: "AsyncConnection[Any]", identity: UUID, owner: str, source: str, order: Order
) -> Download | None:
    """Queue a download; None when its owner has as many open ones as one may have."""
    values = {"id": identity, "owner": owner, "source": source, "request": Jsonb(order.model_dump(mode="json"))}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ADD, values)
        row = await cursor.fetchone()
    return None if row is None else Download.model_validate(row)


async def list_downloads(
    connection: "AsyncConnection[Any]",
    owner: str | None,
    *,
    before: UUID | None,
    states: Collection[State] | None,
    limit: int,
) -> list[Download]:
    """Return downloads of an owner (None: of all), the newest first."""
    values = {"owner": owner, "before": before, "states": None if states is None else list(states), "limit": limit}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LIST, values)
        return [Download.model_validate(row) for row in await cursor.fetchall()]


async def read_download(connection: "AsyncConnection[Any]", owner: str | None, identity: UUID) -> Download | None:
    """Return one download of an owner (None: of anyone), or None."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_READ, {"id": identity, "owner": owner})
        row = await cursor.fetchone()
    return None if row is None else Download.model_validate(row)


async def change_download(
    connection: "AsyncConnection[Any]", owner: str | None, identity: UUID, verb: str
) -> Download | None:
    """Pause, resume or cancel a download and return it; one that is in no state for it stays as it is. None when there is none."""
    statement = f"""
    update downloads set epoch = epoch + 1, {_CHANGES[verb]} where id = %(id)s and {_MINE} and state = any (%(from)s)
    """
    values = {"id": identity, "owner": owner, "from": sorted(FROM[verb])}
    await connection.execute(statement, values)
    return await read_download(connection, owner, identity)
