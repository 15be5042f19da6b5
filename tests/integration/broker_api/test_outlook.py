"""What a job will cost and how long it will wait, before it is stored and while it waits."""

import asyncio
from typing import Any

import pytest

from jobs.pace import Measured, Pace, size_class

PROMPT: dict[str, Any] = {"prompt": "x", "steps": 10}


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server, which has measured nothing."""
    shared_live.services.snapshots._pace = Pace()  # noqa: SLF001 - as a server that has just started
    return shared_live


def learn(live: Any) -> None:
    """Let the server learn now instead of within seconds."""
    asyncio.run_coroutine_threadsafe(live.services.snapshots.learn(), live.loop).result(10)


def drawn(world: Any, client: Any, seconds: float, **request: Any) -> None:
    """Draw a job that took so long."""
    job = client.post("/v1/jobs", json=PROMPT | request).json()["id"]
    worker = world.worker()
    worker.claim()
    worker.finish()
    world.connection.execute("update jobs set seconds = %s where id = %s", (seconds, job))


def test_dry_run_says_what_would_become_of_a_request(live: Any, world: Any) -> None:
    """The resolved request, where it would wait and what it costs; nothing is stored, nobody is charged or woken."""
    with live.client(world.key()) as client:
        waiting = client.post("/v1/jobs", json=PROMPT)
        before = world.connection.execute("select * from fair_owners").fetchall()
        answer = client.post("/v1/jobs", params={"dry_run": 1, "wait": 5}, json=PROMPT | {"num_images": 2, "seed": 7})
        assert answer.status_code == 200
        said = answer.json()
        assert (said["queue"], said["hardware"], said["steps"], said["pictures"]) == ("txt2img.cpu", "cpu", 20, 2)
        assert (said["position"], said["waiting_for"], said["eta_s"]) == (2, "its turn: others are ahead", None)
        assert said["cost"] == 128 * 128 * 20 // 4096
        stored = client.post("/v1/jobs", json=PROMPT | {"num_images": 2, "seed": 7}).json()
        assert stored["request"] == said["request"]
        assert client.get(f"/v1/jobs/{stored['id']}").json()["position"] == said["position"]
        bad = client.post("/v1/jobs", params={"dry_run": 1}, json=PROMPT | {"model": "nobody"})
        assert bad.json()["code"] == "model_unknown"
        world.connection.execute("delete from jobs where id = %s", (stored["id"],))
    assert waiting.status_code == 202
    assert world.count("jobs") == 1
    assert len(before) == 1


def test_dry_run_stores_nothing(live: Any, world: Any) -> None:
    """Neither a job, nor a promise, nor an idempotency key."""
    with live.client(world.key(), **{"idempotency-key": "k"}) as client:
        assert client.post("/v1/jobs", params={"dry_run": "true"}, json=PROMPT).status_code == 200
        assert client.post("/v1/jobs", params={"dry_run": "true"}, json=PROMPT | {"seed": 1}).status_code == 200
    assert world.count("jobs") == world.count("fair_owners") == 0


def test_eta_is_measured_and_counts_what_is_ahead(live: Any, world: Any) -> None:
    """Nothing is promised before something was measured; then the time grows with the place and shrinks with the workers."""
    with live.client(world.key()) as client:
        first = client.post("/v1/jobs", json=PROMPT).json()["id"]
        assert client.get(f"/v1/jobs/{first}").json()["eta_s"] is None
        assert client.post(f"/v1/jobs/{first}/cancel").status_code == 200
        drawn(world, client, 5.0)
        learn(live)
        jobs = [client.post("/v1/jobs", json=PROMPT).json()["id"] for _ in range(3)]
        etas = [client.get(f"/v1/jobs/{job}").json()["eta_s"] for job in jobs]
        assert etas == [5.0, 10.0, 15.0]
        listed = {item["id"]: item["eta_s"] for item in client.get("/v1/jobs", params={"active": 1}).json()["items"]}
        assert [listed[job] for job in jobs] == etas
        assert client.post("/v1/jobs", params={"dry_run": 1}, json=PROMPT).json()["eta_s"] == 20.0
        world.add_worker("cpu1@test")
        assert client.get(f"/v1/jobs/{jobs[2]}").json()["eta_s"] == 10.0
        world.connection.execute("update workers set state = 'offline'")
        assert client.get(f"/v1/jobs/{jobs[2]}").json()["eta_s"] is None
        world.connection.execute("delete from workers where name = 'cpu1@test'")
        world.connection.execute("update workers set state = 'idle'")


def test_eta_counts_what_is_left_of_running_jobs(live: Any, world: Any) -> None:
    """A job half drawn holds up the next one half as long; its own end is told by its own speed."""
    with live.client(world.key()) as client:
        drawn(world, client, 5.0)
        learn(live)
        jobs = [client.post("/v1/jobs", json=PROMPT).json()["id"] for _ in range(2)]
        world.worker().claim()
        world.connection.execute(
            "update jobs set step = 5, started_at = now() - interval '8 seconds' where state = 'running'"
        )
        running, waiting = (client.get(f"/v1/jobs/{job}").json() for job in jobs)
    assert (running["state"], round(running["eta_s"])) == ("running", 8)
    assert waiting["eta_s"] == 7.5


def test_batch_ends_when_its_last_job_does(live: Any, world: Any) -> None:
    """Its estimate is that of the job that is drawn last."""
    with live.client(world.key()) as client:
        drawn(world, client, 2.0)
        learn(live)
        made = client.post("/v1/batches", json={"request": PROMPT, "matrix": {"seed": [1, 2, 3, 4]}}).json()
        assert client.get(f"/v1/batches/{made['id']}").json()["eta_s"] == 8.0
        client.post(f"/v1/batches/{made['id']}/cancel")
        assert client.get(f"/v1/batches/{made['id']}").json()["eta_s"] is None


def test_pace_prefers_what_is_most_alike() -> None:
    """The same model at the same size counts first, then the same size, then the work alone."""

    def measured(queue: str, model: str, size: int, per_step: float) -> Measured:
        return Measured(queue, "txt2img", model, size, "d", per_step * 100, 100, 400, 5)

    pace = Pace((measured("q", "a", 14, 0.1), measured("q", "b", 14, 0.3), measured("q", "a", 18, 2.0)))
    small: dict[str, Any] = {"queue": "q", "task": "txt2img", "cost": 40, "steps": 10}
    assert size_class(40, 10) == 14
    assert pace.seconds(model="a", **small) == pytest.approx(1.0)
    assert pace.seconds(model="c", **small) == pytest.approx(2.0)
    assert pace.seconds(model="a", **small | {"cost": 640}) == pytest.approx(20.0)
    assert pace.seconds(model="a", **small | {"queue": "other"}) == pytest.approx(1.0)
    assert pace.seconds(model="a", **small | {"cost": 10_240}) == pytest.approx(240 / 1200 * 10_240)
    assert pace.seconds(model="z", **small | {"queue": "other", "cost": 10_240}) is None
