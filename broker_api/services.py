"""What the API stands on, opened once per process and passed to every handler."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, cast

import httpx
import redis.asyncio
from starlette.types import Scope

from broker_api.admission.snapshots import Snapshots
from broker_api.admission.vocabularies import Vocabularies
from broker_api.auth.keys import KeyRing
from broker_api.auth.sessions import Sessions
from broker_api.auth.signing import Signer
from broker_api.fleet.flower_client import make_flower_client
from broker_api.http.background import end_tasks
from broker_api.http.metrics import Metrics
from broker_api.pictures.sources import PictureDoor
from broker_api.problems import DATABASE_ERRORS
from broker_api.streaming.listening import Hub
from broker_api.streaming.newcomers import Newcomers
from broker_api.streaming.relay import Relay
from broker_api.streaming.watching import Watching
from infra.celery_app import make_celery
from infra.clock import SystemClock
from infra.database import AsyncPool, make_async_pool
from infra.embedded.services import ServiceUrls
from infra.redis import connect, connect_async
from infra.settings import Settings
from infra.storage import Storage, open_storage
from jobs.dispatch import wake
from jobs.events import AsyncEventWriter

#: Connections to the database; a request holds one for a millisecond at a time.
POOL_SIZE: Final = 10
#: A request waits so long for a connection before it is told that the database is away.
WAIT_SECONDS: Final = 3.0
#: Redis has so long to answer: nothing a client waits for depends on it.
REDIS_SECONDS: Final = 1.0
#: Thumbnails made at once: each holds a whole picture for a moment.
THUMBNAILS: Final = 2
#: Models' files read and stored at once: each holds a connection meanwhile.
TAKEN_IN: Final = 2
#: At the end, what was committed last is still announced, within this time.
DRAIN_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Services:
    """Everything a handler may need."""

    settings: Settings
    pool: AsyncPool
    redis: "redis.asyncio.Redis"
    storage: Storage
    pictures: PictureDoor
    keys: KeyRing
    sessions: Sessions
    snapshots: Snapshots
    hub: Hub
    newcomers: Newcomers
    relay: Relay
    metrics: Metrics
    signer: Signer
    #: Held while a thumbnail is made.
    making_thumbnails: asyncio.Semaphore
    #: Held while a model's file is read and stored.
    taking_in: asyncio.Semaphore
    #: Speaks to Flower; None where no Flower runs.
    flower: httpx.AsyncClient | None
    watching: Watching
    vocabularies: Vocabularies


OpenServices = Callable[[], AbstractAsyncContextManager[Services]]


def services_of(scope: Scope) -> Services:
    """Return the services of the application that serves this request."""
    return cast("Services", scope["app"].state.services)


@contextlib.asynccontextmanager
async def open_services(settings: Settings, urls: ServiceUrls) -> AsyncIterator[Services]:
    """Open everything, also while servers are away, and close it in reverse order."""
    async with contextlib.AsyncExitStack() as stack:
        pool = make_async_pool(urls.database_url, application_name="api", size=POOL_SIZE, wait_seconds=WAIT_SECONDS)
        await stack.enter_async_context(pool)
        client = connect_async(urls.redis_url, name="api", size=POOL_SIZE, reply_seconds=REDIS_SECONDS)
        stack.push_async_callback(client.aclose)
        waker = stack.enter_context(
            contextlib.closing(connect(urls.redis_url, name="api wake", reply_seconds=REDIS_SECONDS))
        )
        celery = make_celery(urls.redis_url)
        stack.callback(celery.close)

        metrics = Metrics.make()
        snapshots = Snapshots(pool)
        clock = SystemClock()
        keys = KeyRing(pool, clock)
        hub = Hub(client, pool, metrics.encoded)

        def wakes_for(queue: str, jobs: int) -> int:
            # Not the method of today's fleet: that would be a fleet of the past tomorrow.
            return snapshots.fleet.wakes_for(queue, jobs)

        relay = Relay(
            AsyncEventWriter(client),
            lambda queue: wake(celery, waker, queue, snapshots.fleet.serving(queue)),
            wakes_for,
            metrics.dropped,
        )
        flower = await _flower(settings, stack)
        storage = open_storage(settings.storage, endpoint=settings.storage_endpoint)
        services = Services(
            settings, pool, client, storage, PictureDoor(pool, storage, settings.max_pixels), keys, Sessions(pool, keys),
            snapshots, hub, Newcomers(pool), relay, metrics, Signer(pool), asyncio.Semaphore(THUMBNAILS),
            asyncio.Semaphore(TAKEN_IN), flower,
            Watching(pool, hub, relay.announce, clock, settings.hang_up_seconds), Vocabularies(),
        )  # fmt: skip
        with contextlib.suppress(*DATABASE_ERRORS):
            await snapshots.refresh()
        async with _running(services):
            yield services


async def _flower(settings: Settings, stack: contextlib.AsyncExitStack) -> httpx.AsyncClient | None:
    if settings.flower_url is None:
        return None
    return await stack.enter_async_context(make_flower_client(settings.flower_url, settings.flower_password or ""))


@contextlib.asynccontextmanager
async def _running(services: Services) -> AsyncIterator[None]:
    """Run what works in the background."""
    services.hub.start()
    tasks = [
        asyncio.create_task(services.snapshots.keep_fresh()),
        asyncio.create_task(services.keys.keep_last_used()),
        asyncio.create_task(services.relay.run()),
        asyncio.create_task(services.newcomers.run()),
        asyncio.create_task(services.watching.run()),
    ]
    try:
        yield
    finally:
        await services.relay.drain(DRAIN_SECONDS)
        await services.keys.write_last_used()
        await services.hub.aclose()
        await end_tasks(tasks)
