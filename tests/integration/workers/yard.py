"""Real agent processes with the fake engine, on a database and a Redis of their own: what the tests of this folder stand in."""

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psutil
import psycopg
import pytest
from psycopg.types.json import Jsonb

import infra.redis
from infra.celery_app import make_celery
from infra.database import CONNECT, Connection, connect
from infra.storage import open_storage
from jobs.contract import Img2ImgParameters, Txt2ImgParameters
from jobs.dispatch import wake
from jobs.events import Event, stream
from jobs.intake import Accepted, NewJob, submit
from jobs.pictures import upload_ref
from jobs.roster import fleet_now
from jobs.uploads import upload_key

GIB = 1024**3
ROOT = Path(__file__).parents[3]


class AgentProcess:
    """One agent and its engine, as the operating system sees them."""

    def __init__(self, argv: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv, env=environment, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT
            )

    def engine(self) -> psutil.Process | None:
        """Return the engine process, when there is one."""
        children = psutil.Process(self.process.pid).children()
        return children[0] if children else None

    def signal(self, number: signal.Signals) -> None:
        """Send the agent a signal."""
        self.process.send_signal(number)

    def said(self) -> str:
        """Return the log."""
        return self.log.read_text(encoding="utf-8")

    def end(self) -> None:
        """Kill it, wherever it stands."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Yard:
    """Everything a test needs to run agents and give them jobs."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self.folder = folder
        self.storage = folder / "storage"
        self.application = make_celery(redis_url)
        # Kombu keeps connections for every application of a process with equal options; a yard must not be given another's, which a test
        # may have cut.
        options = self.application.conf.broker_transport_options
        self.application.conf.broker_transport_options = {**options, "yard": str(folder)}
        self.redis = infra.redis.connect(redis_url, name="test")
        self.line: Connection = connect(database_url, application_name="test")
        self.agents: list[AgentProcess] = []

    def add_model(self, name: str = "shapes", weight_bytes: int = 5_000_000, kind: str = "checkpoint") -> None:
        """Register a model; the fake engine reads no files."""
        component = {"name": "unet", "bytes": weight_bytes, "parameters": weight_bytes // 2, "dtype": "F16"}
        self.line.execute(
            "insert into models (name, kind, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, "
            "latent_factor, latent_channels) values (%s, %s, 'diffusers', 'sd15', 'base', '/nowhere', %s, %s, %s, 128, 8, 4)",
            (name, kind, name.encode().hex().ljust(64, "0"), Jsonb([component]), weight_bytes),
        )

    def start_agent(self, number: int = 0, *, module: str | Path | None = None, **settings: object) -> AgentProcess:
        """Start an agent; `settings` are Settings' fields, `module` a script to run in place of `python -m workers`."""
        given: dict[str, object] = {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "storage_url": self.storage.as_uri(),
            "home": self.folder,
            "engine": "fake",
            "device": f"cpu:{number}",
            "memory_bytes": 8 * GIB,
            "lease_seconds": 3.0,
            "heartbeat_seconds": 0.2,
            "step_limit_seconds": 30.0,
            "drain_seconds": 10.0,
            **settings,
        }
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGEFLEET_")}
        environment |= {f"IMAGEFLEET_{name.upper()}": str(value) for name, value in given.items()}
        environment["PYTHONPATH"] = str(ROOT)
        argv = [sys.executable, "-m", "workers"] if module is None else [sys.executable, str(module)]
        agent = AgentProcess(argv, environment, self.folder / f"agent{len(self.agents)}.log")
        self.agents.append(agent)
        return agent

    def submit(
        self,
        prompt: str = "a red circle",
        *,
        route: str = "cpu",
        needs_memory: int = 1000,
        wakes: bool = True,
        **changes: object,
    ) -> UUID:
        """Store a job of 8 steps and send its wake-up, as the API does; `changes` are fields of its parameters."""
        drawn = Txt2ImgParameters(
            model="shapes",
            prompt=prompt,
            width=64,
            height=64,
            steps=8,
            guidance_scale=5.0,
            scheduler="Euler",
            seed=7,
            preview_every=2,
        )
        new = NewJob("ann", drawn.model_copy(update=changes), "shapes@1", needs_memory, route)
        job = asyncio.run(self._store(new)).job
        if wakes:
            self.wake(f"txt2img.{route}")
        return job

    def submit_img2img(self, picture: bytes, *, kept: bool = True, prompt: str = "a red circle") -> UUID:
        """Store a job of 4 steps that starts from a picture, with the picture's bytes unless `kept` is false, and wake a worker."""
        sha256 = hashlib.sha256(picture).hexdigest()
        if kept:
            self.keep(picture)
        drawn = Img2ImgParameters(
            model="shapes", prompt=prompt, image=upload_ref(sha256), width=64, height=64, steps=8, strength=0.5,
            guidance_scale=5.0, scheduler="Euler", seed=7, preview_every=2,
        )  # fmt: skip
        job = asyncio.run(self._store(NewJob("ann", drawn, "shapes@1", 1000, "cpu"))).job
        self.wake("img2img.cpu")
        return job

    def keep(self, picture: bytes) -> None:
        """Store the bytes of an upload."""
        open_storage(self.storage.as_uri()).put(upload_key(hashlib.sha256(picture).hexdigest()), picture)

    def wake(self, queue: str = "txt2img.cpu") -> None:
        """Send a wake-up unless one waits."""
        wake(self.application, self.redis, queue, 1)

    async def _store(self, new: NewJob) -> Accepted:
        async with await psycopg.AsyncConnection.connect(self.database_url, **CONNECT) as opened:
            return await submit(opened, new)

    def row(self, job: UUID) -> dict[str, Any]:
        """Return a job's row."""
        found = self.line.execute("select * from jobs where id = %s", (job,)).fetchone()
        assert found is not None
        return found

    def images(self, job: UUID) -> list[dict[str, Any]]:
        """Return a job's pictures in order."""
        return self.line.execute("select * from images where job = %s order by index", (job,)).fetchall()

    def state(self, job: UUID) -> str:
        """Return a job's state."""
        return str(self.row(job)["state"])

    def loads(self) -> int:
        """Return how often the engines loaded a model, as the workers' rows say."""
        return sum(worker.loads for worker in fleet_now(self.line).workers)

    def events(self, job: UUID) -> list[Event]:
        """Return a job's kept events."""
        entries = cast("list[Any]", self.redis.xrange(stream(job)))
        return [Event.model_validate_json(next(iter(fields.values()))) for _, fields in entries]

    def kinds(self, job: UUID) -> list[str]:
        """Return the types of a job's kept events."""
        return [event.type for event in self.events(job)]

    def objects(self) -> list[str]:
        """Return the keys in storage; what is half written is no object."""
        return sorted(found.key for found in open_storage(self.storage.as_uri()).list())

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until a condition holds; fail with the agents' logs when it does not in time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {agent.log.name}\n{agent.said()}" for agent in self.agents)
                pytest.fail(f"the condition did not hold within {seconds} s\n{logs}")
            time.sleep(0.02)

    def until_state(self, job: UUID, state: str, seconds: float = 20.0) -> None:
        """Wait until a job is in a state."""
        self.until(lambda: self.state(job) == state, seconds)

    def until_row(self, job: UUID, **values: object) -> None:
        """Wait until a job's row holds these values."""
        self.until(lambda: values.items() <= self.row(job).items())

    def until_heard_of(self, place: int) -> None:
        """Wait until a worker has beaten once more."""
        before = fleet_now(self.line).workers[place].seen_at
        self.until(lambda: fleet_now(self.line).workers[place].seen_at > before)

    def until_step(self, job: UUID, step: int = 1) -> None:
        """Wait until a job's watchers heard of a step."""
        self.until(lambda: any(event.type == "progress" and event.data["step"] >= step for event in self.events(job)))

    def until_engine(self, agent: AgentProcess) -> int:
        """Wait until an agent has an engine, and return its process id."""
        self.until(agent.engine)
        engine = agent.engine()
        assert engine is not None
        return engine.pid

    def close(self) -> None:
        """End everything."""
        for agent in self.agents:
            agent.end()
        self.line.close()
        self.redis.close()
        self.application.close()
