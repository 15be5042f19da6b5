"""Bring up the database and the message store of one machine, embedded or given, and let other processes find them."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from infra.embedded.errors import HomeUnusable
from infra.embedded.lock import HomeLock
from infra.embedded.postgres import start_postgres
from infra.embedded.redis import start_redis
from infra.files import make_private_folder, write_private
from infra.processes import ChildState, Supervisor

FILE = "services.json"


@dataclass(frozen=True)
class ServiceUrls:
    """Say where the database and the message store of this fleet are."""

    database_url: str
    redis_url: str


class Services:
    """Hold the running services of a home folder until stopped."""

    def __init__(self, home: Path, urls: ServiceUrls, supervisor: Supervisor, lock: HomeLock) -> None:
        self.home = home
        self.urls = urls
        #: Children started here later are stopped before the servers they use.
        self.supervisor = supervisor
        self._lock = lock

    def states(self) -> tuple[ChildState, ...]:
        """Report the embedded servers, and whatever else was started beside them."""
        return self.supervisor.states()

    def stop(self) -> None:
        """Stop the embedded servers in order and free the home folder; a second call does nothing."""
        (self.home / FILE).unlink(missing_ok=True)
        self.supervisor.stop_all()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_services(
    home: Path, *, database_url: str | None = None, redis_url: str | None = None, durable: bool = True
) -> Services:
    """Own the home folder and start what has no URL given; both answer when this returns.

    Servers that die are started again on the same port until `stop`. `durable=False` trades safety on a power cut for
    speed, for tests. Raises EmbeddedError (HomeInUse when another instance owns the folder).
    """
    try:
        home = make_private_folder(home)
        (home / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise HomeUnusable(f"{home} cannot be made: {problem.strerror}") from problem
    lock = HomeLock(home)
    supervisor = Supervisor()
    try:
        (home / FILE).unlink(missing_ok=True)
        urls = ServiceUrls(
            database_url or start_postgres(home, supervisor, durable=durable),
            redis_url or start_redis(home, supervisor),
        )
        _announce(home, urls)
    except BaseException:
        supervisor.stop_all()
        lock.release()
        raise
    return Services(home, urls, supervisor, lock)


def _announce(home: Path, urls: ServiceUrls) -> None:
    holder = psutil.Process()
    write_private(
        home / FILE,
        json.dumps(
            {
                "database_url": urls.database_url,
                "redis_url": urls.redis_url,
                "pid": holder.pid,
                "started": holder.create_time(),
            }
        ),
    )


def discover(home: Path) -> ServiceUrls | None:
    """Return the services that a living process on this machine runs in a home folder, or None.

    Raises HomeUnusable when they belong to another user.
    """
    try:
        found = json.loads((home / FILE).read_text(encoding="utf-8"))
        # A holder that was killed leaves the file behind; its process id may be another program's by now.
        with contextlib.suppress(psutil.Error):
            holder = psutil.Process(int(found["pid"]))
            if abs(holder.create_time() - float(found["started"])) < 1.0 and holder.status() != psutil.STATUS_ZOMBIE:
                return ServiceUrls(str(found["database_url"]), str(found["redis_url"]))
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        return None
    except PermissionError as problem:
        raise HomeUnusable(f"{home / FILE} belongs to another user ({os.fspath(home)})") from problem
    return None
