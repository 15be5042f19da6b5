"""GET /v1/dashboard/{stats,activity}: the present in a few numbers, and what happened lately."""

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query
from broker_api.http.answers import json_answer
from jobs.history.activity import Activity, read_activity
from jobs.history.totals import Totals, read_totals
from models_registry.entries import Kind


class Stats(Totals):
    """The present in a few numbers: jobs and pictures are one's own, to admins everyone's."""

    workers: int
    workers_online: int
    workers_busy: int
    models: int
    adapters: int


class ActivityQuery(Query):
    """Which page to read."""

    cursor: str | None = Field(default=None, max_length=400, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=200)


class ActivityPage(BaseModel):
    """A page of what happened, newest first."""

    items: list[Activity]
    next_cursor: str | None


async def read_stats(call: Call) -> Response:
    """Return the present in a few numbers; workers and models are as they were a second ago."""
    snapshot = call.services.snapshots.now
    async with call.services.pool.connection() as connection:
        totals = await read_totals(connection, call.principal.sees)
    online = snapshot.fleet.online()
    models = len(snapshot.catalogue.of_kind(Kind.CHECKPOINT))
    return json_answer(
        Stats(
            **totals.model_dump(),
            workers=len(snapshot.fleet.workers),
            workers_online=len(online),
            workers_busy=sum(worker.state == "busy" for worker in online),
            models=models,
            adapters=sum(len(snapshot.catalogue.of_kind(kind)) for kind in Kind) - models,
        )
    )


async def list_activity(call: Call) -> Response:
    """Return a page of what happened."""
    query = call.query(ActivityQuery)
    async with call.services.pool.connection() as connection:
        items, following = await read_activity(connection, call.principal.sees, cursor=query.cursor, limit=query.limit)
    return json_answer(ActivityPage(items=items, next_cursor=following))
