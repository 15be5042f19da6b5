"""The API's loops outlive what nobody foresaw."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from structlog.testing import capture_logs

from broker_api.http.background import ROUND_FAILED, end_tasks
from broker_api.http.metrics import Metrics
from broker_api.streaming.listening import Hub
from broker_api.streaming.relay import Relay
from infra.database import make_async_pool
from jobs.changes import Change
from jobs.events import AsyncEventWriter
from jobs.reading import present_changes

PATIENCE_SECONDS = 30


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every loop turn quickly."""
    for pause in (
        "http.background.REST_SECONDS", "admission.snapshots.REFRESH_SECONDS", "auth.keys.LAST_USED_SECONDS",
        "streaming.listening.POLL_SECONDS", "streaming.listening.GRACE_SECONDS", "streaming.listening.RECONNECT_SECONDS",
    ):  # fmt: skip
        monkeypatch.setattr(f"broker_api.{pause}", 0.05)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for lies in other servers
            await asyncio.sleep(0.02)


def test_loops_over_the_database_outlive_a_schema_they_do_not_know(world: Any, application: Any) -> None:
    """While columns are missing each round fails; when they are back, snapshot, times of use and watched jobs go on."""
    columns = (("workers", "seen_at"), ("jobs", "state_seq"), ("api_keys", "last_used_at"))

    def last_used() -> object:
        return world.connection.execute("select max(last_used_at) as at from api_keys").fetchone()["at"]

    async def story() -> None:
        async with application(world.key()) as (client, services):
            job = (await client.post("/v1/jobs", json={"prompt": "x"})).json()["id"]
            async with services.hub.watch(UUID(job)) as reader:
                with capture_logs() as lines:
                    for table, column in columns:
                        world.connection.execute(f"alter table {table} rename {column} to gone")
                    # The use of the key before may be written down already: without another one there is nothing that could fail.
                    await client.get("/v1/queues")
                    failing = {"snapshots", "event_poll", "key_last_used"}
                    await _until(lambda: failing <= {line["work"] for line in lines if line["event"] == ROUND_FAILED})
                    for table, column in columns:
                        world.connection.execute(f"alter table {table} rename gone to {column}")
                before = last_used()
                world.add_worker("cpu1@test")
                assert (await client.get("/v1/queues")).status_code == 200
                await _until(lambda: len(services.snapshots.now.fleet.workers) == 2)
                await _until(lambda: last_used() != before)
                worker = world.worker()
                worker.claim()
                worker.finish(announce=False)
                await _until(lambda: reader.topic.ended)

    asyncio.run(story())


def test_relay_outlives_a_wake_that_fails_strangely(world: Any, application: Any) -> None:
    """The announcement is counted as dropped, and the next one goes out."""
    asked: list[str] = []
    metrics = Metrics.make()

    def wake(queue: str) -> bool:
        asked.append(queue)
        if len(asked) == 1:
            raise LookupError("once")
        return False

    async def story() -> None:
        async with application(world.key()) as (client, services):
            change = await _queued(client, services)
            relay = Relay(AsyncEventWriter(services.redis), wake, lambda _queue, _jobs: 1, metrics.dropped)
            task = asyncio.create_task(relay.run())
            relay.announce(change)
            await _until(lambda: len(asked) == 1)
            relay.announce(change)
            await _until(lambda: len(asked) == 2)
            await end_tasks([task])

    asyncio.run(story())
    assert "imagefleet_announcements_dropped_total 1.0" in metrics.text().decode()


async def _queued(client: Any, services: Any) -> Change:
    job = UUID((await client.post("/v1/jobs", json={"prompt": "x"})).json()["id"])
    async with services.pool.connection() as connection:
        return (await present_changes(connection, None, [job]))[job]


class _StumblingRedis(redis.asyncio.Redis):
    """A real client whose first subscription fails as no Redis would."""

    stumbled = False

    def pubsub(self, **options: Any) -> Any:
        """Fail once."""
        if not self.stumbled:
            self.stumbled = True
            raise LookupError("once")
        return super().pubsub(**options)


def test_subscription_is_made_again_after_a_strange_failure(world: Any) -> None:
    """Events are heard again without a restart."""

    async def story() -> None:
        pool = make_async_pool(world.database_url, application_name="test", size=1)
        async with pool, _StumblingRedis.from_url(world.redis_url) as client:
            assert isinstance(client, _StumblingRedis)
            hub = Hub(client, pool, Metrics.make().encoded)
            hub.start()
            await _until(lambda: hub.connected)
            await hub.aclose()
            assert client.stumbled

    asyncio.run(story())
