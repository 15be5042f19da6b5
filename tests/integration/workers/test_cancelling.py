"""A cancel stops the job it names within a step, and nothing else."""

import asyncio
from uuid import UUID

import psycopg

from infra.database import CONNECT
from jobs.control import cancel
from jobs.states import State
from tests.integration.workers.yard import Yard


def ask_cancel(yard: Yard, job: UUID) -> State:
    """Ask for a cancel as the API does, and return the state it answers."""

    async def ask() -> State:
        async with await psycopg.AsyncConnection.connect(yard.database_url, **CONNECT) as line:
            answer = await cancel(line, "ann", job)
            assert answer is not None
            return answer[0]

    return asyncio.run(ask())


def last_step(yard: Yard, job: UUID) -> int:
    """Return the last step a job's watchers heard of."""
    return max(int(event.data["step"]) for event in yard.events(job) if event.type == "progress")


def test_cancel_stops_a_job_within_a_step(shared: Yard) -> None:
    """At most one step more is drawn, no picture is kept, and the next job needs no other load."""
    before = len(shared.objects())
    job, following = shared.submit("[[step=0.2]]", steps=100), shared.submit()
    shared.until_step(job, 2)
    step = last_step(shared, job)
    assert ask_cancel(shared, job) is State.RUNNING
    shared.until_state(job, "cancelled")
    shared.until_state(following, "succeeded")
    assert last_step(shared, job) <= step + 2  # one may have ended while the cancel was on its way
    assert shared.kinds(job)[-1] == "cancelled"
    assert shared.row(job)["epoch"] == 1
    shared.until(lambda: shared.loads() == 1)
    assert len(shared.objects()) == before + 1


def test_cancel_that_was_not_heard_comes_with_the_heartbeat(shared: Yard) -> None:
    """Without a notification, the answer to the next heartbeat carries the cancel."""
    job = shared.submit("[[step=0.2]]", steps=100)
    shared.until_step(job)
    shared.line.execute("update jobs set cancel_requested_at = now() where id = %s", (job,))
    shared.until_state(job, "cancelled")


def test_cancel_of_a_hanging_job_kills_the_engine(yard: Yard) -> None:
    """An engine that does not stop within the step limit is killed; only then is the job cancelled."""
    agent = yard.start_agent(step_limit_seconds=1.0)
    job = yard.submit("[[hang]]")
    yard.until_step(job, 3)
    engine = yard.until_engine(agent)
    ask_cancel(yard, job)
    yard.until_state(job, "cancelled")
    yard.until(lambda: agent.engine() is not None and yard.until_engine(agent) != engine)
    assert yard.row(job)["losses"] == 0
    following = yard.submit()
    yard.until_state(following, "succeeded")


def test_cancel_removes_pictures_that_were_stored_already(shared: Yard) -> None:
    """The first pictures of a cancelled job leave no objects behind."""
    before = shared.objects()
    job = shared.submit("[[step=0.1]]", steps=4, num_images=8)
    shared.until(lambda: shared.objects() != before)
    ask_cancel(shared, job)
    shared.until_state(job, "cancelled")
    shared.until(lambda: shared.objects() == before)


def test_revoke_cancels_a_running_job(shared: Yard) -> None:
    """Flower's revoke names a job's id and stops that job."""
    job = shared.submit("[[step=0.2]]", steps=100)
    shared.until_step(job)
    shared.application.control.revoke(str(job), terminate=True)
    shared.until_state(job, "cancelled")


def test_revoke_cancels_a_waiting_job(shared: Yard) -> None:
    """A job that nobody runs is cancelled at once, and its watchers hear it."""
    shared.until(lambda: shared.application.control.ping(timeout=0.2))
    job = shared.submit(route="elsewhere", wakes=False)
    shared.application.control.revoke(str(job))
    shared.until_state(job, "cancelled")
    shared.until(lambda: shared.kinds(job) == ["cancelled"])
