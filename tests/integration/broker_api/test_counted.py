"""What a submit costs, counted: statements, commits, Redis commands."""

import asyncio
import hashlib
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

import psycopg
import pytest
import redis.asyncio.connection

import infra.database
from broker_api.auth.keys import REMEMBERED_SECONDS
from tests.picture_files import base64_of, plain

#: What the request in this task (and the tasks it starts) has done; background tasks began without it.
LEDGER: Final[ContextVar[list[str] | None]] = ContextVar("ledger", default=None)


class CountingCursor(psycopg.AsyncCursor[Any]):
    """A real cursor that writes down what it executes."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Write down, then execute."""
        ledger = LEDGER.get()
        if ledger is not None:
            ledger.append(f"sql {' '.join(str(query).split())[:60]}")
        return await super().execute(query, params, **options)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Count from now on in this task, and return the ledger."""
    monkeypatch.setitem(infra.database.CONNECT, "cursor_factory", CountingCursor)
    send = redis.asyncio.connection.AbstractConnection.send_packed_command

    async def counting(self: Any, command: Any, **options: Any) -> Any:
        ledger = LEDGER.get()
        if ledger is not None:
            ledger.append("redis")
        return await send(self, command, **options)

    monkeypatch.setattr(redis.asyncio.connection.AbstractConnection, "send_packed_command", counting)

    def begin() -> list[str]:
        ledger: list[str] = []
        LEDGER.set(ledger)
        return ledger

    return begin


def test_submit_costs_two_statements_one_commit_and_no_redis(
    world: Any, application: Any, counted: Callable[[], list[str]]
) -> None:
    """A submit looks up the key and stores the job; the next one within a moment only stores the job."""

    async def story() -> tuple[list[str], list[str], list[str], int, int]:
        async with application(world.key()) as (client, services):
            async with services.pool.connection() as connection:
                assert connection.autocommit, "each statement is its own transaction: no BEGIN, no COMMIT besides"
            before = _next_transaction(world)
            first = counted()
            assert (await client.post("/v1/jobs", json={"prompt": "x"})).status_code == 202
            first = list(first)
            writes = _next_transaction(world) - before
            second = counted()
            assert (await client.post("/v1/jobs", json={"prompt": "x"})).status_code == 202
            second = list(second)
            third = counted()
            # A name no one knows is looked for anew: the ledger works.
            assert (await client.post("/v1/jobs", json={"prompt": "x", "model": "nobody"})).status_code == 422
            LEDGER.set(None)
            await services.relay.drain(5)
            return first, second, list(third), writes, world.redis.llen("imagefleet:txt2img.cpu")

    first, second, third, writes, messages = asyncio.run(story())
    assert [entry[:30] for entry in first] == ["sql select hash, owner, scopes,", "sql with known as materialized "][
        : len(first)
    ] or first
    assert len(first) == 2
    assert len(second) == 1
    assert len(third) == 2
    assert not [entry for entry in first + second + third if entry == "redis"]
    assert writes == 1
    # The wake-up was sent all the same, after the answer.
    assert messages == 1


def test_pictures_cost_one_statement_each_at_most(
    world: Any, application: Any, counted: Callable[[], list[str]]
) -> None:
    """However many come inline, or were uploaded before, they are recorded or looked up in one statement each."""
    sent = [base64_of(plain(64, 64, level)) for level in (200, 255)]
    inline = {"task": "inpaint", "prompt": "x", "image": sent[0], "mask": sent[1]}
    refs = [f"upload:{hashlib.sha256(plain(64, 64, level)).hexdigest()}" for level in (200, 255)]

    async def story() -> list[list[str]]:
        ledgers = []
        async with application(world.key()) as (client, services):
            assert (await client.get("/v1/queues")).status_code == 200
            for asked in (inline, inline | {"image": refs[0], "mask": refs[1]}, inline | {"image": refs[0]}):
                ledger = counted()
                assert (await client.post("/v1/jobs", json=asked)).status_code == 202
                LEDGER.set(None)
                ledgers.append([entry for entry in ledger if not entry.startswith("sql select hash")])
            await services.relay.drain(5)
        return ledgers

    inline_only, named_only, both = asyncio.run(story())
    assert [len(inline_only), len(named_only), len(both)] == [2, 2, 3]
    assert not [entry for entry in inline_only + named_only + both if entry == "redis"]


def test_many_requests_look_a_key_up_once(world: Any, application: Any, counted: Callable[[], list[str]]) -> None:
    """Requests that come together wait for one answer of the database about their key."""

    async def story() -> list[str]:
        async with application(world.key()) as (client, _):
            ledger = counted()
            answers = await asyncio.gather(*(client.get("/v1/queues") for _ in range(20)))
            LEDGER.set(None)
        assert {answer.status_code for answer in answers} == {200}
        return ledger

    ledger = asyncio.run(story())
    assert len([entry for entry in ledger if entry.startswith("sql select hash")]) == 1


def test_revoked_key_stops_within_a_second_in_another_process(world: Any, application: Any) -> None:
    """What a process remembers of a key is forgotten in time, even when the key is used all the while."""

    async def story() -> float:
        key = world.key()
        async with application(key) as (client, _):
            assert (await client.get("/v1/queues")).status_code == 200
            began = time.monotonic()
            world.connection.execute("update api_keys set revoked_at = now()")
            while (answer := await client.get("/v1/queues")).status_code == 200:
                assert time.monotonic() - began < 5
                await asyncio.sleep(0.01)
            assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid")
            return time.monotonic() - began

    assert asyncio.run(story()) < 1.0
    assert REMEMBERED_SECONDS < 1.0


def _next_transaction(world: Any) -> int:
    row = world.connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next").fetchone()
    return int(row["next"])
