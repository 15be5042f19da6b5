"""Messages are what starts jobs: nothing polls, and one message is enough for many jobs."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from infra.database import CONNECT
from jobs.roster import drain, fleet_now, resume
from tests.integration.workers.yard import Yard


def test_agent_starts_nothing_without_a_message(yard: Yard) -> None:
    """A waiting job stays where it is, heartbeat after heartbeat, until a message comes."""
    yard.start_agent()
    woken = yard.submit()
    yard.until_state(woken, "succeeded")
    yard.until(lambda: fleet_now(yard.line).workers[0].state == "idle")
    job = yard.submit(wakes=False)
    for _ in range(5):
        yard.until_heard_of(0)
    assert yard.state(job) == "queued"
    yard.wake()
    yard.until_state(job, "succeeded")


def test_agent_drains_its_queues_for_one_message(yard: Yard) -> None:
    """One message brings every job that waits, from every queue the worker serves."""
    jobs = [yard.submit(wakes=False) for _ in range(4)]
    tagged = [yard.submit(route="attic", wakes=False) for _ in range(4)]
    elsewhere = yard.submit(route="cellar")
    yard.start_agent(tags="attic")
    yard.wake()
    yard.until(lambda: all(yard.state(job) == "succeeded" for job in [*jobs, *tagged]))
    assert yard.state(elsewhere) == "queued"


def test_drained_agent_draws_nothing_until_it_is_resumed(yard: Yard) -> None:
    """Sent to rest it takes no job, also none it is woken for, and neither does its next life; resumed, it goes on by itself."""
    agent = yard.start_agent()
    before = yard.submit()
    yard.until_state(before, "succeeded")
    yard.until_heard_of(0)
    ledger = fleet_now(yard.line).workers[0].ledger
    assert ledger is not None
    assert [part.bytes for part in ledger.components] == [5_000_000]
    _asked(yard, drain)
    yard.until(lambda: fleet_now(yard.line).workers[0].state == "draining")
    for _ in range(3):
        yard.until_heard_of(0)
    job = yard.submit()
    for _ in range(5):
        yard.until_heard_of(0)
    assert yard.state(job) == "queued"
    _asked(yard, resume)
    yard.until_state(job, "succeeded")
    _asked(yard, drain)
    agent.signal(signal.SIGTERM)
    assert agent.process.wait(20) == 0
    yard.start_agent()
    yard.until(lambda: fleet_now(yard.line).workers[0].online)
    for _ in range(3):
        yard.until_heard_of(0)
    job = yard.submit()
    for _ in range(5):
        yard.until_heard_of(0)
    assert (yard.state(job), fleet_now(yard.line).workers[0].state) == ("queued", "draining")


def _asked(yard: Yard, question: Callable[[Any, str], Awaitable[bool]]) -> None:
    async def ask() -> bool:
        async with await psycopg.AsyncConnection.connect(yard.database_url, **CONNECT) as line:
            return await question(line, fleet_now(yard.line).workers[0].name)

    assert asyncio.run(ask())


def test_agent_leaves_a_job_that_does_not_fit(yard: Yard) -> None:
    """A job that needs more memory than the worker offers waits; a smaller one behind it is drawn."""
    yard.start_agent(memory_bytes=2_000_000)
    large = yard.submit(needs_memory=1_000_001)
    small = yard.submit(needs_memory=1_000_000)
    yard.until_state(small, "succeeded")
    assert yard.state(large) == "queued"


def test_agents_take_only_what_carries_their_tag(yard: Yard) -> None:
    """Two workers with a tag each draw their own jobs, woken through their own queues."""
    yard.start_agent(0, tags="a")
    yard.start_agent(1, tags="b")
    jobs = {tag: [yard.submit(route=tag) for _ in range(5)] for tag in ("a", "b")}
    yard.until(lambda: all(yard.state(job) == "succeeded" for job in [*jobs["a"], *jobs["b"]]))
    by_tag = {tag: {yard.row(job)["worker"].partition("@")[0] for job in jobs[tag]} for tag in jobs}
    assert by_tag == {"a": {"cpu0"}, "b": {"cpu1"}}


def test_agents_share_a_queue_without_drawing_twice(yard: Yard) -> None:
    """Two workers on one queue draw every job once."""
    yard.start_agent(0)
    yard.start_agent(1)
    jobs = [yard.submit("[[step=0.01]]") for _ in range(20)]
    yard.wake()
    yard.until(lambda: all(yard.state(job) == "succeeded" for job in jobs))
    assert {yard.row(job)["epoch"] for job in jobs} == {1}
    assert len(yard.objects()) == 20


def test_worker_refuses_to_start_without_its_services(yard: Yard) -> None:
    """A worker whose Redis stays away says so and ends."""
    agent = yard.start_agent(redis_url="redis://127.0.0.1:1/0", start_limit_seconds=0.3)
    assert agent.process.wait(20) == 2
    assert "Redis does not answer" in agent.said()


def test_worker_refuses_to_start_without_tables(yard: Yard) -> None:
    """A database without tables is named as the reason, with the cure."""
    agent = yard.start_agent(database_url=yard.database_url.rpartition("/")[0] + "/postgres")
    assert agent.process.wait(20) == 2
    assert "imagefleet migrate" in agent.said()


def test_worker_imports_no_torch() -> None:
    """The agent's program pulls in neither torch nor a pipeline, whatever path an import takes."""
    heavy = ("torch", "diffusers", "transformers", "pipelines")
    code = (
        f"import sys, workers.celery_worker, workers.__main__; sys.exit(any(name in sys.modules for name in {heavy}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
