"""Routing and messages are real: tags are followed, messages alone start jobs, memory is respected."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fleet_process import FleetProcess, eventually

EACH = 20

_COPY = """
insert into jobs (id, owner, task, hardware, needs_memory, model_key, batch_key, priority, fair_order, cost, steps, request)
select gen_random_uuid(), owner, task, hardware, needs_memory, model_key, batch_key, priority, fair_order, cost, steps, request
from jobs where id = %(job)s"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetProcess]:
    """Start a fleet without workers; the tests bring their own."""
    running = FleetProcess(tmp_path / "home", workers=0, engine="fake", threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


class Workers:
    """Start and stop single workers of a fleet."""

    def __init__(self, fleet: FleetProcess) -> None:
        self._fleet = fleet
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, device: str, **settings: object) -> None:
        """Run `imagefleet worker` on a numbered CPU device until it is online."""
        own = {f"IMAGEFLEET_{name.upper()}": str(value) for name, value in settings.items()}
        with self._fleet.log.open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "cli.main", "worker", "--device", device],
                    env={**os.environ, **self._fleet.env, **own},
                    stdout=log,
                    stderr=log,
                )
            )
        name = device.replace(":", "")
        with self._fleet.client() as http:
            eventually(
                lambda: any(
                    worker["online"] and worker["name"].startswith(f"{name}@")
                    for worker in http.get("/v1/workers").json()["items"]
                )
            )

    def stop(self) -> list[int]:
        """Stop every worker as a deployment does and return the exit statuses."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        return [process.wait(30) for process in self._running]


@pytest.fixture
def workers(fleet: FleetProcess) -> Iterator[Workers]:
    """Return a starter of workers that stops them all at the end."""
    starter = Workers(fleet)
    yield starter
    assert set(starter.stop()) <= {0}


def _stop_keeper(fleet: FleetProcess) -> None:
    """Freeze the keeper: it is there, so that nobody starts another, but it does nothing."""
    fleet.processes("keeper")[0].suspend()


def test_jobs_run_only_on_the_worker_they_asked_for(fleet: FleetProcess, workers: Workers) -> None:
    """Two workers with tags: twenty jobs each run on their own worker alone."""
    workers.start("cpu:0", tags="a")
    workers.start("cpu:1", tags="b")
    with fleet.client() as http:
        jobs = {tag: [fleet.submit(http, hardware=tag, steps=2) for _ in range(EACH)] for tag in ("a", "b")}
        ran_on = {tag: {fleet.wait(http, job)["worker"].partition("@")[0] for job in jobs[tag]} for tag in jobs}
        assert ran_on == {"a": {"cpu0"}, "b": {"cpu1"}}
        refused = http.post("/v1/jobs", json={"prompt": "x", "hardware": "c"})
        assert (refused.status_code, refused.json()["code"]) == (422, "hardware_unknown")


def test_celery_messages_alone_start_jobs(fleet: FleetProcess, workers: Workers) -> None:
    """With the keeper frozen a message starts a job, and without a message none starts: nothing polls."""
    workers.start("cpu:0")
    _stop_keeper(fleet)
    with fleet.client() as http:
        for _ in range(3):
            assert fleet.wait(http, fleet.submit(http, steps=2), 20)["state"] == "succeeded"
        # A waiting row that no message announces: a loop that polls would take it.
        job = fleet.submit(http, steps=2, deadline_s=3600)
        fleet.wait(http, job, 20)
        with psycopg.connect(fleet.services()["database_url"], autocommit=True) as connection:
            connection.execute(_COPY, {"job": job})
        time.sleep(3)
        assert [view["state"] for view in http.get("/v1/jobs?state=queued").json()["items"]] == ["queued"]


def test_job_that_does_not_fit_is_never_taken(fleet: FleetProcess, workers: Workers) -> None:
    """A worker with too little memory leaves the job alone; one that is large enough takes it."""
    workers.start("cpu:0", memory_bytes=64 * 1024**2)
    with fleet.client() as http:
        large: dict[str, Any] = {"prompt": "x", "width": 512, "height": 512, "steps": 2}
        # The API learns of a new worker within about a second; until then a job is accepted and waits.
        refused = eventually(lambda: (answer := http.post("/v1/jobs", json=large)).status_code == 422 and answer)
        assert refused.json()["code"] == "too_large_for_fleet"
        workers.start("cpu:1", memory_bytes=8 * 1024**3)
        eventually(lambda: http.post("/v1/jobs", json=large).status_code == 202)
        views = [fleet.wait(http, fleet.submit(http, **large)) for _ in range(5)]
        assert {view["worker"].partition("@")[0] for view in views} == {"cpu1"}


def test_job_without_a_worker_says_what_it_waits_for(fleet: FleetProcess) -> None:
    """Nothing waits for ever without saying why."""
    with fleet.client() as http:
        view = http.get(f"/v1/jobs/{fleet.submit(http)}").json()
        assert view["state"] == "queued"
        assert "none has registered yet" in view["waiting_for"]
