"""Run a Redis of our own, from the system or from a wheel."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import redis

from infra.embedded.binaries import find_redis, reachable
from infra.embedded.data import clear_leftovers, keep_access, make_data_folder, own_path, server_user
from infra.embedded.errors import ServiceFailed, tail
from infra.ports import LOOPBACK
from infra.processes import ChildSpec, RunAs, Supervisor

NAME = "redis"
START_SECONDS = 30.0
#: Logical databases; tests take one each.
DATABASES = 64

CONFIGURATION = """\
# Written at each start.
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
databases {databases}
dir {folder}

# At most a second of messages is lost with the machine; nothing is with the process.
appendonly yes
appendfsync everysec
save ""

# An evicted key would be a queue or a stream: refuse writes instead.
maxmemory-policy noeviction

tcp-keepalive 60
timeout 0
"""


@dataclass(frozen=True)
class _Instance:
    """Hold where one server's parts are."""

    data: Path
    log: Path
    binary: Path
    user: RunAs | None
    port: int
    password: str

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"


def start_redis(home: Path, supervisor: Supervisor) -> str:
    """Start Redis on data in `<home>/redis` and return its URL once it answers.

    The caller holds the home's lock. Raises EmbeddedError.
    """
    data = home / "redis"
    user = server_user(data)
    program = reachable(find_redis(), user)
    clear_leftovers(data, program.path.name)
    access = keep_access(home / "redis.json")
    make_data_folder(data, user)
    server = _Instance(data, home / "logs" / "redis.log", program.path, user, access.port, access.password)
    spec = ChildSpec(
        name=NAME,
        # The password is in the file: the command line can be read by everyone on the machine.
        argv=(str(program.path), f"{own_path(data, user)}/redis.conf"),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
        cwd=data,
        log=server.log,
        run_as=user,
        stop_signal=SIGTERM,
        # Redis writes out its log of commands before it ends.
        orphan_signal=SIGTERM,
        before_start=lambda: _prepare(server),
    )
    supervisor.start(spec)
    try:
        _wait(server, supervisor)
    except ServiceFailed:
        # Everything in Redis may vanish: a damaged log of commands must not keep the fleet from starting.
        if "append only file" not in tail(server.log, 40).lower():
            raise
        supervisor.stop(NAME)
        _set_aside(data)
        supervisor.start(spec)
        _wait(server, supervisor)
    return server.url


def _prepare(server: _Instance) -> None:
    clear_leftovers(server.data, server.binary.name)
    folder = own_path(server.data, server.user)
    text = CONFIGURATION.format(port=server.port, password=server.password, databases=DATABASES, folder=folder)
    path = server.data / "redis.conf"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        if server.user is not None:
            os.fchown(file.fileno(), server.user.uid, server.user.gid)


def _set_aside(data: Path) -> None:
    for name in ("appendonly.aof", "appendonlydir"):
        if (data / name).exists():
            (data / name).rename(data / f"{name}.damaged-{time.time_ns()}")


def _wait(server: _Instance, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + START_SECONDS
    with redis.Redis.from_url(server.url, socket_timeout=5, socket_connect_timeout=5) as client:
        while True:
            try:
                client.ping()
            except redis.RedisError as problem:
                if supervisor.state(NAME).restarts > 1:
                    raise ServiceFailed("Redis", "it ends again and again", server.log) from None
                if time.monotonic() > deadline:
                    raise ServiceFailed("Redis", str(problem), server.log) from None
                time.sleep(0.02)
            else:
                return
