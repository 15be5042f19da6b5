"""The engine dies or hangs: its agent replaces it and the job runs again, at the fleet's charge."""

import os
import signal

import psutil

from tests.integration.workers.yard import AgentProcess, Yard


def rest_over(yard: Yard) -> None:
    """Let a worker take back at once what it lost; it otherwise leaves it to the others for some seconds."""
    yard.line.execute("update jobs set available_at = now() - interval '1 minute' where state = 'queued'")
    yard.wake()


def until_replaced(yard: Yard, agent: AgentProcess, engine: int) -> None:
    """Wait until another engine has taken the place of this one."""
    yard.until(lambda: (now := agent.engine()) is not None and now.pid != engine)


def test_engine_that_is_killed_is_replaced(yard: Yard) -> None:
    """Kill -9 in the middle of a job costs the job a loss, not an attempt; it then succeeds on the same agent."""
    agent = yard.start_agent()
    job = yard.submit("[[step=0.1]]", steps=20)
    yard.until_step(job, 2)
    engine = yard.until_engine(agent)
    os.kill(engine, signal.SIGKILL)
    yard.until_row(job, losses=1)
    assert yard.row(job)["requeue_reason"] == "engine_died"
    until_replaced(yard, agent, engine)
    rest_over(yard)
    yard.until_state(job, "succeeded")
    row = yard.row(job)
    assert (row["epoch"], row["losses"], row["attempts"]) == (3, 1, 0)
    kinds = yard.kinds(job)
    assert [kind for kind in kinds if kind not in {"progress", "preview"}] == [
        "queued",
        "started",
        "requeued",
        "started",
        "image",
        "succeeded",
    ]


def test_engine_that_dies_idle_is_replaced(yard: Yard) -> None:
    """An engine that dies between jobs costs nobody anything."""
    agent = yard.start_agent()
    first = yard.submit()
    yard.until_state(first, "succeeded")
    os.kill(yard.until_engine(agent), signal.SIGKILL)
    job = yard.submit()
    yard.until_state(job, "succeeded")
    assert yard.row(job)["losses"] == 0


def test_engine_that_hangs_is_killed_at_the_limit(yard: Yard) -> None:
    """A step that never ends is ended: the job is lost by phase_timeout, the next one is drawn by a new engine."""
    agent = yard.start_agent(step_limit_seconds=1.5)
    hanging, following = yard.submit("[[hang]]"), yard.submit()
    engine = yard.until_engine(agent)
    yard.until_row(hanging, losses=1)
    assert yard.row(hanging)["requeue_reason"] == "phase_timeout"
    yard.until_state(following, "succeeded")
    assert not psutil.pid_exists(engine)
    assert yard.row(following)["losses"] == 0


def test_engine_that_hangs_in_a_load_is_killed_at_its_own_limit(yard: Yard) -> None:
    """A load may take longer than a step, but not for ever."""
    yard.start_agent(step_limit_seconds=0.5, load_limit_seconds=2.0)
    slow = yard.submit("[[load=1]]")
    yard.until_state(slow, "succeeded")
    yard.add_model("other")
    hanging = yard.submit("[[load-hang]]", model="other")
    yard.until_row(hanging, losses=1)
    assert yard.row(hanging)["requeue_reason"] == "phase_timeout"
