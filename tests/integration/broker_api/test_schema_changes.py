"""A migration may run beside a running API: what its connections have prepared still works."""

import asyncio
from typing import Any

from psycopg import sql

_TABLES = "select tablename from pg_tables where schemaname = 'public' order by tablename"


def _add_a_column_everywhere(world: Any) -> None:
    for row in world.connection.execute(_TABLES).fetchall():
        table = sql.Identifier(row["tablename"])
        world.connection.execute(sql.SQL("alter table {} add column added_later text").format(table))


def test_columns_added_under_a_running_api_disturb_nothing(world: Any, application: Any) -> None:
    """Every read and a submit answer as before, and the snapshot is renewed."""
    key = world.key("root", ("admin", "user"))

    async def story() -> None:
        async with application(key) as (client, services):

            async def ask() -> list[int]:
                made = await client.post("/v1/jobs", json={"prompt": "x"})
                job = made.json().get("id")
                paths = ("/v1/workers", "/v1/jobs", f"/v1/jobs/{job}", "/v1/models", "/v1/queues", "/v1/keys")
                return [made.status_code, *[(await client.get(path)).status_code for path in paths]]

            before = await ask()
            _add_a_column_everywhere(world)
            assert await ask() == before == [202, 200, 200, 200, 200, 200, 200]
            world.add_worker("cpu1@test")
            async with asyncio.timeout(5):
                while len(services.snapshots.now.fleet.workers) < 2:  # noqa: ASYNC110 - the worker is another's news
                    await asyncio.sleep(0.05)

    asyncio.run(story())
