"""Any story of a job, told at random against a real Postgres: whatever happens in whatever order, the promises hold.

Writers try every epoch ever issued, not only their own, so that a missing fence is found.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from infra.database import CONNECT, AsyncConnection, Connection, connect
from jobs.changes import Change
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.contract import Txt2ImgParameters
from jobs.control import cancel
from jobs.errors import DrawingFailed, EngineDied, JobFailure, PictureInvalid
from jobs.fleet import WorkerFacts
from jobs.intake import NewJob, submit
from jobs.leases import Beat, renew
from jobs.priorities import JobNotWaiting, change_priority
from jobs.roster import register
from jobs.states import MAX_ATTEMPTS, POISON_LOSSES_ANYWHERE, TERMINAL, TRANSITIONS, State
from jobs.store import StoredPicture, complete, fail, hand_back, stopped
from jobs.sweeps import expire_deadlines, expire_leases

QUEUE = "txt2img.cpu"
WORKERS = ("cpu0@a", "cpu0@b")


@dataclass
class Known:
    """What an observer remembers of one job."""

    state: State = State.QUEUED
    epoch: int = 0
    events: set[tuple[int, int]] = field(default_factory=set)


class JobsMachine(RuleBasedStateMachine):
    """Submit, claim, beat, end, lose, cancel, expire, restart; in any order, at any epoch."""

    database_url: str
    claims = Bundle("claims")
    submitted = Bundle("submitted")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.connection: Connection = connect(self.database_url, application_name="machine")
        self.asynchronous: AsyncConnection = self.loop.run_until_complete(
            psycopg.AsyncConnection.connect(self.database_url, **CONNECT)
        )
        self.connection.execute(
            "truncate jobs, watches, batches, images, thumbnails, garbage, fair_owners, fair_clock, workers"
        )
        self.known: dict[UUID, Known] = {}
        self.runs = {worker: uuid4() for worker in WORKERS}

    @initialize()
    def workers_sign_on(self) -> None:
        """Sign both workers on."""
        for worker in WORKERS:
            self._sign_on(worker)

    def _sign_on(self, worker: str) -> None:
        facts = WorkerFacts(
            name=worker,
            run=self.runs[worker],
            host="test",
            pid=1,
            device="cpu0",
            device_name="CPU",
            hardware="cpu",
            serves=("cpu",),
            tags=(),
            tasks=("txt2img",),
            queues=(QUEUE,),
            memory_bytes=10**9,
            engine="fake",
            version="1",
        )
        for change in register(self.connection, facts):
            self._announced(change)

    def _announced(self, change: Change | None) -> None:
        """Note an event; an id is never used twice for different things."""
        if change is not None:
            self.known[change.job].events.add((change.epoch, change.seq))

    @rule(target=submitted, owner=st.sampled_from(["ann", "bob"]), deadline=st.sampled_from([None, 60.0]))
    def submit_job(self, owner: str, deadline: float | None) -> UUID:
        """Accept a job."""
        parameters = Txt2ImgParameters(
            model="m",
            prompt="p",
            width=64,
            height=64,
            steps=2,
            guidance_scale=1.0,
            scheduler="Euler",
            seed=1,
            preview_every=0,
            deadline_s=deadline,
        )
        new = NewJob(owner=owner, parameters=parameters, model_key="m@1", needs_memory=1, hardware="cpu")
        accepted = self.loop.run_until_complete(submit(self.asynchronous, new))
        self.known[accepted.job] = Known()
        self._announced(accepted.change)
        return accepted.job

    @rule(target=claims, worker=st.sampled_from(WORKERS), batch=st.integers(1, 3))
    def claim_jobs(self, worker: str, batch: int) -> object:
        """Let a worker take what it can."""
        claimer = Claimer(worker, self.runs[worker], [QUEUE], 10**9, lease_seconds=600)
        taken = claim(self.connection, claimer, batch=batch).jobs
        for job in taken:
            assert job.epoch > self.known[job.id].epoch
            self._announced(None)
        return multiple(*taken)

    @rule(taken=claims, step=st.integers(0, 2))
    def beat(self, taken: ClaimedJob, step: int) -> None:
        """Renew a lease, perhaps one that is long lost."""
        renewed = renew(self.connection, [Beat(taken.id, taken.epoch, step)], 600)
        assert (taken.id in renewed) == self._owned(taken)

    def _owned(self, taken: ClaimedJob) -> bool:
        row = self.connection.execute("select state, epoch from jobs where id = %s", (taken.id,)).fetchone()
        return row == {"state": "running", "epoch": taken.epoch}

    def _outcome(self, taken: ClaimedJob, write: Callable[[], Change | None]) -> None:
        owned = self._owned(taken)
        before = self.connection.execute("select * from jobs where id = %s", (taken.id,)).fetchone()
        change = write()
        after = self.connection.execute("select * from jobs where id = %s", (taken.id,)).fetchone()
        if owned:
            assert change is not None
            self._announced(change)
            assert write() == change  # the reply was lost: the repeat says the same and changes nothing
            assert self.connection.execute("select * from jobs where id = %s", (taken.id,)).fetchone() == after
        else:
            assert before == after

    @rule(taken=claims)
    def succeed(self, taken: ClaimedJob) -> None:
        """Complete a job with a picture of this epoch."""
        key = f"{taken.id}/{taken.epoch}"
        picture = StoredPicture(0, 1, 64, 64, "image/png", 10, "0" * 64, key)
        self._outcome(taken, lambda: complete(self.connection, taken.id, taken.epoch, 9, [picture], 0.1))

    @rule(taken=claims, failure=st.sampled_from([DrawingFailed("bug"), PictureInvalid("nan"), EngineDied("killed")]))
    def break_down(self, taken: ClaimedJob, failure: JobFailure) -> None:
        """Fail a job in each of the three ways."""
        self._outcome(taken, lambda: fail(self.connection, taken.id, taken.epoch, 8, failure))

    @rule(taken=claims)
    def give_back(self, taken: ClaimedJob) -> None:
        """Hand a job back, as a worker that drains does."""
        self._outcome(taken, lambda: hand_back(self.connection, taken.id, taken.epoch, "drained"))

    @rule(job=submitted)
    def ask_to_cancel(self, job: UUID) -> None:
        """Cancel a job in whatever state it is."""
        answer = self.loop.run_until_complete(cancel(self.asynchronous, None, job))
        assert answer is not None
        self._announced(answer[1])

    @rule(job=submitted, priority=st.integers(0, 9))
    def move(self, job: UUID, priority: int) -> None:
        """Give a job another priority: a waiting one moves, any other stays as it is."""
        before = self.connection.execute("select * from jobs where id = %s", (job,)).fetchone()
        assert before is not None
        if before["state"] == State.QUEUED:
            change = self.loop.run_until_complete(change_priority(self.asynchronous, None, job, priority))[1]
            assert (change is None) == (before["priority"] == priority)
            self._announced(change)
        else:
            with pytest.raises(JobNotWaiting):
                self.loop.run_until_complete(change_priority(self.asynchronous, None, job, priority))
            assert self.connection.execute("select * from jobs where id = %s", (job,)).fetchone() == before

    @rule(taken=claims)
    def stop_when_asked(self, taken: ClaimedJob) -> None:
        """Stop a job whose cancel the worker has heard of."""
        if renew(self.connection, [Beat(taken.id, taken.epoch, 0)], 600).get(taken.id):
            self._outcome(taken, lambda: stopped(self.connection, taken.id, taken.epoch, 7))

    @rule(taken=claims)
    def lose_lease(self, taken: ClaimedJob) -> None:
        """Let a lease run out and the keeper see it."""
        self.connection.execute(
            "update jobs set lease_until = now() - interval '1 s' where id = %s and state = 'running'", (taken.id,)
        )
        for change in expire_leases(self.connection):
            self._announced(change)

    @rule(job=submitted)
    def miss_deadline(self, job: UUID) -> None:
        """Let a deadline pass."""
        self.connection.execute(
            "update jobs set deadline_at = now() - interval '1 s' where id = %s and deadline_at is not null", (job,)
        )
        for change in expire_deadlines(self.connection):
            self._announced(change)

    @rule()
    def rest(self) -> None:
        """Let waiting times pass."""
        self.connection.execute("update jobs set available_at = now() - interval '1 min' where state = 'queued'")

    @rule(worker=st.sampled_from(WORKERS))
    def restart_worker(self, worker: str) -> None:
        """Kill a worker and start it again under its name."""
        self.runs[worker] = uuid4()
        self._sign_on(worker)

    @invariant()
    def promises_hold(self) -> None:
        """Compare every row with what was last known of it."""
        rows = self.connection.execute("""select jobs.*, (select count(*) from images where job = jobs.id) as pictures,
            (select min(epoch) from images where job = jobs.id) as picture_epoch from jobs""").fetchall()
        assert len(rows) == len(self.known)
        for row in rows:
            known, state = self.known[row["id"]], State(row["state"])
            assert row["epoch"] >= known.epoch
            if known.state in TERMINAL:
                assert (state, row["epoch"]) == (known.state, known.epoch)
            elif row["epoch"] == known.epoch and state is not known.state:
                assert (known.state, state) in TRANSITIONS
            assert (row["pictures"] == 1) == (state is State.SUCCEEDED)
            assert row["picture_epoch"] in {None, row["epoch"]}
            assert row["losses"] <= POISON_LOSSES_ANYWHERE
            assert row["attempts"] <= MAX_ATTEMPTS
            known.state, known.epoch = state, row["epoch"]

    def teardown(self) -> None:
        """Close what was opened."""
        self.loop.run_until_complete(self.asynchronous.close())
        self.loop.close()
        self.connection.close()


@pytest.fixture
def machine(database_url: str) -> type[JobsMachine]:
    """Bind the machine to this test's database."""
    return type("BoundMachine", (JobsMachine,), {"database_url": database_url})


def test_jobs_keep_their_promises_in_any_story(machine: type[JobsMachine]) -> None:
    """Run random stories; a failure shrinks to the shortest one."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
