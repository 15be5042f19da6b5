"""An API over real servers, and the shortest way to models, workers, keys and jobs in it."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import redis
from psycopg import sql

from broker_api.application import create_application
from broker_api.auth.keys import Scope, create_key
from broker_api.server import Server, bind, make_server
from broker_api.services import Services, open_services
from infra.database import Connection, connect, open_engine
from infra.embedded.services import ServiceUrls
from infra.ports import free_port
from infra.settings import Settings
from infra.storage import Storage, open_storage
from jobs.changes import Change
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.events import Event, EventType, EventWriter
from jobs.fleet import WorkerFacts
from jobs.roster import register
from jobs.store import StoredPicture, complete
from models_registry.entries import Component, Kind, Layout, ModelEntry
from models_registry.tables import models
from tests.fleet_process import eventually

GIB = 1024**3
PROMPT = {"prompt": "a red circle on a blue background"}


@dataclass
class Live:
    """A server on a free port, in a thread."""

    server: Server
    url: str
    loop: asyncio.AbstractEventLoop

    @property
    def services(self) -> Services:
        """Return what the server stands on."""
        found: Services = self.server.config.app.state.services  # type: ignore[union-attr]
        return found

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """Return a client with this key."""
        given = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=given | headers, timeout=20, trust_env=False)


@dataclass
class World:
    """Real servers with a model, a worker and two owners."""

    database_url: str
    redis_url: str
    home: Path
    connection: Connection
    redis: "redis.Redis"
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Return the settings of an API in this world."""
        return Settings(home=self.home, port=0, _env_file=None, **self.changes)

    @property
    def storage(self) -> Storage:
        """Return where its pictures lie."""
        return open_storage(self.settings.storage)

    def key(self, owner: str = "ann", scopes: Sequence[Scope] = ("user",)) -> str:
        """Create an API key and return its text."""
        return create_key(self.connection, owner=owner, name="test", scopes=scopes).key

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        query = sql.SQL("select count(*) as n from {}").format(sql.Identifier(table))
        row = self.connection.execute(query).fetchone()
        return int(row["n"]) if row else 0

    def add_model(self, name: str = "shapes-sd15", **changes: Any) -> ModelEntry:
        """Register a model without files."""
        values: dict[str, Any] = {
            "name": name,
            "kind": Kind.CHECKPOINT,
            "layout": Layout.DIFFUSERS,
            "family": "sd15",
            "path": self.home / name,
            "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
            "components": (Component(name="unet", bytes=5_000_000, parameters=2_500_000, dtype="F16"),),
            "native_size": 128,
            "latent_factor": 8,
            "latent_channels": 4,
        }
        entry = ModelEntry(**(values | changes))
        row = entry.model_dump(mode="json", exclude_none=True) | {"weight_bytes": entry.bytes}
        engine = open_engine(self.database_url, application_name="test")
        with engine.begin() as transaction:
            transaction.execute(
                models.insert().values({name: value for name, value in row.items() if name in models.columns})
            )
        engine.dispose()
        return entry

    def add_worker(self, name: str = "cpu0@test", **changes: Any) -> WorkerFacts:
        """Sign a worker on."""
        values: dict[str, Any] = {
            "name": name, "run": uuid4(), "host": "test", "pid": 1, "device": "cpu", "device_name": "test", "hardware": "cpu",
            "serves": ("cpu",), "tags": (), "tasks": ("txt2img",), "queues": ("txt2img.cpu",), "memory_bytes": 8 * GIB,
            "engine": "fake", "version": "0",
        }  # fmt: skip
        facts = WorkerFacts(**(values | changes))
        register(self.connection, facts)
        return facts

    def worker(self) -> "TestWorker":
        """Return something that works as an agent does, one call at a time."""
        return TestWorker(self)


class TestWorker:
    """Claim, publish and complete with the fleet's own statements."""

    __test__ = False

    def __init__(self, world: World) -> None:
        self._world = world
        self._events = EventWriter(world.redis)
        self._seq = itertools.count(1)
        self.job: ClaimedJob | None = None

    def claim(self) -> ClaimedJob:
        """Take the next job and announce it."""
        claimer = Claimer(
            worker="cpu0@test", run=uuid4(), queues=["txt2img.cpu"], memory_bytes=8 * GIB, lease_seconds=60
        )
        self.job = claim(self._world.connection, claimer).jobs[0]
        self._seq = itertools.count(1)
        self._events.publish([self.job.predecessor])
        self.publish("started", worker="cpu0@test")
        return self.job

    def event(self, kind: EventType, **data: object) -> Event:
        """Make the next event without publishing it."""
        job = self.claimed
        at = job.created_at
        return Event(job=job.id, epoch=job.epoch, seq=next(self._seq), type=kind, at=at, data=data)

    def publish(self, kind: EventType, **data: object) -> Event:
        """Publish the next event."""
        event = self.event(kind, **data)
        self._events.publish([event])
        return event

    @property
    def claimed(self) -> ClaimedJob:
        """Return the job in work."""
        assert self.job is not None
        return self.job

    def finish(self, data: bytes = b"\x89PNG a picture", *, announce: bool = True) -> Change:
        """Store a picture and complete the job."""
        job = self.claimed
        digest = hashlib.sha256(data).hexdigest()
        key = f"jobs/{job.id}/{job.epoch}-0-{digest}.png"
        self._world.storage.put(key, data)
        picture = StoredPicture(0, job.parameters.seed, 128, 128, "image/png", len(data), digest, key)
        change = complete(self._world.connection, job.id, job.epoch, next(self._seq), [picture], 0.5)
        assert change is not None
        if announce:
            self._events.publish([change.event])
        return change


@pytest.fixture
def world(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[World]:
    """Make a world for one test."""
    with contextlib.ExitStack() as stack:
        yield _make_world(stack, database_url, redis_url, tmp_path)


@pytest.fixture(scope="module")
def shared_world(
    services: ServiceUrls, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Make a world for all tests of a module, which leave in it what they do."""
    name = f"api_{uuid4().hex[:8]}"
    url = urlsplit(services.database_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(services.database_url, autocommit=True) as admin, contextlib.ExitStack() as stack:
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template_database))
        )
        try:
            yield _make_world(stack, url, services.redis_url, tmp_path_factory.mktemp("api"))
        finally:
            stack.close()
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _make_world(stack: contextlib.ExitStack, database_url: str, redis_url: str, home: Path) -> World:
    connection = stack.enter_context(connect(database_url, application_name="test"))
    client = stack.enter_context(contextlib.closing(redis.Redis.from_url(redis_url)))
    made = World(database_url, redis_url, home, connection, client)
    made.add_model()
    made.add_worker()
    return made


@pytest.fixture
def clean_world(shared_world: World) -> World:
    """Return the module's world without the jobs and keys of the test before."""
    for table in ("jobs", "garbage", "fair_owners", "fair_clock", "api_keys", "recipes", "model_marks"):
        shared_world.connection.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
    shared_world.redis.flushdb()
    return shared_world


@pytest.fixture
def live(world: World) -> Iterator[Live]:
    """Serve the world of one test."""
    with serving(world) as found:
        yield found


@pytest.fixture(scope="module")
def shared_live(shared_world: World) -> Iterator[Live]:
    """Serve the world of a module."""
    with serving(shared_world) as found:
        yield found


@contextlib.contextmanager
def serving(
    world: World, *, redis_url: str | None = None, database_url: str | None = None, port: int = 0
) -> Iterator[Live]:
    """Run a server in a thread."""
    server = make_server(world.settings, ServiceUrls(database_url or world.database_url, redis_url or world.redis_url))
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    began = server.startup

    async def startup(sockets: Any = None) -> None:
        await began(sockets)
        loops.append(asyncio.get_running_loop())
        ready.set()

    server.startup = startup  # type: ignore[method-assign]
    with contextlib.closing(bind("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert ready.wait(20)
            yield Live(server, f"http://127.0.0.1:{listener.getsockname()[1]}", loops[0])
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def server(world: World) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Run an API in a process of its own, with a folder of its own for passing files."""
    port = free_port()
    own = {
        "DATABASE_URL": world.database_url, "REDIS_URL": world.redis_url, "HOME": str(world.home), "PORT": str(port),
    }  # fmt: skip
    passing = world.home / "passing"
    passing.mkdir(exist_ok=True)
    env = {**os.environ, **{f"IMAGEFLEET_{name}": value for name, value in own.items()}, "TMPDIR": str(passing)}
    process = subprocess.Popen([sys.executable, "-m", "cli.main", "api"], env=env, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(ready)
        yield process, url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def start_server(world: World) -> Callable[..., contextlib.AbstractContextManager[Live]]:
    """Return a way to serve the world when, and with the Redis, a test wants."""
    return lambda **options: serving(world, **options)


@contextlib.asynccontextmanager
async def in_process(world: World, key: str | None = None) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """Run the application in the test's own event loop and task."""
    application = create_application(
        world.settings, lambda: open_services(world.settings, ServiceUrls(world.database_url, world.redis_url))
    )
    async with application.router.lifespan_context(application):
        transport = httpx.ASGITransport(application, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://test", headers=headers, timeout=30
        ) as client:
            yield client, application.state.services


@pytest.fixture
def application(
    world: World,
) -> Callable[..., contextlib.AbstractAsyncContextManager[tuple[httpx.AsyncClient, Services]]]:
    """Return a way to run the application of this world in the test's own event loop."""
    return lambda key=None: in_process(world, key)


@dataclass(frozen=True)
class Sse:
    """One event as a reader got it."""

    id: str
    event: str
    data: str

    @property
    def order(self) -> tuple[int, int]:
        """Return what ids are compared by."""
        epoch, _, seq = self.id.partition("-")
        return int(epoch), int(seq)


def parse_sse(lines: Iterator[str]) -> Iterator[Sse]:
    """Read events off a stream of lines."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields:
            yield Sse(fields["id"], fields["event"], fields["data"])
        fields = {}


@pytest.fixture
def read_sse() -> Callable[..., list[Sse]]:
    """Return a reader of a job's events: all until the end of the stream, or the first `most`."""

    def read(client: httpx.Client, job: str | UUID, *, after: str | None = None, most: int | None = None) -> list[Sse]:
        headers = {"last-event-id": after} if after else {}
        with client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
            if answer.status_code == 204:
                return []
            assert answer.status_code == 200, answer.read()
            return list(itertools.islice(parse_sse(answer.iter_lines()), most))

    return read


@pytest.fixture
def run_async() -> Callable[..., Any]:
    """Return `asyncio.run`."""
    return asyncio.run
