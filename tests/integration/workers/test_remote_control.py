"""What Celery's tools and Flower see of an agent."""

import threading
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.integration.workers.yard import Yard


class TaskEventCatcher:
    """Receive Celery's events from a thread."""

    def __init__(self, yard: Yard) -> None:
        self.heard: list[dict[str, Any]] = []
        self._connection = yard.application.connection_for_read()
        self._receiver = yard.application.events.Receiver(self._connection, handlers={"*": self.heard.append})
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def close(self) -> None:
        """Receive no more."""
        self._receiver.should_stop = True
        self._thread.join(5)
        self._connection.release()


@pytest.fixture
def catcher(shared: Yard) -> Iterator[TaskEventCatcher]:
    """Receive Celery's events during a test."""
    opened = TaskEventCatcher(shared)
    yield opened
    opened.close()


def test_agent_answers_ping_in_the_middle_of_a_job(shared: Yard) -> None:
    """Remote control is answered while a job is drawn, and the processes say what they are."""
    [agent] = shared.agents
    job = shared.submit("[[step=0.1]]", steps=200)
    shared.until_step(job)
    answers = shared.application.control.ping(timeout=2.0)
    assert [next(iter(answer.values())) for answer in answers] == [{"ok": "pong"}]
    assert shared.state(job) == "running"
    assert psutil.Process(agent.process.pid).cmdline()[0].startswith("imagefleet: agent cpu0")
    engine = agent.engine()
    assert engine is not None
    assert engine.cmdline()[0].startswith("imagefleet: engine cpu0")
    shared.application.control.revoke(str(job))
    shared.until_state(job, "cancelled")


def test_agent_shows_jobs_as_tasks(shared: Yard, catcher: TaskEventCatcher) -> None:
    """Monitors see a task per job under the job's id and the task's name, and no wake-up."""
    drawn, failing = shared.submit(), shared.submit("[[oom]]")

    def told(job: object) -> list[str]:
        return [event["type"] for event in catcher.heard if event.get("uuid") == str(job)]

    shared.until(lambda: told(drawn) == ["task-received", "task-started", "task-succeeded"])
    shared.until(lambda: told(failing) == ["task-received", "task-started", "task-failed"])
    tasks = [event for event in catcher.heard if event["type"].startswith("task-")]
    known = {str(row["id"]) for row in shared.line.execute("select id from jobs").fetchall()}
    assert {event["uuid"] for event in tasks} <= known
    received = next(event for event in tasks if event["type"] == "task-received")
    assert received["name"] == "txt2img"
    assert received["hostname"].startswith("cpu0@")
    shared.until(lambda: any(event["type"] == "worker-heartbeat" for event in catcher.heard))
