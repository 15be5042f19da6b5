"""Whether the process lives, whether it is of use, and what it counts."""

import asyncio
from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from broker_api.http.metrics import CONTENT_TYPE
from broker_api.problems import DATABASE_ERRORS
from broker_api.services import Services

PartState = Literal["ok", "away"]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and which part is away."""

    #: `degraded` still accepts jobs: only news and wake-ups come later.
    status: Literal["ready", "degraded", "unready"]
    database: PartState
    redis: PartState


async def healthz(call: Call) -> Response:
    """Answer as long as the event loop turns."""
    del call
    return json_answer(Health())


async def readyz(call: Call) -> Response:
    """Tell whether jobs can be accepted now, and what is missing."""
    database, redis = await asyncio.gather(_database(call.services), _redis(call.services))
    # Without a first look at models and workers nothing can be admitted.
    usable = database == "ok" and call.services.snapshots.is_ready
    status: Literal["ready", "degraded", "unready"] = "ready" if redis == "ok" else "degraded"
    if not usable:
        status = "unready"
    code = HTTPStatus.OK if usable else HTTPStatus.SERVICE_UNAVAILABLE
    return json_answer(Readiness(status=status, database=database, redis=redis), code)


async def metrics(call: Call) -> Response:
    """Return everything that is counted, as Prometheus reads it."""
    services = call.services
    found = services.metrics
    found.readers.set(services.hub.readers)
    found.jobs.clear()
    found.workers.clear()
    for queue in services.snapshots.queues:
        found.jobs.labels(queue.name, "queued").set(queue.queued)
        found.jobs.labels(queue.name, "running").set(queue.running)
        found.workers.labels(queue.name).set(queue.workers)
    return Response(found.text(), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})


async def _database(services: Services) -> PartState:
    try:
        async with services.pool.connection(timeout=1.0) as connection:
            await connection.execute("select 1")
    except DATABASE_ERRORS:
        return "away"
    return "ok"


async def _redis(services: Services) -> PartState:
    try:
        await services.redis.ping()
    except (RedisError, OSError):
        return "away"
    return "ok"
