"""GET /v1/system/status: each part of the fleet, whether it answers and how fast, and the whole in a few numbers."""

import asyncio
import platform
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Final

import psutil
from pydantic import BaseModel, Field
from redis.exceptions import RedisError
from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.health import PartState
from broker_api.http.answers import json_answer
from broker_api.problems import DATABASE_ERRORS
from broker_api.services import Services
from broker_api.version import version
from infra.advisory_locks import KEEPER
from infra.database import newest_migration
from infra.storage import ObjectMissing, StorageError
from models_registry.entries import Kind

#: A part that does not answer within this is away, seconds.
PATIENCE_SECONDS: Final = 2.0
#: An object that is never there: a storage that says so answers.
_NO_OBJECT: Final = "probe/never-written"

# A lock of one number is kept in two halves.
_DATABASE: Final = f"""
select current_setting('server_version') as version, (select max(version_num) from alembic_version) as migration,
    exists (select from pg_locks where locktype = 'advisory' and granted and objsubid = 1
        and database = (select oid from pg_database where datname = current_database())
        and classid = {KEEPER >> 32} and objid = {KEEPER & 0xFFFFFFFF}) as kept
"""


class Part(BaseModel):
    """Something the fleet stands on."""

    state: PartState
    latency_ms: float | None = Field(description="Until it answered this API.")
    version: str | None


class Migration(BaseModel):
    """How the database's schema stands to this program."""

    applied: str | None
    newest: str = Field(description="That this version of the program knows.")


class Parts(BaseModel):
    """Everything the fleet stands on."""

    database: Part
    redis: Part
    storage: Part
    keeper: Part = Field(description="Away while no keeper leads: what is lost is not taken back, nothing is tidied.")


class SystemStatus(BaseModel):
    """The fleet in a few numbers."""

    version: str
    python: str
    started_at: datetime = Field(description="When this API process was.")
    uptime_s: float
    retention_days: float = Field(description="How long finished jobs and their pictures are kept.")
    parts: Parts
    migration: Migration
    database: PartState
    redis: PartState
    models: int
    workers: int
    workers_online: int
    queued: int
    running: int
    event_readers: int


async def system_status(call: Call) -> Response:
    """Return the fleet in a few numbers, a few seconds old at most, and how its parts answer now."""
    services = call.services
    snapshot = services.snapshots.now
    found: dict[str, Any] = {}
    database, redis, storage = await asyncio.gather(
        _timed(_ask_database(services, found)), _timed(_ask_redis(services)), _timed(_ask_storage(services))
    )
    keeper = Part(state="ok" if found.get("kept") else "away", latency_ms=None, version=None)
    started = psutil.Process().create_time()
    return json_answer(
        SystemStatus(
            version=version(),
            python=platform.python_version(),
            started_at=datetime.fromtimestamp(started, UTC),
            uptime_s=round(time.time() - started, 1),
            retention_days=services.settings.retention_days,
            parts=Parts(database=database, redis=redis, storage=storage, keeper=keeper),
            migration=Migration(applied=found.get("migration"), newest=await asyncio.to_thread(newest_migration)),
            database=database.state,
            redis=redis.state,
            models=len(snapshot.catalogue.of_kind(Kind.CHECKPOINT)),
            workers=len(snapshot.fleet.workers),
            workers_online=len(snapshot.fleet.online()),
            queued=sum(queue.queued for queue in services.snapshots.queues),
            running=sum(queue.running for queue in services.snapshots.queues),
            event_readers=services.hub.readers,
        )
    )


async def _timed(asked: Awaitable[str | None]) -> Part:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            answered = await asked
    except (*DATABASE_ERRORS, RedisError, StorageError, OSError):
        return Part(state="away", latency_ms=None, version=None)
    return Part(state="ok", latency_ms=round(1000 * (time.perf_counter() - began), 2), version=answered)


async def _ask_database(services: Services, found: dict[str, Any]) -> str:
    async with services.pool.connection(timeout=PATIENCE_SECONDS) as connection:
        found |= await (await connection.execute(_DATABASE)).fetchone() or {}
    return str(found["version"]).partition(" ")[0]


async def _ask_redis(services: Services) -> str:
    return str((await services.redis.info("server"))["redis_version"])


async def _ask_storage(services: Services) -> None:
    try:
        await services.storage.head_async(_NO_OBJECT)
    except ObjectMissing:
        return
