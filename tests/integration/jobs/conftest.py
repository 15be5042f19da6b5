"""A database per test, and the shortest way to a job in it."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Protocol
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.database import CONNECT, Connection, connect
from jobs.claims import Claimer
from jobs.contract import Txt2ImgParameters
from jobs.intake import NewJob, submit


class JobMaker(Protocol):
    """Make an admitted job; keyword arguments change fields of the job (`route` is its class) or of its parameters."""

    def __call__(self, **changes: object) -> NewJob:
        """Return the job, not stored."""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Open a connection as workers do."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def new_job() -> JobMaker:
    """Return a maker of admitted jobs."""
    return make_job


def make_job(**changes: object) -> NewJob:
    """Return an admitted job of 20 steps for `txt2img.cpu`."""
    fields = set(Txt2ImgParameters.model_fields)
    drawn = Txt2ImgParameters(
        model="shapes",
        prompt="a red circle",
        width=128,
        height=128,
        steps=20,
        guidance_scale=5.0,
        scheduler="Euler",
        seed=7,
        preview_every=3,
    ).model_copy(update={name: value for name, value in changes.items() if name in fields})
    rest = {name: value for name, value in changes.items() if name not in fields}
    rest["hardware"] = rest.pop("route", "cpu")
    return NewJob(parameters=drawn, **({"owner": "ann", "model_key": "shapes@1", "needs_memory": 1000} | rest))  # type: ignore[arg-type]  # a test's keywords


@pytest.fixture
def claimer() -> Claimer:
    """Return a CPU worker that serves one queue."""
    return Claimer(worker="cpu0@test", run=uuid4(), queues=["txt2img.cpu"], memory_bytes=10**9, lease_seconds=10)


@pytest.fixture
def store_job(database_url: str) -> Callable[..., UUID]:
    """Return a function that stores a job from a test without an event loop."""

    async def store(job: NewJob) -> UUID:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as opened:
            return (await submit(opened, job)).job

    def stored(**changes: object) -> UUID:
        return asyncio.run(store(make_job(**changes)))

    return stored
