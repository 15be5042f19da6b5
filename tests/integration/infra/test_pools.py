"""Pools come back after the server was away, without their callers noticing where that can be."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from infra import database
from infra.database import AsyncPool, Pool, connect, make_async_pool, open_pool
from infra.embedded.postgres import start_postgres
from infra.embedded.services import Services

Eventually = Callable[[Callable[[], bool], float], bool]


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    """Open a pool of one connection on a database of its own."""
    with contextlib.closing(open_pool(database_url, application_name="test", size=1)) as opened:
        yield opened


def _fill(pool: Pool, size: int) -> set[int]:
    """Make the pool hold so many connections; returns their server processes."""
    barrier = threading.Barrier(size)
    pids: set[int] = set()

    def hold() -> None:
        with pool.connection() as connection:
            pids.add(connection.info.backend_pid)
            barrier.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return pids


def _value(pool: Pool) -> int:
    with pool.connection() as connection:
        row = connection.execute("select 1 as one").fetchone()
    assert row is not None
    return int(row["one"])


def _accepts(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _crash(services: Services, eventually: Eventually) -> None:
    before = services.supervisor.state("postgres").pid
    assert before is not None
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: services.supervisor.state("postgres").pid not in {before, None}, 3.0)


def test_connections_commit_prepare_and_have_limits(pool: Pool) -> None:
    """Statements commit by themselves, are prepared at once, and end when they take too long."""
    with pool.connection() as connection:
        connection.execute("create table t as select 1 as a")
        connection.execute("select a from t where a = %s", (1,))
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        prepared = connection.execute("select count(*) as n from pg_prepared_statements").fetchone()
        assert prepared is not None
        assert prepared["n"] >= 1
        settings = connection.execute(
            "select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock,"
            " current_setting('idle_in_transaction_session_timeout') as idle, current_setting('timezone') as zone,"
            " current_setting('plan_cache_mode') as plans, current_setting('application_name') as name"
        ).fetchone()
    assert settings == {
        "statement": "30s",
        "lock": "10s",
        "idle": "1min",
        "zone": "UTC",
        "plans": "auto",
        "name": "imagefleet test",
    }


def test_claim_connections_plan_once(database_url: str) -> None:
    """What claims jobs asks for generic plans."""
    with connect(database_url, application_name="claims", generic_plans=True) as connection:
        assert connection.execute("show plan_cache_mode").fetchone() == {"plan_cache_mode": "force_generic_plan"}


def test_slow_statement_is_ended(database_url: str) -> None:
    """A statement over its limit fails instead of holding its connection."""
    with (
        connect(database_url, application_name="test", statement_seconds=0.1) as connection,
        pytest.raises(psycopg.errors.QueryCanceled),
    ):
        connection.execute("select pg_sleep(5)")


def test_pool_tests_connections_without_a_statement(pool: Pool, database_url: str) -> None:
    """Taking a connection costs no round trip: the server sees only the caller's statement."""
    _value(pool)
    with pool.connection() as connection, connect(database_url, application_name="observer") as observer:
        pid = connection.info.backend_pid
        seen = observer.execute("select query from pg_stat_activity where pid = %s", (pid,)).fetchone()
    assert seen == {"query": "select 1 as one"}


def test_ended_session_is_replaced(pool: Pool, database_url: str) -> None:
    """A session that the server has ended is not handed out."""
    (before,) = _fill(pool, 1)
    with connect(database_url, application_name="other") as other:
        other.execute("select pg_terminate_backend(%s, 5000)", (before,))
    assert _value(pool) == 1


def test_connection_with_a_message_waiting_is_kept(pool: Pool, database_url: str) -> None:
    """A notification on an idle connection is no reason to replace it, and is not lost."""
    with pool.connection() as connection:
        before = connection.info.backend_pid
        connection.execute("listen news")
    with connect(database_url, application_name="other") as other:
        other.execute("notify news, 'hello'")
    with pool.connection() as connection:
        assert connection.info.backend_pid == before
        assert [notice.payload for notice in connection.notifies(timeout=2, stop_after=1)] == ["hello"]


def test_pool_survives_a_crash_of_the_server(mortal_services: Services, eventually: Eventually) -> None:
    """After kill -9 of the server every caller gets a good connection soon, though all in the pool were dead."""
    pool = open_pool(mortal_services.urls.database_url, application_name="test", size=4)
    with contextlib.closing(pool):
        before = _fill(pool, 4)
        _crash(mortal_services, eventually)
        assert eventually(lambda: _accepts(mortal_services.urls.database_url), 5.0)
        began = time.monotonic()
        assert [_value(pool) for _ in range(4)] == [1, 1, 1, 1]
        # Finding four dead connections one after the other would take 7 s.
        assert time.monotonic() - began < 6.0
        assert not before & _fill(pool, 4)


def test_pool_serves_who_waited_through_a_long_outage(
    mortal_services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that waited longer than all retries of a connection is served when the server is back."""
    monkeypatch.setattr(database, "RECONNECT_SECONDS", 0.3)
    pool = open_pool(mortal_services.urls.database_url, application_name="test", size=2, wait_seconds=20)
    values: list[int] = []
    waiting = threading.Thread(target=lambda: values.append(_value(pool)))
    with contextlib.closing(pool):
        _fill(pool, 2)
        mortal_services.supervisor.stop("postgres")
        waiting.start()
        waiting.join(1.5)
        assert waiting.is_alive()
        assert start_postgres(mortal_services.home, mortal_services.supervisor, durable=False)
        waiting.join(5.0)
        assert values == [1]


def test_async_pool_survives_a_crash_of_the_server(mortal_services: Services, eventually: Eventually) -> None:
    """The event loop's pool does as the threads' one."""

    async def value(pool: AsyncPool) -> int:
        async with pool.connection() as connection:
            await asyncio.sleep(0.05)
            row = await (await connection.execute("select 1 as one")).fetchone()
        assert row is not None
        return int(row["one"])

    async def scenario() -> list[int]:
        async with make_async_pool(mortal_services.urls.database_url, application_name="test", size=3) as pool:
            await asyncio.gather(*(value(pool) for _ in range(3)))
            await asyncio.to_thread(_crash, mortal_services, eventually)
            return await asyncio.gather(*(value(pool) for _ in range(6)))

    assert asyncio.run(scenario()) == [1] * 6


def test_pool_opens_while_the_server_is_down() -> None:
    """A process may start before its database; a caller gets a clear refusal when its patience is over."""
    pool = open_pool("postgresql://nobody@127.0.0.1:9/none", application_name="test", wait_seconds=0.2)
    with contextlib.closing(pool), pytest.raises(psycopg.OperationalError, match="couldn't get a connection"):
        _value(pool)
