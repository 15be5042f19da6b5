"""Sites that serve models, and a puller that may reach them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uuid_utils.compat as uuids
from psycopg.types.json import Jsonb

from infra.database import Connection, Pool, open_pool
from infra.guarded_http import Guard
from infra.storage import Storage, open_storage
from models_registry.pulls import queue
from models_registry.pulls.fetching import Room
from models_registry.pulls.orders import Order
from models_registry.pulls.planning import Sites
from models_registry.pulls.pulling import Puller
from models_registry.pulls.web import Web
from tests.model_sources import Sources, serve_sources

ALLOWED = "127.0.0.1, localhost"


@pytest.fixture
def sources() -> Iterator[Sources]:
    """Serve sites with nothing on them."""
    with serve_sources() as served:
        yield served


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """Open a pool on a fresh database."""
    with contextlib.closing(open_pool(database_url, application_name="test")) as opened:
        yield opened


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Return an empty storage on disk."""
    return open_storage((tmp_path / "storage").as_uri())


@dataclass
class Desk:
    """Order downloads, and bring them to their end one by one."""

    puller: Puller
    connection: Connection

    def order(self, source: str, owner: str = "ann", **order: Any) -> UUID:
        """Queue a download."""
        identity: UUID = uuids.uuid7()
        self.connection.execute(
            "insert into downloads (id, owner, source, request) values (%s, %s, %s, %s)",
            (identity, owner, source, Jsonb(Order(**order).model_dump(mode="json"))),
        )
        return identity

    def step(self) -> bool:
        """Do what a keeper's thread does once; tell whether there was anything to do."""
        # Pauses are not waited for.
        self.connection.execute("update downloads set available_at = now() where state = 'queued'")
        held = queue.claim(self.connection)
        if held is not None:
            self.puller.pull(held)
        return held is not None

    def pull(self, source: str, owner: str = "ann", **order: Any) -> dict[str, Any]:
        """Order a download, and bring it to its end."""
        identity = self.order(source, owner, **order)
        for _ in range(20):
            if not self.step():
                break
        return self.row(identity)

    def row(self, identity: UUID) -> dict[str, Any]:
        """Return a download's row."""
        row: Any = self.connection.execute("select * from downloads where id = %s", (identity,)).fetchone()
        return dict(row)

    def entry(self, identity: UUID) -> dict[str, Any]:
        """Return the row of an entry."""
        row: Any = self.connection.execute("select * from models where id = %s", (identity,)).fetchone()
        return dict(row)


@pytest.fixture
def desk(sources: Sources, pool: Pool, storage: Storage, tmp_path: Path) -> Iterator[Desk]:
    """Return a desk whose puller may reach the sites."""
    web = Web(Guard.of(ALLOWED), {sources.url: "secret-token"})
    sites = Sites(sources.url, sources.url)
    puller = Puller(pool, web, sites, storage, tmp_path / "downloads", Room(10_000_000, 0), first_pause=0.0)
    with contextlib.closing(web), pool.connection() as connection:
        yield Desk(puller, connection)
