"""Whether the process lives, whether it is of use, and what it counts."""

import asyncio
from http import HTTPStatus
from typing import Literal

from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.responses import Response

from broker_api.answers import json_answer
from broker_api.endpoints import Call
from broker_api.metrics import CONTENT_TYPE
from broker_api.problems import DATABASE_ERRORS
from broker_api.services import Services
from broker_api.version import version
from models_registry.entries import Kind

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


class SystemStatus(BaseModel):
    """The fleet in a few numbers."""

    version: str
    database: PartState
    redis: PartState
    models: int
    workers: int
    workers_online: int
    queued: int
    running: int
    event_readers: int


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


async def system_status(call: Call) -> Response:
    """Return the fleet in a few numbers, a few seconds old at most."""
    services = call.services
    database, redis = await asyncio.gather(_database(services), _redis(services))
    snapshot = services.snapshots.now
    return json_answer(
        SystemStatus(
            version=version(),
            database=database,
            redis=redis,
            models=len(snapshot.catalogue.of_kind(Kind.CHECKPOINT)),
            workers=len(snapshot.fleet.workers),
            workers_online=len(snapshot.fleet.online()),
            queued=sum(queue.queued for queue in services.snapshots.queues),
            running=sum(queue.running for queue in services.snapshots.queues),
            event_readers=services.hub.readers,
        )
    )


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
