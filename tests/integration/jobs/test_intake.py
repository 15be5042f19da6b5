"""Accepting jobs: one statement, one commit, one job per idempotency key."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql

from infra.database import CONNECT, AsyncConnection, Connection
from jobs.cursors import CursorInvalid
from jobs.errors import IdempotencyMismatch
from jobs.intake import Accepted, NewJob, submit, submit_together
from jobs.reading import JobSearch, list_jobs, present_changes, queues, read_job
from jobs.states import State


def _run(url: str, story: Callable[[AsyncConnection], Awaitable[Any]]) -> Any:
    async def told() -> Any:
        async with await psycopg.AsyncConnection.connect(url, **CONNECT) as own:
            return await story(own)

    return asyncio.run(told())


def test_submit_stores_what_was_asked_and_says_queued(database_url: str, new_job: Callable[..., NewJob]) -> None:
    """The view shows the resolved request, a position and what the job waits for."""

    async def story(own: AsyncConnection) -> None:
        first = await submit(own, new_job(seed=2**64 - 1, labels={"project": "a"}))
        second = await submit(own, new_job())
        assert first.change is not None
        assert (first.change.event.id, first.change.type) == ("0-1", "queued")
        seen, next_one = await read_job(own, "ann", first.job), await read_job(own, None, second.job)
        assert seen is not None
        assert next_one is not None
        assert seen.request.seed == 2**64 - 1
        assert seen.request.labels == {"project": "a"}
        assert (seen.position, next_one.position) == (1, 2)
        assert "none has registered yet" in (seen.waiting_for or "")
        assert await read_job(own, "bob", first.job) is None

    _run(database_url, story)


def test_submit_with_one_key_makes_one_job(
    database_url: str, connection: Connection, new_job: Callable[..., NewJob]
) -> None:
    """A hundred requests at once with the same key and body get the same job."""
    job = new_job(idempotency_key="k", request_hash="h")

    async def once() -> Accepted:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as own:
            return await submit(own, job)

    async def all_at_once() -> Sequence[Accepted]:
        results: list[Accepted] = []
        for _ in range(5):
            results.extend(await asyncio.gather(*(once() for _ in range(20))))
        return results

    accepted = asyncio.run(all_at_once())
    assert len({one.job for one in accepted}) == 1
    assert sum(one.created for one in accepted) == 1
    assert connection.execute("select count(*) as n from jobs").fetchone() == {"n": 1}
    # A repeat is not charged to its owner's share either.
    row = connection.execute("select vtime from fair_owners where owner = 'ann'").fetchone()
    cost = connection.execute("select cost from jobs").fetchone()
    assert row is not None
    assert cost is not None
    assert row["vtime"] <= cost["cost"] * 20


def test_submit_refuses_a_key_that_was_used_for_something_else(
    database_url: str, new_job: Callable[..., NewJob]
) -> None:
    """The same key with another body is an error, for this owner alone."""

    async def story(own: AsyncConnection) -> None:
        await submit(own, new_job(idempotency_key="k", request_hash="h"))
        with pytest.raises(IdempotencyMismatch):
            await submit(own, new_job(idempotency_key="k", request_hash="other"))
        other = await submit(own, new_job(owner="bob", idempotency_key="k", request_hash="other"))
        assert other.created

    _run(database_url, story)


def test_list_pages_through_every_job_once(database_url: str, new_job: Callable[..., NewJob]) -> None:
    """Pages go from new to old and end; a made-up cursor is refused."""

    async def story(own: AsyncConnection) -> None:
        made = [(await submit(own, new_job())).job for _ in range(7)]
        await submit(own, new_job(owner="bob"))
        seen: list[UUID] = []
        cursor: str | None = None
        while True:
            page, cursor = await list_jobs(own, "ann", cursor=cursor, limit=3)
            seen.extend(job.id for job in page)
            if cursor is None:
                break
        assert seen == made[::-1]
        assert await list_jobs(own, "ann", JobSearch(state=State.RUNNING)) == ([], None)
        for nonsense in ("", "x", "é", "A" * 500):
            with pytest.raises(CursorInvalid):
                await list_jobs(own, "ann", cursor=nonsense)

    _run(database_url, story)


def test_present_change_is_the_event_that_was_announced(database_url: str, new_job: Callable[..., NewJob]) -> None:
    """Who comes late is told the present state under the id its event had."""

    async def story(own: AsyncConnection) -> None:
        accepted = await submit(own, new_job())
        assert await present_changes(own, "ann", [accepted.job]) == {accepted.job: accepted.change}
        assert await present_changes(own, "bob", [accepted.job]) == {}
        listed = await queues(own)
        assert [(queue.name, queue.queued, queue.workers) for queue in listed] == [("txt2img.cpu", 1, 0)]

    _run(database_url, story)


def test_jobs_stored_together_are_stamped_as_if_one_by_one(database_url: str, new_job: Callable[..., NewJob]) -> None:
    """Fair order, cost and promise come out the same, in every queue and behind what the owner was promised already."""
    jobs = [new_job(seed=seed, steps=10 + seed, priority=seed % 2, deadline_s=60.0) for seed in range(6)]
    columns = sql.SQL(
        "select request, queue, priority, fair_order, cost, steps, batch_key, deadline_at - created_at as left from jobs order by id"
    )

    async def story(own: AsyncConnection) -> None:
        async def stamps() -> tuple[list[Any], list[Any]]:
            rows = await (await own.execute(columns)).fetchall()
            owners = await (await own.execute("select * from fair_owners order by priority")).fetchall()
            for table in ("jobs", "fair_owners"):
                await own.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
            return rows, owners

        first = new_job(steps=50, priority=1)
        await own.execute("insert into fair_clock values ('txt2img.cpu', 0, 777)")
        await submit(own, first)
        for job in jobs:
            await submit(own, job)
        expected = await stamps()
        await submit(own, first)
        async with own.transaction():
            batch = await own.execute(
                "insert into batches (id, owner, size) values (gen_random_uuid(), 'ann', 6) returning id"
            )
            row: Any = await batch.fetchone()
            changes = await submit_together(own, jobs, row["id"])
        assert [change.type for change in changes] == ["queued"] * 6
        assert await stamps() == expected

    _run(database_url, story)
