"""What a worker says of itself, and what it needs before it can start."""

import importlib.metadata
import os
import socket
import time
from typing import Final
from uuid import UUID

import psutil
import psycopg
import redis

from infra.database import Pool
from infra.logging import get_logger
from infra.settings import Settings
from jobs.contract import PARAMETERS
from jobs.fleet import WorkerFacts
from jobs.roster import fleet_now
from jobs.routing import hardware_class, queues_of, served_by
from workers.devices import Device

RETRY_PAUSE: Final = 0.5
SERVICES_AWAY: Final = "services_away"

log = get_logger(__name__)


class WorkerNotStarted(RuntimeError):
    """The worker cannot start; the message says why and what helps."""


def facts_of(settings: Settings, device: Device, run: UUID) -> WorkerFacts:
    """Describe this worker: its device, what it can hold, which queues it serves."""
    host = socket.gethostname()
    tags = tuple(dict.fromkeys(tag.strip() for tag in settings.tags.split(",") if tag.strip()))
    hardware = hardware_class("cpu" if device.kind == "cpu" else "gpu", device.memory_bytes)
    serves = served_by(hardware, tags)
    tasks = tuple(PARAMETERS)
    return WorkerFacts(
        name=f"{device.label}@{host}",
        run=run,
        host=host,
        pid=os.getpid(),
        device=device.label,
        device_name=device.title,
        hardware=hardware,
        serves=serves,
        tags=tags,
        tasks=tasks,
        queues=tuple(queues_of(tasks, serves)),
        memory_bytes=device.offered_bytes,
        engine=settings.engine,
        version=version(),
    )


def version() -> str:
    """Return the installed version of the product."""
    try:
        return importlib.metadata.version("imagefleet")
    except importlib.metadata.PackageNotFoundError:
        return "0"


def await_services(pool: Pool, client: "redis.Redis", limit: float) -> None:
    """Wait until database and Redis answer; raise WorkerNotStarted when one stays away for `limit` seconds."""
    until = time.monotonic() + limit
    while (problem := _away(pool, client)) is not None:
        if time.monotonic() >= until:
            raise WorkerNotStarted(f"{problem} Waited {limit:g} s for it.")
        log.warning(SERVICES_AWAY, problem=problem)
        time.sleep(RETRY_PAUSE)


def refuse_taken_name(pool: Pool, facts: WorkerFacts) -> None:
    """Raise WorkerNotStarted when a living process of this host works under the same name: it would lose its jobs to this one."""
    with pool.connection() as line:
        others = [worker for worker in fleet_now(line).workers if worker.name == facts.name and worker.online]
    for other in others:
        if other.host == facts.host and other.pid != facts.pid and _is_agent(other.pid, facts.device):
            raise WorkerNotStarted(
                f"{facts.name} is run by process {other.pid} already: end that one first, or give this worker another device. "
                f"Several workers may share the CPU under numbers of their own, such as --device cpu:{_next(facts.device)}."
            )


def _is_agent(pid: int, device: str) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and " ".join(process.cmdline()).startswith(
            f"imagefleet: agent {device}"
        )
    except psutil.Error:
        return False


def _next(device: str) -> int:
    number = device.removeprefix("cpu")
    return int(number) + 1 if number.isdecimal() else 0


def _away(pool: Pool, client: "redis.Redis") -> str | None:
    try:
        with pool.connection(timeout=2.0) as line:
            line.execute("select from workers limit 0")
    except psycopg.errors.UndefinedTable:
        raise WorkerNotStarted("The database has no tables yet: run `imagefleet migrate`.") from None
    except psycopg.Error as problem:
        return f"The database does not answer ({str(problem).strip()}): is IMAGEFLEET_DATABASE_URL right?"
    try:
        client.ping()
    except (redis.RedisError, OSError) as problem:
        return f"Redis does not answer ({problem}): is IMAGEFLEET_REDIS_URL right?"
    return None
