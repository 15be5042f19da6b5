"""Kill every part in turn while two hundred jobs are drawn by real pipelines: two hundred results, each once."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
import redis
from psycopg.rows import dict_row

from tests.fleet_process import FleetProcess, eventually

JOBS = 200


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[FleetProcess]:
    """Start a fleet of two CPU workers that this test may damage."""
    running = FleetProcess(tmp_path / "home", workers=2, threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


def _until_accepted(http: httpx.Client, number: int, **fields: object) -> str:
    """Submit as a careful client does: again with the same key until it is accepted."""

    def once() -> str | None:
        with contextlib.suppress(httpx.TransportError):
            answer = http.post(
                "/v1/jobs",
                json={"prompt": f"a green ring on a white background, number {number}", "seed": number, **fields},
                headers={"Idempotency-Key": f"job-{number}"},
            )
            assert answer.status_code in {200, 202, 503}, answer.text
            return str(answer.json()["id"]) if answer.status_code != 503 else None
        return None

    return str(eventually(once, 60))


def _kill(fleet: FleetProcess, title: str) -> None:
    """Kill one process with that title; it must come back."""
    victim = fleet.processes(title)[0]
    victim.kill()
    eventually(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, 10)


def _kill_redis(fleet: FleetProcess) -> None:
    servers = [child for child in psutil.Process(fleet.pid).children(recursive=True) if "redis" in child.name()]
    assert servers
    servers[0].kill()


def _empty_redis(fleet: FleetProcess) -> None:
    with redis.Redis.from_url(fleet.services()["redis_url"]) as client:
        client.flushall()


def _faults() -> list[tuple[str, Callable[[FleetProcess], None]]]:
    return [
        ("engine", lambda fleet: _kill(fleet, "engine cpu0")),
        ("agent", lambda fleet: _kill(fleet, "agent cpu1")),
        ("api", lambda fleet: _kill(fleet, "api")),
        ("keeper", lambda fleet: _kill(fleet, "keeper")),
        ("redis", _kill_redis),
        ("redis emptied", _empty_redis),
    ]


def _rows(fleet: FleetProcess, statement: str) -> list[dict[str, Any]]:
    with psycopg.connect(fleet.services()["database_url"], row_factory=dict_row) as connection:
        return connection.execute(statement).fetchall()


def test_every_job_is_drawn_once_whatever_is_killed(fleet: FleetProcess) -> None:
    """An engine, an agent, the API, the keeper and Redis are killed, and Redis emptied, while jobs run."""
    with fleet.client() as http:
        jobs = [_until_accepted(http, number, steps=6, preview_every=0) for number in range(JOBS)]
        assert len(set(jobs)) == JOBS
        for _, hurt in _faults():
            hurt(fleet)
            time.sleep(3)
        views = [fleet.wait(http, job, 300) for job in jobs]
        assert [view["error"] for view in views if view["state"] != "succeeded"] == []
        assert all(len(view["images"]) == 1 for view in views)
        # The fleet's faults never count as the jobs' own attempts.
        assert {view["attempts"] for view in views} == {0}
        for view in views[::20]:
            answer = http.get(view["images"][0]["url"])
            assert answer.status_code == 200
            assert len(answer.content) == view["images"][0]["bytes"]
    rows = _rows(
        fleet, "select count(*) as jobs, count(distinct job) as drawn, count(distinct key) as keys from images"
    )
    assert rows == [{"jobs": JOBS, "drawn": JOBS, "keys": JOBS}]


def test_job_of_a_dead_worker_runs_elsewhere_in_time(fleet: FleetProcess) -> None:
    """When an agent is killed and does not come back, its job is running on the other worker within 15 seconds."""
    with fleet.client() as http:
        for number in range(2):
            fleet.wait(http, _until_accepted(http, number, steps=2))
        job = _until_accepted(http, 10, steps=200, num_images=16)
        view = eventually(lambda: (found := http.get(f"/v1/jobs/{job}").json())["progress"]["step"] > 2 and found)
        name = view["worker"].partition("@")[0]
        # Stopped, not killed: the supervisor does not replace it, as with a machine that has lost its network.
        agent = fleet.processes(f"agent {name}")[0]
        agent.suspend()
        try:
            moved = eventually(
                lambda: (found := http.get(f"/v1/jobs/{job}").json())["worker"] not in {None, view["worker"]} and found,
                30,
            )
            assert moved["losses"] == 1
        finally:
            agent.resume()
        assert http.post(f"/v1/jobs/{job}/cancel").status_code < 300
        assert fleet.wait(http, job)["state"] == "cancelled"


def test_submits_are_accepted_while_redis_is_away(fleet: FleetProcess) -> None:
    """With Redis frozen every submit is accepted; when it is back everything is drawn."""
    server = next(child for child in psutil.Process(fleet.pid).children(recursive=True) if "redis" in child.name())
    with fleet.client() as http:
        server.suspend()
        try:
            accepted, took = [], []
            for number in range(20):
                began = time.monotonic()
                answer = http.post("/v1/jobs", json={"prompt": "a black cross on a yellow background", "steps": 2})
                assert answer.status_code == 202
                took.append(time.monotonic() - began)
                accepted.append(answer.json()["id"])
                time.sleep(0.5 if number else 0.1)
        finally:
            server.resume()
        # Nothing of a request waits for Redis: the machine may be slow once, a wait would come each time.
        assert statistics.median(took) < 2
        assert {fleet.wait(http, job, 120)["state"] for job in accepted} == {"succeeded"}


def test_no_accepted_job_is_lost_when_postgres_restarts(fleet: FleetProcess) -> None:
    """Postgres is killed under load, twice; what was accepted is drawn."""
    with fleet.client() as http:
        jobs = []
        for number in range(40):
            jobs.append(_until_accepted(http, number, steps=4, preview_every=0))
            if number in {12, 26}:
                pid = int((fleet.home / "postgres" / "postmaster.pid").read_text().split()[0])
                psutil.Process(pid).kill()
        assert {fleet.wait(http, job, 180)["state"] for job in jobs} == {"succeeded"}
    assert _rows(fleet, "select count(*) as n from images") == [{"n": 40}]


def test_fleet_starts_again_after_its_supervisor_was_killed(fleet: FleetProcess) -> None:
    """Nothing is left behind by a kill -9 of `up`, and the next start draws what was waiting."""
    with fleet.client() as http:
        done = fleet.wait(http, _until_accepted(http, 1, steps=2))
        children = psutil.Process(fleet.pid).children(recursive=True)
        waiting = _until_accepted(http, 2, steps=150, num_images=8)
    fleet.kill()
    eventually(
        lambda: not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE], 30
    )
    fleet.start()
    with fleet.client() as http:
        assert http.get(f"/v1/jobs/{done['id']}").json()["state"] == "succeeded"
        eventually(lambda: http.get(f"/v1/jobs/{waiting}").json()["progress"]["step"] > 0, 60)
        http.post(f"/v1/jobs/{waiting}/cancel")
        assert fleet.wait(http, waiting)["state"] == "cancelled"
