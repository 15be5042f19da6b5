"""A real worker process, run with our settings and arguments, does what the fleet builds on."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from infra.celery_app import KEY_PREFIX, make_celery
from infra.embedded.services import Services
from infra.flower import authorization, flower_child, flower_url
from infra.ports import free_port
from infra.processes import ChildSpec, Supervisor

Eventually = Callable[[Callable[[], bool], float], bool]

QUEUES = ["txt2img.gpu-8g", "upscale.cpu"]
NAME = "cpu0@here"
WORKER = """
import sys, time, redis
from infra.celery_app import make_celery, worker_arguments

application = make_celery(sys.argv[1])
client = redis.Redis.from_url(sys.argv[1])

@application.task(name="nap")
def nap(number, seconds):
    client.rpush("began", number)
    time.sleep(seconds)

application.worker_main(worker_arguments(sys.argv[2], sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def url(mortal_services: Services) -> str:
    """Give this file a Redis database of its own, on a server that may be killed."""
    return mortal_services.urls.redis_url.rpartition("/")[0] + "/5"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Say where the worker's log is."""
    return tmp_path_factory.mktemp("celery") / "worker.log"


@pytest.fixture(scope="module")
def application(url: str, log: Path) -> Iterator[Celery]:
    """Run one worker; yields an application that sends to it."""
    argv = (sys.executable, "-W", "error::DeprecationWarning", "-c", WORKER, url, NAME, *QUEUES)
    application = make_celery(url)
    with Supervisor() as supervisor:
        supervisor.start(ChildSpec("worker", argv, log=log, restart=False))
        deadline = time.monotonic() + 20
        while not application.control.ping(timeout=0.5):
            assert time.monotonic() < deadline, log.read_text()
        yield application
    application.close()


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    """Look into the Redis database."""
    with redis.Redis.from_url(url) as client:
        client.delete("began")
        yield client


def _nap(application: Celery, number: int, seconds: float = 0.0, queue: str = QUEUES[0]) -> None:
    application.send_task("nap", args=[number, seconds], queue=queue)


def _began(client: redis.Redis) -> list[int]:
    return [int(number) for number in client.lrange("began", 0, -1)]


def _waiting(client: redis.Redis, queue: str = QUEUES[0]) -> int:
    return int(client.llen(f"{KEY_PREFIX}{queue}"))


def _pinged(application: Celery) -> bool:
    try:
        return bool(application.control.ping(destination=[NAME], timeout=0.5))
    except (OperationalError, redis.RedisError):
        # The connection kept since before the server died.
        return False


def test_worker_serves_each_of_its_queues_and_no_other(
    application: Celery, client: redis.Redis, eventually: Eventually
) -> None:
    """A message reaches the worker by the queue's name alone; another queue's stays where it is."""
    _nap(application, 9, queue="img2img.gpu-80g")
    _nap(application, 1, queue=QUEUES[0])
    _nap(application, 2, queue=QUEUES[1])
    assert eventually(lambda: sorted(_began(client)) == [1, 2], 5.0)
    assert _waiting(client, "img2img.gpu-80g") == 1


def test_busy_worker_answers_and_holds_no_message(
    application: Celery, client: redis.Redis, eventually: Eventually
) -> None:
    """In the middle of a task a ping is answered at once, and the next message waits in Redis, where others can take it."""
    _nap(application, 1, 3.0)
    assert eventually(lambda: _began(client) == [1], 10.0)
    _nap(application, 2)
    began = time.monotonic()
    assert application.control.ping(destination=[NAME], timeout=2.0) == [{NAME: {"ok": "pong"}}]
    time.sleep(max(0.0, 0.5 - (time.monotonic() - began)))
    assert _waiting(client) == 1
    assert _began(client) == [1]
    assert eventually(lambda: _began(client) == [1, 2], 5.0)


def test_wiped_redis_changes_nothing_for_a_running_worker(
    application: Celery, client: redis.Redis, eventually: Eventually
) -> None:
    """After everything in Redis was deleted the next message is heard: direct queues need no bindings."""
    client.flushall()
    _nap(application, 3)
    assert eventually(lambda: _began(client) == [3], 5.0)


def test_flower_shows_the_worker_to_who_knows_the_password(
    application: Celery, url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Flower runs on our Redis, under its prefix, sees the worker, and is closed to everybody else."""
    assert application.main == "imagefleet"
    port, log = free_port(), tmp_path / "flower.log"
    headers = {"Authorization": authorization("secret")}
    with Supervisor() as supervisor, httpx.Client(timeout=5) as http:
        supervisor.start(flower_child(url, port, "secret", log=log))

        def shows_worker() -> bool:
            try:
                answer = http.get(f"{flower_url(port)}/api/workers?refresh=1", headers=headers)
            except httpx.TransportError:
                return False
            assert answer.status_code == 200
            queues = answer.json().get(NAME, {}).get("active_queues", [])
            return sorted(queue["name"] for queue in queues) == QUEUES

        assert eventually(shows_worker, 20.0), log.read_text()
        for path in ("/", "/workers", "/api/workers?refresh=1", "/tasks"):
            assert http.get(flower_url(port) + path).status_code == 401, path
        page = http.get(f"{flower_url(port)}/workers", headers=headers | {"Origin": "http://evil.example"})
        assert page.status_code == 200
        assert "access-control-allow-origin" not in page.headers
        assert "secret" not in Path(f"/proc/{supervisor.state('flower').pid}/cmdline").read_text()


def test_worker_comes_back_after_redis_was_killed(
    application: Celery, client: redis.Redis, mortal_services: Services, eventually: Eventually, log: Path
) -> None:
    """Redis dies in the middle of a task: the worker reconnects, and still takes nothing while it is busy."""
    _nap(application, 1, 4.0)
    assert eventually(lambda: _began(client) == [1], 5.0)
    before = mortal_services.supervisor.state("redis").pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: mortal_services.supervisor.state("redis").pid not in {before, None}, 3.0)
    assert eventually(lambda: _pinged(application), 5.0), log.read_text()
    _nap(application, 2)
    # Long enough for a worker that is ready to take it.
    time.sleep(0.5)
    assert (_began(client), _waiting(client)) == ([1], 1)
    assert eventually(lambda: _began(client) == [1, 2], 10.0), log.read_text()
