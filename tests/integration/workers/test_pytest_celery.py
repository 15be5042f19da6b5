"""pytest-celery's own checks, on real local processes where it expects containers: two agents on one Redis."""

import contextlib
import signal as signals
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryTestBroker,
    CeleryTestContainer,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from infra.celery_app import SETTINGS
from jobs.contract import PARAMETERS
from tests.integration.workers.yard import AgentProcess, Yard


class LocalProcess(CeleryTestContainer):  # type: ignore[misc] # pytest-celery ships no types
    """A process of this machine behind the interface of a container; the parent's constructor wants Docker and is not called."""

    name = "process"

    @property
    def id(self) -> str:
        """Return what tells this one from others."""
        return self.name

    @property
    def status(self) -> str:
        """Return Docker's word for how it is."""
        return "running"

    def reload(self) -> None:
        """Look again: a process has nothing to look up."""

    def ready(self) -> bool:
        """Tell whether it serves."""
        return True

    def logs(self) -> str:
        """Return what it has said."""
        return ""


class LocalRedis(LocalProcess):
    """The Redis of the test."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self._url = url

    @property
    def celeryconfig(self) -> dict[str, str]:
        """Return where it is, from inside and outside alike."""
        return {"url": self._url, "host_url": self._url}

    def ready(self) -> bool:
        """Ask whether it answers."""
        with redis.Redis.from_url(self._url) as client:
            return bool(client.ping())


class LocalAgent(LocalProcess):
    """One agent with its engine."""

    def __init__(self, number: int, start: Callable[[], AgentProcess]) -> None:
        self.name = f"cpu{number}"
        self._start = start
        self.process = start()

    @property
    def status(self) -> str:
        """Return Docker's word for how it is."""
        return "running" if self.process.process.poll() is None else "exited"

    def ready(self) -> bool:
        """Wait until it takes messages."""
        return bool(self._wait_ready(timeout=30))

    @property
    def ready_prompt(self) -> str:
        """Return what a worker says once it listens."""
        return " ready."

    def logs(self) -> str:
        """Return what this life of it has said."""
        return self.process.said()

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal that ends it, and wait for the end."""
        number = signals.Signals[signal] if isinstance(signal, str) else signals.Signals(signal)
        self.process.signal(number)
        self.process.process.wait(30)

    def restart(self, timeout: int = 10) -> None:
        """End it if it lives, and start it anew."""
        if self.status == "running":
            self.process.signal(signals.SIGTERM)
            self.process.process.wait(timeout)
        self.process = self._start()
        self.ready()

    def worker_name(self) -> str:
        """Return the name before the @."""
        return str(self.name)


class FleetSetup(CeleryTestSetup):  # type: ignore[misc]
    """A set-up whose application speaks to Redis as the fleet does."""

    @classmethod
    def update_app_config(cls, app: Celery) -> None:
        """Take the fleet's settings."""
        app.conf.update(SETTINGS)


@pytest.fixture
def celery_setup_cls() -> type[FleetSetup]:
    """Use our settings."""
    return FleetSetup


@pytest.fixture
def celery_broker(redis_url: str) -> CeleryTestBroker:
    """Stand a Redis of this test where a container would be."""
    return CeleryTestBroker(LocalRedis(redis_url))


@pytest.fixture
def celery_backend_cluster() -> CeleryBackendCluster | None:
    """There is no result backend: results are in Postgres."""
    return None


@pytest.fixture
def celery_worker_cluster(yard: Yard) -> Iterator[CeleryWorkerCluster]:
    """Run two agents."""

    def starter(number: int) -> Callable[[], AgentProcess]:
        return lambda: yard.start_agent(number)

    workers = [CeleryTestWorker(LocalAgent(number, starter(number)), yard.application) for number in range(2)]
    yield CeleryWorkerCluster(*workers)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.container.process.end()


def answering(setup: CeleryTestSetup) -> set[str]:
    """Return the names of the workers that answer a ping."""
    answers: list[dict[str, Any]] = setup.app.control.ping(timeout=1.0)
    return {name.partition("@")[0] for answer in answers for name in answer}


def test_setup_is_ready(celery_setup: CeleryTestSetup) -> None:
    """Both workers start, listen on their queues alone, and answer remote control."""
    assert celery_setup.ready(control=True)
    assert answering(celery_setup) == {"cpu0", "cpu1"}
    queues = celery_setup.app.control.inspect(timeout=1.0).active_queues()
    assert {queue["name"] for listened in queues.values() for queue in listened} == {
        f"{task}.cpu" for task in PARAMETERS
    }


def test_killed_worker_comes_back(celery_setup: CeleryTestSetup, yard: Yard) -> None:
    """Kill -9 silences one worker only; restarted, it takes its lost job back and both answer."""
    assert celery_setup.ready()
    first, second = celery_setup.worker_cluster
    job = yard.submit("[[step=0.1]]", steps=30)
    yard.until_step(job)
    victim, other = (first, second) if yard.row(job)["worker"].startswith("cpu0@") else (second, first)
    victim.kill()
    assert victim.container.status == "exited"
    assert answering(celery_setup) == {other.worker_name}
    victim.restart()
    yard.until_state(job, "succeeded")
    assert yard.row(job)["losses"] == 1
    assert answering(celery_setup) == {"cpu0", "cpu1"}


def test_restarted_worker_loses_nothing(celery_setup: CeleryTestSetup, yard: Yard) -> None:
    """An orderly restart of every worker, one after another, costs no job anything."""
    assert celery_setup.ready()
    jobs = [yard.submit("[[step=0.02]]", seed=seed) for seed in range(6)]
    for worker in celery_setup.worker_cluster:
        worker.restart()
        worker.assert_log_exists(" ready.")
    yard.wake()
    yard.until(lambda: all(yard.state(job) == "succeeded" for job in jobs))
    assert {(yard.row(job)["losses"], yard.row(job)["attempts"]) for job in jobs} == {(0, 0)}
