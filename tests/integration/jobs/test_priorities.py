"""A waiting job takes another place; whoever else writes at that moment, nothing is lost or charged twice."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.database import CONNECT, Connection
from jobs.changes import Change
from jobs.claims import Claimer, claim
from jobs.priorities import JobNotWaiting, change_priority

StoreJob = Callable[..., UUID]


@pytest.fixture
def move(database_url: str) -> Callable[..., tuple[bool, Change | None]]:
    """Return a function that moves a job from a test without an event loop."""

    async def moved(job: UUID, priority: int, owner: str | None) -> tuple[bool, Change | None]:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as opened:
            return await change_priority(opened, owner, job, priority)

    return lambda job, priority, owner=None: asyncio.run(moved(job, priority, owner))


def test_moved_job_is_claimed_in_its_new_place(
    connection: Connection, claimer: Claimer, store_job: StoreJob, move: Any
) -> None:
    """Forward and back, and the job that is drawn says its new priority."""
    first, second, third = (store_job() for _ in range(3))
    move(third, 0)
    move(first, 9)
    taken = [claim(connection, claimer).jobs[0] for _ in range(3)]
    assert [job.id for job in taken] == [third, second, first]
    assert [job.parameters.priority for job in taken] == [0, 5, 9]
    assert claim(connection, claimer).seen == 0


def test_move_is_an_event_under_an_epoch_of_its_own(
    connection: Connection, claimer: Claimer, store_job: StoreJob, move: Any
) -> None:
    """The event is new, and the claim that follows tells the same one as what came before it."""
    job = store_job()
    change = move(job, 1)[1]
    assert (change.epoch, change.seq, change.type) == (1, 1, "requeued")
    assert change.data == {"reason": "priority_changed", "queue": "txt2img.cpu"}
    (taken,) = claim(connection, claimer).jobs
    assert taken.epoch == 2
    assert taken.predecessor == change.event


def test_same_priority_changes_nothing(connection: Connection, store_job: StoreJob, move: Any) -> None:
    """Asked again, the job stands where it stood, and its followers hear nothing."""
    job = store_job(priority=3)
    before = connection.execute("select * from jobs").fetchall()
    assert move(job, 3) == (True, None)
    assert connection.execute("select * from jobs").fetchall() == before


def test_move_charges_the_new_priority_and_gives_the_old_one_back(
    connection: Connection, store_job: StoreJob, move: Any
) -> None:
    """To and fro, an owner owes in each priority what its jobs there cost, and nothing for those that left."""
    job = store_job()
    cost = connection.execute("select cost from jobs").fetchone()["cost"]  # type: ignore[index]  # there is one
    assert _owed(connection) == {5: cost}
    move(job, 2)
    assert _owed(connection) == {2: cost, 5: 0}
    move(job, 5)
    assert _owed(connection) == {2: 0, 5: cost}


def test_moved_job_goes_behind_those_its_owner_has_there(
    connection: Connection, claimer: Claimer, store_job: StoreJob, move: Any
) -> None:
    """Moving many jobs forward buys no more than sending them with that priority: others have their share."""
    for _ in range(10):
        store_job(owner="ann", priority=2)
    late = store_job(owner="ann")
    modest = store_job(owner="bob", priority=2)
    move(late, 2)
    order = [claim(connection, claimer).jobs[0].id for _ in range(12)]
    assert order.index(modest) < 3
    assert order[-1] == late


def test_only_a_waiting_job_moves(connection: Connection, claimer: Claimer, store_job: StoreJob, move: Any) -> None:
    """A running job is left as it is, and its writer goes on; a foreign one is as unknown as one that never was."""
    job = store_job(owner="ann")
    assert move(job, 1, "bob") == (False, None)
    assert move(uuid4(), 1, None) == (False, None)
    claim(connection, claimer)
    before = connection.execute("select * from jobs").fetchall()
    with pytest.raises(JobNotWaiting):
        move(job, 1)
    assert connection.execute("select * from jobs").fetchall() == before


def test_rest_of_a_job_is_not_cut_short(
    connection: Connection, claimer: Claimer, store_job: StoreJob, move: Any
) -> None:
    """A job that rests after an error of its own does not start sooner because it moved."""
    job = store_job()
    connection.execute("update jobs set available_at = now() + interval '1 hour'")
    move(job, 0)
    assert claim(connection, claimer).seen == 0


def test_claims_and_moves_at_once_take_each_job_once(
    database_url: str, connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Jobs change places in both directions while they are claimed: no deadlock, and each is claimed exactly once."""
    jobs = [store_job(priority=priority) for priority in (2, 5) for _ in range(20)]

    async def story() -> tuple[list[UUID], int]:
        mover, other, third = [await psycopg.AsyncConnection.connect(database_url, **CONNECT) for _ in range(3)]
        refused = 0

        async def shuffle(through: psycopg.AsyncConnection[Any], order: list[UUID]) -> None:
            nonlocal refused
            for turn, job in enumerate(order):
                try:
                    await change_priority(through, None, job, 5 if turn % 2 else 2)
                except JobNotWaiting:
                    refused += 1

        async def take() -> list[UUID]:
            taken: list[UUID] = []
            while len(taken) < len(jobs):
                taken += [job.id for job in await asyncio.to_thread(lambda: claim(connection, claimer).jobs)]
            return taken

        taken, *_ = await asyncio.gather(
            take(), shuffle(mover, jobs * 2), shuffle(other, jobs[::-1] * 2), shuffle(third, jobs[1::2] + jobs[::2])
        )
        for each in (mover, other, third):
            await each.close()
        return taken, refused

    taken, refused = asyncio.run(story())
    assert sorted(taken) == sorted(jobs)
    assert refused > 0


def _owed(connection: Connection) -> dict[int, int]:
    return {
        row["priority"]: row["vtime"]
        for row in connection.execute("select priority, vtime from fair_owners order by priority").fetchall()
    }
