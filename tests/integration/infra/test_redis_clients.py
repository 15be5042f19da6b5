"""Clients of Redis give up soon, retry a little, and find their way back."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest
import redis

from infra.embedded.services import Services
from infra.ports import free_port
from infra.redis import connect, connect_async

Eventually = Callable[[Callable[[], bool], float], bool]


def test_client_says_who_it_is(redis_url: str) -> None:
    """The server's list of clients names the part of the fleet."""
    with connect(redis_url, name="api events") as client:
        assert client.client_getname() in {"imagefleet-api-events", b"imagefleet-api-events"}


def test_client_recovers_after_a_crash(mortal_services: Services, eventually: Eventually) -> None:
    """Connections that died in the pool are replaced; the next command works as soon as the server does."""
    with connect(mortal_services.urls.redis_url, name="test") as client:
        client.set("key", "value")
        before = mortal_services.supervisor.state("redis").pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: _is_back(client), 3.0)
        # Written out by the server at its death at the latest a second ago; the process alone died, not the machine.
        assert client.get("key") == b"value"


def _is_back(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_absent_server_is_reported_at_once() -> None:
    """A refused connection costs two quick retries, not seconds."""
    began = time.monotonic()
    with (
        connect(f"redis://127.0.0.1:{free_port()}/0", name="test") as client,
        pytest.raises(redis.ConnectionError),
    ):
        client.ping()
    assert time.monotonic() - began < 5.0


def test_silent_server_is_not_waited_for(mortal_services: Services) -> None:
    """A server that hangs is given up after the reply time and the retries."""
    pid = mortal_services.supervisor.state("redis").pid
    assert pid is not None
    with connect(mortal_services.urls.redis_url, name="test", reply_seconds=0.2) as client:
        client.ping()
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(redis.TimeoutError):
                client.ping()
            assert time.monotonic() - began < 10.0
        finally:
            os.kill(pid, signal.SIGCONT)


def test_async_client_does_the_same(redis_url: str) -> None:
    """The event loop's client has the same limits, and more callers than connections wait their turn."""

    async def scenario() -> None:
        client = connect_async(redis_url, name="api", size=2)
        await asyncio.gather(*(client.incr("counter") for _ in range(50)))
        assert await client.get("counter") == b"50"
        await client.aclose()
        absent = connect_async(f"redis://127.0.0.1:{free_port()}/0", name="test")
        began = time.monotonic()
        with pytest.raises(redis.ConnectionError):
            await absent.ping()
        assert time.monotonic() - began < 5.0
        await absent.aclose()

    asyncio.run(scenario())
