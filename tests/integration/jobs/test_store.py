"""How running jobs end, and who may end them."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.database import CONNECT, Connection
from jobs.claims import Claimer, claim
from jobs.control import JobActive, cancel, delete
from jobs.errors import DrawingFailed, EngineDied, PictureInvalid
from jobs.states import TRANSITIONS, State
from jobs.store import StoredPicture, complete, fail, stopped
from jobs.sweeps import garbage_keys, retire

StoreJob = Callable[..., UUID]
PICTURE = StoredPicture(0, 2**64 - 1, 128, 128, "image/png", 10, "0" * 64, "jobs/x/1-0")


def test_transitions_are_the_same_in_the_database(connection: Connection, store_job: StoreJob) -> None:
    """The trigger allows exactly the transitions of `jobs.states`."""
    job = store_job()
    shapes = {
        "queued": "lease_until = null, finished_at = null, error_code = null",
        "running": "lease_until = now(), worker = 'w', finished_at = null, error_code = null",
        "succeeded": "lease_until = null, finished_at = now(), error_code = null",
        "failed": "lease_until = null, finished_at = now(), error_code = 'x'",
        "cancelled": "lease_until = null, finished_at = now(), error_code = null",
    }
    allowed = set()
    for old, new in itertools.product(State, State):
        connection.execute("alter table jobs disable trigger jobs_guard")
        connection.execute(f"update jobs set state = '{old}', {shapes[old]} where id = %s", (job,))
        connection.execute("alter table jobs enable trigger jobs_guard")
        try:
            connection.execute(f"update jobs set state = '{new}', {shapes[new]} where id = %s", (job,))
        except psycopg.errors.CheckViolation:
            continue
        if old is not new:
            allowed.add((old, new))
    assert allowed == TRANSITIONS


def test_epoch_never_goes_back(connection: Connection, store_job: StoreJob) -> None:
    """The database itself refuses a smaller epoch."""
    job = store_job()
    connection.execute("update jobs set epoch = 4 where id = %s", (job,))
    with pytest.raises(psycopg.errors.CheckViolation, match="epoch"):
        connection.execute("update jobs set epoch = 3 where id = %s", (job,))


def test_complete_of_a_lost_job_changes_nothing(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """A worker that was replaced can neither end the job nor leave a picture."""
    job = store_job()
    old = claim(connection, claimer).jobs[0]
    assert fail(connection, job, old.epoch, 5, EngineDied("frozen")) is not None
    new = claim(connection, replace(claimer, worker="other", run=uuid4())).jobs[0]
    assert complete(connection, job, old.epoch, 9, [PICTURE], 1.0) is None
    assert connection.execute("select count(*) as n from images").fetchone() == {"n": 0}
    assert complete(connection, job, new.epoch, 9, [PICTURE], 1.0) is not None
    assert complete(connection, job, old.epoch, 9, [replace(PICTURE, key="k")], 1.0) is None


def test_fail_for_good_keeps_code_and_sentence(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """An error that a retry would not cure ends the job at once."""
    job = store_job()
    taken = claim(connection, claimer).jobs[0]
    change = fail(connection, job, taken.epoch, 6, DrawingFailed("shapes differ\x00"))
    assert change is not None
    assert change.event.id == "1-6"
    assert change.data == {"code": "drawing_failed", "message": "shapes differ", "retryable": False}


def test_fail_retries_the_jobs_own_error_and_then_gives_up(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Three attempts, with a rest between them; losses stay untouched."""
    job = store_job()
    types = []
    for _ in range(3):
        connection.execute("update jobs set available_at = now() - interval '1 min' where id = %s", (job,))
        taken = claim(connection, claimer).jobs[0]
        change = fail(connection, job, taken.epoch, 6, PictureInvalid("not a number"))
        assert change is not None
        types.append(change.type)
    row = connection.execute("select attempts, losses, error_code from jobs where id = %s", (job,)).fetchone()
    assert types == ["requeued", "requeued", "failed"]
    assert row == {"attempts": 3, "losses": 0, "error_code": "picture_invalid"}


@pytest.mark.parametrize(("workers", "losses"), [(["a"], 5), (["a", "b", "c"], 3)])
def test_lost_again_and_again_becomes_poison(
    connection: Connection, claimer: Claimer, store_job: StoreJob, workers: list[str], losses: int
) -> None:
    """Three losses on two workers are enough; on one worker alone it takes five."""
    job = store_job()
    for number in range(losses):
        connection.execute("update jobs set available_at = now() - interval '1 min' where id = %s", (job,))
        mine = replace(claimer, worker=workers[number % len(workers)])
        taken = claim(connection, mine).jobs[0]
        change = fail(connection, job, taken.epoch, 5, EngineDied("killed"))
        assert change is not None
        assert change.type == ("failed" if number == losses - 1 else "requeued")
    row = connection.execute("select state, error_code, losses, attempts from jobs where id = %s", (job,)).fetchone()
    assert row == {"state": "failed", "error_code": "poison", "losses": losses, "attempts": 0}


def test_cancel_ends_a_waiting_job_at_once_and_a_running_one_when_it_stopped(
    database_url: str, connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """`cancelled` is never said while a worker still draws."""

    async def ask(job: UUID, owner: str) -> object:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as own:
            answer = await cancel(own, owner, job)
            return None if answer is None else (answer[0], answer[1] is not None)

    running = store_job()
    taken = claim(connection, claimer).jobs[0]
    waiting = store_job()
    assert asyncio.run(ask(waiting, "bob")) is None
    assert asyncio.run(ask(waiting, "ann")) == (State.CANCELLED, True)
    assert asyncio.run(ask(running, "ann")) == (State.RUNNING, False)
    assert stopped(connection, running, taken.epoch, 4) is not None
    assert asyncio.run(ask(running, "ann")) == (State.CANCELLED, False)


def test_cancelled_job_that_is_lost_is_not_tried_again(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """When the worker dies instead of stopping, the cancel still counts."""
    job = store_job()
    taken = claim(connection, claimer).jobs[0]
    connection.execute("update jobs set cancel_requested_at = now() where id = %s", (job,))
    change = fail(connection, job, taken.epoch, 5, EngineDied("killed"))
    assert change is not None
    assert change.type == "cancelled"


def test_delete_waits_for_the_end_and_leaves_pictures_to_the_keeper(
    database_url: str, connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """The row goes at once, the objects are remembered until they are gone."""

    async def remove(job: UUID, owner: str) -> bool:
        async with await psycopg.AsyncConnection.connect(database_url, **CONNECT) as own:
            return await delete(own, owner, job)

    job = store_job()
    with pytest.raises(JobActive):
        asyncio.run(remove(job, "ann"))
    taken = claim(connection, claimer).jobs[0]
    complete(connection, job, taken.epoch, 9, [PICTURE], 1.0)
    assert asyncio.run(remove(job, "bob")) is False
    assert asyncio.run(remove(job, "ann")) is True
    assert garbage_keys(connection) == [PICTURE.key]


def test_retire_deletes_only_what_ended_long_ago(connection: Connection, claimer: Claimer, store_job: StoreJob) -> None:
    """Retention counts from the end of a job."""
    old, fresh, waiting = store_job(), store_job(), store_job()
    for job in (old, fresh):
        taken = claim(connection, claimer).jobs[0]
        complete(connection, job, taken.epoch, 9, [replace(PICTURE, key=str(job))], 1.0)
    connection.execute("update jobs set finished_at = now() - interval '31 days' where id = %s", (old,))
    assert retire(connection, 30) == 1
    left = connection.execute("select id from jobs order by id").fetchall()
    assert [row["id"] for row in left] == sorted([fresh, waiting])
    assert garbage_keys(connection) == [str(old)]


def test_retire_honours_what_each_job_is_kept_for(
    connection: Connection, claimer: Claimer, store_job: StoreJob
) -> None:
    """Shorter or longer than the fleet's, whatever number of retentions there is."""
    jobs = {days: store_job() for days in (None, 7.0, 0.5, 90.0)}
    for days, job in jobs.items():
        taken = claim(connection, claimer).jobs[0]
        complete(connection, job, taken.epoch, 9, [replace(PICTURE, key=str(job))], 1.0)
        connection.execute("update jobs set retention_days = %s where id = %s", (days, job))

    def left_after(passed: str) -> set[UUID]:
        connection.execute("update jobs set finished_at = now() - %s::interval", (passed,))
        while retire(connection, 30):
            """In batches."""
        return {row["id"] for row in connection.execute("select id from jobs").fetchall()}

    assert left_after("1 day") == {jobs[None], jobs[7.0], jobs[90.0]}
    assert left_after("10 days") == {jobs[None], jobs[90.0]}
    assert left_after("31 days") == {jobs[90.0]}
    assert left_after("91 days") == set()
    assert len(garbage_keys(connection)) == 4
