"""Whoever follows the library reads everything once, then only what changed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

from infra.database import AsyncConnection, Connection, make_async_pool
from models_registry.following import Follower, forget_deletions, read_offers
from models_registry.library import create_entry, delete_entry, update_entry
from models_registry.records import Facts
from tests.library_entries import entry


def following(database_url: str, test: Callable[[Follower, AsyncConnection], Awaitable[None]]) -> None:
    """Run a test with a follower and its connection."""

    async def run() -> None:
        async with (
            make_async_pool(database_url, application_name="test", size=2) as pool,
            pool.connection() as connection,
        ):
            await test(Follower(), connection)

    asyncio.run(run())


def add_many(conn: Connection, count: int) -> None:
    """Copy one entry so often."""
    create_entry(conn, entry("seed"))
    conn.execute(
        """insert into models (kind, name, layout, family, variant, path, fingerprint, components, weight_bytes, native_size, latent_factor,
            latent_channels)
        select kind, 'lora ' || n, layout, family, variant, path, md5(n::text), components, weight_bytes, native_size, latent_factor,
            latent_channels from models, generate_series(1, %s) n""",
        (count,),
    )


def test_a_library_at_rest_costs_nothing(database_url: str, conn: Connection) -> None:
    """Of 3 000 entries none is read again while nothing changes, and one when one changes."""
    add_many(conn, 3000)

    async def test(follower: Follower, connection: AsyncConnection) -> None:
        catalogue = await follower.refresh(connection)
        assert (len(catalogue.entries), follower.rows_read) == (3001, 3001)
        for _ in range(3):
            assert await follower.refresh(connection) is catalogue
        assert follower.rows_read == 3001
        conn.execute("update models set weight = 0.5 where name = 'lora 7'")
        await follower.refresh(connection)
        assert follower.rows_read == 3002

    following(database_url, test)


def test_a_follower_sees_every_change(database_url: str, conn: Connection) -> None:
    """Added, changed, renamed, aliased, away, deleted: after each it knows what a fresh reader knows."""

    async def test(follower: Follower, connection: AsyncConnection) -> None:
        first = create_entry(conn, entry("dusk"), Facts(aliases=("night",)))
        second = create_entry(conn, entry("dawn"))
        steps: list[Callable[[], Any]] = [
            lambda: None,
            lambda: update_entry(conn, first, {"visibility": "private", "allowed_keys": ["k"]}),
            lambda: update_entry(conn, first, {}, ref="dusk@v1"),
            lambda: update_entry(conn, second, {}, aliases=["morning"]),
            lambda: update_entry(conn, second, {}, aliases=[]),
            lambda: conn.execute("update models set missing_since = now() where id = %s", (second,)),
            lambda: delete_entry(conn, first),
            lambda: create_entry(conn, entry("dusk@v1")),
        ]
        for step in steps:
            step()
            found, fresh = await follower.refresh(connection), read_offers(conn)
            assert found == fresh
            for name in ("dusk", "dusk@v1", "night", "dawn", "morning"):
                assert found.offer(name, entry("x").kind) == fresh.offer(name, entry("x").kind)

    following(database_url, test)


def test_what_was_committed_late_is_not_missed(database_url: str, conn: Connection) -> None:
    """A writer that began first and commits last is seen, because writers take turns."""

    async def test(follower: Follower, connection: AsyncConnection) -> None:
        await follower.refresh(connection)
        async with make_async_pool(database_url, application_name="test", size=2) as pool, pool.connection() as other:
            async with other.transaction():
                await other.execute("update models set weight = 1 where name = 'nothing'")
                later = asyncio.create_task(asyncio.to_thread(create_entry, conn, entry("dusk")))
                await asyncio.sleep(0.3)
                assert not later.done(), "the second writer waits for the first"
                assert len((await follower.refresh(connection)).entries) == 0
            await later
        assert len((await follower.refresh(connection)).entries) == 1

    following(database_url, test)


def test_who_slept_too_long_reads_everything_again(database_url: str, conn: Connection) -> None:
    """Deletions that are no longer told one by one are seen all the same."""
    add_many(conn, 10)

    async def test(follower: Follower, connection: AsyncConnection) -> None:
        await follower.refresh(connection)
        conn.execute("delete from models where name = 'lora 3'")
        forget_deletions(conn)
        assert conn.execute("select count(*) as n from model_tombstones").fetchall() == [{"n": 1}], (
            "too young to forget"
        )
        conn.execute("update model_tombstones set deleted_at = now() - interval '2 days'")
        forget_deletions(conn)
        assert conn.execute("select count(*) as n from model_tombstones").fetchall() == [{"n": 0}]
        assert len((await follower.refresh(connection)).entries) == 10
        read = follower.rows_read
        await follower.refresh(connection)
        assert follower.rows_read == read

    following(database_url, test)


def test_a_deleted_entry_is_not_there_for_new_ones(database_url: str, conn: Connection) -> None:
    """Deleting what nobody knows of changes nothing."""

    async def test(follower: Follower, connection: AsyncConnection) -> None:
        made = create_entry(conn, entry("dusk"))
        delete_entry(conn, made)
        assert not delete_entry(conn, uuid4())
        assert len((await follower.refresh(connection)).entries) == 0

    following(database_url, test)
