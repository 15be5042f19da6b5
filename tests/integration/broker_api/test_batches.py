"""Batches: all or nothing, in one transaction, followed and cancelled as one."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
from websockets.sync.client import connect

PROMPT = {"prompt": "a red circle", "steps": 5}


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    clean_world.connection.execute("delete from batches")
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def make(client: Any, count: int, **request: Any) -> dict[str, Any]:
    """Make a batch of jobs that differ in their seed."""
    body = {"request": PROMPT | request, "matrix": {"seed": list(range(count))}}
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_matrix_makes_every_combination(live: Any, world: Any) -> None:
    """In the order of nested loops, the last field fastest, inner fields too; the view shows the jobs in that order."""
    body = {"request": PROMPT, "matrix": {"seed": [1, 2], "output.format": ["png", "webp"], "steps": [3]}}
    with live.client(world.key()) as client:
        made = client.post("/v1/batches", json=body)
        assert made.headers["location"] == f"/v1/batches/{made.json()['id']}"
        read = client.get(made.headers["location"]).json()
        listed = client.get("/v1/batches").json()["items"]
        in_list = client.get("/v1/jobs", params={"batch": read["id"]}).json()["items"]
    assert (read["state"], read["size"], read["counts"]["queued"]) == ("active", 4, 4)
    assert read["progress"] == {"step": 0, "steps": 12, "fraction": 0.0}
    asked = [(item["request"]["seed"], item["request"]["output"]["format"]) for item in read["items"]]
    assert asked == [(1, "png"), (1, "webp"), (2, "png"), (2, "webp")]
    assert [item["id"] for item in read["items"]] == made.json()["jobs"] == [item["id"] for item in in_list][::-1]
    assert [item["id"] for item in listed] == [read["id"]]


def test_batch_of_requests_keeps_their_order_in_every_queue(live: Any, world: Any) -> None:
    """Different priorities make different queues; inside one the first is drawn first."""
    jobs = [PROMPT | {"seed": seed, "priority": seed % 2} for seed in range(6)]
    with live.client(world.key()) as client:
        made = client.post("/v1/batches", json={"jobs": jobs}).json()
        worker = world.worker()
        drawn = []
        for _ in jobs:
            drawn.append(worker.claim().parameters.seed)
            worker.finish()
        read = client.get(f"/v1/batches/{made['id']}", params={"limit": 0}).json()
    assert drawn == [0, 2, 4, 1, 3, 5]
    assert (read["state"], read["items"], read["counts"]["succeeded"]) == ("ended", [], 6)
    assert read["progress"]["fraction"] == 1.0


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        ({"model": "nobody"}, "model_unknown", "jobs.2.model"),
        ({"width": 100}, "size_unsupported", "jobs.2.width"),
        ({"steps": 0}, "invalid_request", "jobs.2.steps"),
        ({"nonsense": 1}, "invalid_request", "jobs.2.nonsense"),
        ({"task": "dance"}, "invalid_request", "jobs.2.task"),
    ],
)
def test_one_bad_job_refuses_the_batch(live: Any, world: Any, bad: dict[str, Any], code: str, field: str) -> None:
    """The path says which one, and nothing is stored."""
    with live.client(world.key()) as client:
        answer = client.post("/v1/batches", json={"jobs": [PROMPT, PROMPT, PROMPT | bad, PROMPT]})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    assert world.count("jobs") == world.count("batches") == world.count("fair_owners") == 0


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"jobs": []},
        {"request": PROMPT},
        {"jobs": [PROMPT], "request": PROMPT, "matrix": {"seed": [1]}},
        {"jobs": [PROMPT], "matrix": {"seed": [1]}},
        {"request": PROMPT, "matrix": {"seed": []}},
        {"request": PROMPT, "matrix": {"seed": list(range(100)), "steps": list(range(1, 100))}},
        {"request": PROMPT, "matrix": {"prompt.x": [1]}},
        {"request": PROMPT, "matrix": {"loras.0.weight": [1]}},
        {"jobs": [PROMPT] * 1001},
        {"jobs": ["x"]},
    ],
)
def test_batch_that_is_none_is_refused(live: Any, world: Any, body: dict[str, Any]) -> None:
    """Neither nothing nor too much, and no field that is not there."""
    with live.client(world.key()) as client:
        assert client.post("/v1/batches", json=body).status_code == 422
    assert world.count("jobs") == 0


def test_batch_is_one_transaction(world: Any, application: Any) -> None:
    """500 jobs use one transaction number, whatever they are; their wake-ups are sent after it."""

    async def story() -> tuple[int, int]:
        async with application(world.key()) as (client, services):
            assert (await client.get("/v1/queues")).status_code == 200
            before = _next_transaction(world)
            body = {"request": PROMPT, "matrix": {"seed": list(range(500))}}
            assert (await client.post("/v1/batches", json=body)).status_code == 202
            used = _next_transaction(world) - before
            await services.relay.drain(10)
            return used, world.redis.llen("imagefleet:txt2img.cpu")

    used, messages = asyncio.run(story())
    assert used == 1
    assert messages == 1
    assert world.count("jobs") == 500


def test_batch_is_made_once_for_one_key(live: Any, world: Any) -> None:
    """Repeated with its Idempotency-Key it is the same batch; another request with that key is refused."""
    headers = {"idempotency-key": "k"}
    body = {"request": PROMPT, "matrix": {"seed": [-1, -1, -1]}}
    with live.client(world.key()) as client:
        first = client.post("/v1/batches", json=body, headers=headers)
        again = client.post("/v1/batches", json=body, headers=headers)
        assert (again.json()["id"], again.json()["jobs"]) == (first.json()["id"], first.json()["jobs"])
        assert again.headers["idempotent-replayed"] == "true"
        other = client.post("/v1/batches", json=body | {"matrix": {"seed": [1]}}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert world.count("jobs") == 3


def test_cancelled_batch_stops(live: Any, world: Any) -> None:
    """Waiting jobs end at once and cost their owner nothing, the running one is asked to; others' batches are not there."""
    with live.client(world.key("ann")) as client, live.client(world.key("bob")) as other:
        made = make(client, 5)
        world.worker().claim()
        path = f"/v1/batches/{made['id']}"
        assert other.post(f"{path}/cancel").status_code == 404
        assert other.get(path).json()["code"] == client.get(f"/v1/batches/{uuid4()}").json()["code"] == "not_found"
        cancelled = client.post(f"{path}/cancel")
        assert cancelled.status_code == 202
        assert (cancelled.json()["counts"]["cancelled"], cancelled.json()["counts"]["running"]) == (4, 1)
        assert world.connection.execute("select cancel_requested_at from jobs where state = 'running'").fetchone()
        cost = world.connection.execute("select cost from jobs limit 1").fetchone()["cost"]
        assert world.connection.execute("select vtime from fair_owners").fetchone()["vtime"] == cost


def test_batch_is_followed_as_one(live: Any, world: Any) -> None:
    """The stream tells how far the whole is, first and at the end, and every change of state of its jobs."""
    with live.client(world.key()) as client:
        made = make(client, 2)
        events: list[tuple[str, dict[str, Any]]] = []
        with client.stream("GET", f"/v1/batches/{made['id']}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            kind = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))
                    if len(events) == 1:
                        worker = world.worker()
                        for _ in range(2):
                            worker.claim()
                            worker.publish("progress", step=1, steps=5)
                            worker.finish()
    assert events[0][0] == events[-1][0] == "batch"
    assert (events[0][1]["state"], events[-1][1]["state"]) == ("active", "ended")
    assert events[-1][1]["counts"]["succeeded"] == 2
    for job in made["jobs"]:
        states = [kind for kind, data in events if data.get("job") == job]
        assert states == ["queued", "started", "succeeded"]


def test_jobs_are_searched(live: Any, world: Any) -> None:
    """By label, model, task and whether they are active."""
    with live.client(world.key()) as client:
        first = client.post("/v1/jobs", json=PROMPT | {"labels": {"set": "a"}}).json()["id"]
        second = client.post("/v1/jobs", json=PROMPT | {"labels": {"set": "b"}}).json()["id"]
        worker = world.worker()
        worker.claim()
        worker.finish()

        def found(**query: Any) -> list[str]:
            return [item["id"] for item in client.get("/v1/jobs", params=query).json()["items"]]

        assert found(active="true") == found(active="1") == [second]
        assert found(active=0) == [second, first]
        assert found(labels="set:a") == [first]
        assert found(task="txt2img", model="shapes-sd15", labels="set:b") == [second]
        assert found(task="upscale") == found(model="x") == []
        assert client.get("/v1/jobs", params={"labels": "x"}).json()["code"] == "labels_invalid"


def test_backends_are_the_workers_that_can_draw_now(live: Any, world: Any) -> None:
    """Alike workers count together; those that are away or leave do not count."""
    world.connection.execute("delete from workers")
    with live.client(world.key()) as client:
        assert client.get("/v1/backends").json() == {"items": [], "tasks": {}, "next_cursor": None}
        for number in range(3):
            world.add_worker(f"cpu{number}@test")
        world.add_worker("cuda0@test", hardware="gpu-24g", tasks=("txt2img", "upscale"), device_name="big")
        world.connection.execute("update workers set state = 'draining' where name = 'cpu2@test'")
        found = client.get("/v1/backends").json()
    assert found["tasks"] == {"txt2img": 3, "upscale": 1}
    assert [(item["hardware"], item["workers"], item["idle"]) for item in found["items"]] == [
        ("cpu", 2, 2),
        ("gpu-24g", 1, 1),
    ]
    world.connection.execute("delete from workers where name <> 'cpu0@test'")


def test_batch_is_watched_over_the_socket(live: Any, world: Any) -> None:
    """One message watches all of its jobs."""
    key = world.key()
    with live.client(key) as client:
        made = make(client, 3)
        url = live.url.replace("http", "ws") + "/v1/ws/progress"
        with connect(url, additional_headers={"authorization": f"Bearer {key}"}, proxy=None) as line:
            line.send(json.dumps({"type": "subscribe", "batches": [made["id"]]}))
            assert json.loads(line.recv(5))["jobs"] == made["jobs"]
            assert {json.loads(line.recv(5))["job"] for _ in range(3)} == set(made["jobs"])
            line.send(json.dumps({"type": "unsubscribe", "batches": [made["id"]]}))
            assert set(json.loads(line.recv(5))["jobs"]) == set(made["jobs"])


def _next_transaction(world: Any) -> int:
    row = world.connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next").fetchone()
    return int(row["next"])
