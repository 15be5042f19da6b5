"""Agents die, freeze, leave and lose their name; no job is lost and none has two results."""

import signal
import time
from uuid import uuid4

import psutil

from infra.database import connect
from jobs import sweeps
from jobs.fleet import WorkerFacts
from jobs.roster import fleet_now, register
from tests.integration.workers.yard import ROOT, AgentProcess, Yard

GATED = ROOT / "tests/integration/workers/gated_agent.py"


def sweep_until_lost(yard: Yard) -> None:
    """Do what the keeper does with leases that have ended, until one has."""
    with connect(yard.database_url, application_name="sweeper") as line:
        yard.until(lambda: sweeps.expire_leases(line))


def state_of(yard: Yard, worker: str) -> str:
    """Return the state in a worker's row."""
    return next(view.state for view in fleet_now(yard.line).workers if view.device == worker)


def until_gone(process: psutil.Process, seconds: float) -> None:
    """Wait until a process has ended."""
    process.wait(seconds)


def test_engine_dies_with_its_agent(yard: Yard) -> None:
    """Kill -9 of an agent takes its engine along, and a new agent of its name takes the job back at once."""
    agent = yard.start_agent()
    job = yard.submit("[[step=0.2]]", steps=30)
    yard.until_step(job)
    engine = psutil.Process(yard.until_engine(agent))
    agent.signal(signal.SIGKILL)
    until_gone(engine, 10.0)
    yard.start_agent()
    yard.until_row(job, losses=1)
    assert yard.row(job)["requeue_reason"] == "worker_restarted"
    yard.line.execute(
        "update jobs set available_at = now() - interval '1 minute', request = jsonb_set(request, '{prompt}', '\"x\"')"
    )
    yard.wake()
    yard.until_state(job, "succeeded")


def test_agent_finishes_and_leaves_on_sigterm(yard: Yard) -> None:
    """A job that ends within the drain is finished; the agent signs off, leaves no engine and exits with 0."""
    agent = yard.start_agent()
    job = yard.submit("[[step=0.1]]", steps=10)
    yard.until_step(job)
    engine = psutil.Process(yard.until_engine(agent))
    waiting = yard.submit(wakes=False)
    agent.signal(signal.SIGTERM)
    assert agent.process.wait(10) == 0
    assert yard.state(job) == "succeeded"
    assert yard.state(waiting) == "queued"
    assert yard.kinds(job)[-1] == "succeeded"
    assert state_of(yard, "cpu0") == "offline"
    until_gone(engine, 10.0)


def test_agent_hands_back_what_does_not_end_in_time(yard: Yard) -> None:
    """A job that outlasts the drain goes back uncharged, and its return wakes another worker."""
    agent = yard.start_agent(drain_seconds=0.3)
    job = yard.submit("[[step=0.1]]", steps=200)
    yard.until_step(job)
    agent.signal(signal.SIGTERM)
    assert agent.process.wait(10) == 0
    row = yard.row(job)
    assert (row["state"], row["losses"], row["attempts"], row["requeue_reason"]) == ("queued", 0, 0, "drained")
    assert yard.kinds(job)[-1] == "requeued"
    yard.line.execute("update jobs set request = jsonb_set(request, '{prompt}', '\"x\"')")
    yard.start_agent(1)
    yard.until_state(job, "succeeded")


def test_agent_hurries_on_a_second_signal(yard: Yard) -> None:
    """Asked twice, the agent hands back at once."""
    agent = yard.start_agent(drain_seconds=60)
    job = yard.submit("[[step=0.1]]", steps=200)
    yard.until_step(job)
    agent.signal(signal.SIGTERM)
    yard.until(lambda: state_of(yard, "cpu0") == "draining")
    agent.signal(signal.SIGINT)
    assert agent.process.wait(10) == 0
    assert yard.row(job)["requeue_reason"] == "drained"


def test_agent_that_lost_its_name_ends(yard: Yard) -> None:
    """Another host takes over the name; the first agent stops its work and ends, and what it drew goes back."""
    first = yard.start_agent()
    job = yard.submit("[[step=0.2]]", steps=30)
    yard.until_step(job)
    [known] = fleet_now(yard.line).workers
    facts = known.model_dump(include=set(WorkerFacts.model_fields))
    register(yard.line, WorkerFacts(**{**facts, "run": uuid4(), "host": "elsewhere"}))
    assert first.process.wait(10) == 4
    assert yard.row(job)["losses"] == 1
    yard.start_agent()
    following = yard.submit()
    yard.until_state(following, "succeeded")


def test_frozen_agent_stops_what_it_lost(yard: Yard) -> None:
    """An agent frozen beyond its lease gives up the job when it wakes, changes nothing, and draws on."""
    frozen = yard.start_agent(0)
    job = yard.submit("[[step=0.1]]", steps=40)
    yard.until_step(job)
    freeze(frozen)
    sweep_until_lost(yard)
    yard.start_agent(1)
    yard.wake()
    yard.until_row(job, epoch=3, state="running")
    frozen.signal(signal.SIGCONT)
    yard.until_state(job, "succeeded")
    row = yard.row(job)
    assert row["worker"].startswith("cpu1@")
    assert row["losses"] == 1
    epochs = [event.epoch for event in yard.events(job)]
    assert epochs == sorted(epochs)
    assert len(yard.images(job)) == 1
    yard.until(lambda: len(yard.objects()) == 1)
    # It is as good as new: both draw.
    yard.until(lambda: state_of(yard, "cpu0") == "idle")


def freeze(agent: AgentProcess) -> None:
    """Stop an agent but not its engine, and wait until it has stopped."""
    agent.signal(signal.SIGSTOP)
    process = psutil.Process(agent.process.pid)
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)


def test_stale_result_is_refused_and_removed(yard: Yard) -> None:
    """A worker frozen between storing and recording finds its result refused, and removes its object."""
    stale = yard.start_agent(0, module=GATED)
    job = yard.submit()
    yard.until(lambda: len(yard.objects()) == 1)
    mine = yard.objects()
    freeze(stale)
    sweep_until_lost(yard)
    yard.start_agent(1)
    yard.wake()
    yard.until_state(job, "succeeded")
    (yard.folder / "gate").touch()
    stale.signal(signal.SIGCONT)
    yard.until(lambda: len(yard.objects()) == 1)
    assert yard.objects() != mine
    assert yard.images(job)[0]["key"] == yard.objects()[0]
    assert yard.row(job)["worker"].startswith("cpu1@")
    # The event follows the record.
    yard.until(lambda: "succeeded" in yard.kinds(job))
    assert yard.kinds(job).count("succeeded") == 1


def test_object_of_a_killed_agent_is_removed(yard: Yard) -> None:
    """What a killed worker stored and could not record is removed by the one that finishes the job."""
    killed = yard.start_agent(0, module=GATED)
    job = yard.submit()
    yard.until(lambda: len(yard.objects()) == 1)
    killed.end()
    yard.start_agent(0)
    yard.until_row(job, losses=1)
    yard.line.execute("update jobs set available_at = now() - interval '1 minute' where state = 'queued'")
    yard.wake()
    yard.until_state(job, "succeeded")
    yard.until(lambda: yard.objects() == [yard.images(job)[0]["key"]])


def test_storing_does_not_delay_the_next_job(yard: Yard) -> None:
    """While the pictures of one job wait for the storage, the next job's steps are drawn and heard of."""
    yard.start_agent(module=GATED)
    first, second = yard.submit(), yard.submit()
    yard.until(lambda: len(yard.objects()) >= 1)
    yard.until_step(second, 8)
    assert (yard.state(first), yard.state(second)) == ("running", "running")
    assert "succeeded" not in yard.kinds(first)
    (yard.folder / "gate").touch()
    for job in (first, second):
        yard.until_state(job, "succeeded")
