"""Run a worker: Celery brings wake-ups, remote control and Flower; the agent beside it does the work."""

import logging
import os
import queue
import signal
import threading
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final
from uuid import uuid4

import celery
from celery.apps.worker import Worker
from celery.platforms import SecurityWarning
from celery.worker import state as worker_state

import infra.redis
from infra.celery_app import make_celery
from infra.database import connect, open_pool
from infra.embedded.services import ServiceUrls
from infra.processes import set_title
from infra.settings import Settings
from infra.storage import Storage, open_storage
from jobs.dispatch import WAKE_TASK
from workers.agent import Agent
from workers.devices import Device, find_device
from workers.engines.interface import Setup
from workers.enrolment import await_services, facts_of, refuse_taken_name
from workers.wakeful_pool import WakefulPool

#: Connections: the drain loop, the fetcher, two recorders, revocations.
POOL_SIZE: Final = 5
#: Prefixes of variables that hold secrets: the engine opens files of strangers and needs none of them.
SECRETIVE: Final = (
    "IMAGEFLEET_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "PG",
    "REDIS",
    "DATABASE_",
)
#: Nothing is downloaded while drawing, no model brings code, and the libraries keep their advice to themselves.
ENGINE_ENVIRONMENT: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}

EXIT_DETHRONED: Final = 4
EXIT_ABANDONED: Final = 5


class FleetWorker(Worker):  # type: ignore[misc] # Celery ships no types
    """Celery's worker program with our process title and our way to leave."""

    def __init__(self, leaver: "Leaver", **options: Any) -> None:
        self._leaver = leaver
        super().__init__(**options)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Take SIGTERM and SIGINT: the first drains, the second hurries."""
        del worker
        # The loop would otherwise see the wish to stop when its next timer fires.
        self._leaver.attach(lambda: self.pool.wake())  # noqa: PLW0108 - the pool is made later
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._leaver.on_signal)

    def set_process_status(self, info: str) -> None:
        """Keep the title the process has."""


class Leaver:
    """Turn signals into an orderly end; a signal handler may only do what cannot wait, so a thread does the rest."""

    def __init__(self, agent: Agent, drain_seconds: float) -> None:
        self._agent = agent
        self._drain_seconds = drain_seconds
        self._heard: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._signals = 0
        self._wake_loop: Callable[[], None] | None = None
        threading.Thread(target=self._run, name="leaver", daemon=True).start()

    def attach(self, wake_loop: Callable[[], None]) -> None:
        """Say what makes Celery's event loop look whether it shall stop."""
        self._wake_loop = wake_loop

    def on_signal(self, number: int, frame: object) -> None:
        """Ask for the end: drain first, hurry when asked again."""
        del number, frame
        self._signals += 1
        self.leave(self._drain_seconds if self._signals == 1 else 0.0, os.EX_OK)

    def leave(self, seconds: float, exit_code: int) -> None:
        """Let the agent leave within so many seconds and Celery stop."""
        worker_state.should_stop = worker_state.should_stop or exit_code
        self._heard.put(seconds)

    def _run(self) -> None:
        while True:
            self._agent.leave(self._heard.get())
            if self._wake_loop is not None:
                self._wake_loop()


def engine_environment(inherited: Mapping[str, str], device: Device) -> dict[str, str]:
    """Return the whole environment of an engine: pinned to its device, without the agent's secrets."""
    open_to_all = {name: value for name, value in inherited.items() if not name.startswith(SECRETIVE)}
    return {**open_to_all, **ENGINE_ENVIRONMENT, **device.environment}


def engine_threads(settings: Settings, device: Device) -> int | None:
    """Return how many CPU threads an engine may use: workers on the CPU share its cores."""
    if settings.threads is not None or device.kind != "cpu":
        return settings.threads
    return max(1, (os.cpu_count() or 1) // settings.cpu_workers)


def run_worker(settings: Settings, urls: ServiceUrls, storage: Storage | None = None) -> int:
    """Run one worker until it is told to end, and return its exit status; call it from the main thread of a process of its own.

    Raises DeviceUnknown and WorkerNotStarted, whose messages are for people.
    """
    device = find_device(settings.device, settings.memory_bytes)
    set_title(f"agent {device.label}")
    facts = facts_of(settings, device, uuid4())
    setup = Setup(
        engine=settings.engine,
        label=device.label,
        device=device.torch_name,
        device_name=device.title,
        memory_bytes=device.memory_bytes,
        threads=engine_threads(settings, device),
        log_level=settings.log_level,
        log_format=settings.log_format,
    )
    _quieten()
    application = make_celery(urls.redis_url)
    name = f"worker {device.label}"
    client = infra.redis.connect(urls.redis_url, name=name)
    # A beat that the database does not answer within half a lease is worth less than the next one.
    line = partial(_connect, urls.database_url, name, max(1.0, settings.lease_seconds / 2))
    with open_pool(urls.database_url, application_name=name, size=POOL_SIZE, generic_plans=True) as pool, client:
        agent = Agent(
            settings,
            facts,
            setup,
            engine_environment(os.environ, device),
            pool=pool,
            connect=line,
            client=client,
            storage=storage or open_storage(settings.storage, endpoint=settings.storage_endpoint),
            application=application,
            dethroned=lambda: leaver.leave(0.0, EXIT_DETHRONED),
        )
        leaver = Leaver(agent, settings.drain_seconds)
        agent.start_engine()
        await_services(pool, client, settings.start_limit_seconds)
        refuse_taken_name(pool, facts)
        agent.enrol()
        recorded = False
        try:
            exit_code = _consume(application, agent, leaver, settings)
        finally:
            recorded = agent.close(settings.drain_seconds)
        return exit_code if recorded else EXIT_ABANDONED


def _quieten() -> None:
    # Wake-ups come and go without meaning anything by themselves.
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Running as root is dangerous where messages are pickled; ours are JSON.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _connect(url: str, name: str, seconds: float, role: str) -> Any:
    return connect(url, application_name=f"{name} {role}", statement_seconds=seconds)


def _consume(application: "celery.Celery", agent: Agent, leaver: Leaver, settings: Settings) -> int:
    """Take wake-ups until told to stop; return Celery's exit status."""
    application.task(agent.drain, name=WAKE_TASK, send_events=False, ignore_result=True, shared=False)
    worker = FleetWorker(
        leaver,
        app=application,
        hostname=agent.facts.name,
        # Remote control is answered in the middle of a task only by this pool.
        pool_cls=WakefulPool,
        concurrency=1,
        queues=list(agent.facts.queues),
        task_events=True,
        # Neighbours' gossip and revoke lists cost start time and messages, and mean nothing here.
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel=settings.log_level.upper(),
    )
    worker.start()
    return int(worker.exitcode or 0)
