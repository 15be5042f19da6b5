"""Jobs created, read, listed, cancelled and deleted over HTTP."""

import asyncio
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

PROMPT: dict[str, Any] = {"prompt": "a red circle on a blue background", "seed": 7, "steps": 20}


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def test_create_job_answers_with_the_resolved_job(live: Any, world: Any) -> None:
    """The answer says where the job is and how every field was filled in, and reading it back says the same."""
    with live.client(world.key()) as client:
        answer = client.post("/v1/jobs", json=PROMPT | {"labels": {"set": "a"}})
        assert answer.status_code == 202
        created = answer.json()
        assert answer.headers["location"] == f"/v1/jobs/{created['id']}"
        read = client.get(answer.headers["location"]).json()
    assert created["state"] == "queued"
    assert created["request"] | PROMPT == created["request"]
    assert (created["request"]["width"], created["request"]["scheduler"]) == (128, "DPM++ 2M")
    assert created["waiting_for"] == "a free worker"
    assert created == read | {"position": None}


def test_drawn_seed_is_reported_and_differs(live: Any, world: Any) -> None:
    """A seed of -1 becomes a number one can ask for again."""
    with live.client(world.key()) as client:
        seeds = [client.post("/v1/jobs", json={"prompt": "x"}).json()["request"]["seed"] for _ in range(3)]
    assert len(set(seeds)) == 3
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_create_job_wakes_a_worker_by_celery_message(live: Any, world: Any) -> None:
    """After the answer the queue on Redis holds one wake-up for the one worker, however many jobs wait."""
    with live.client(world.key()) as client:
        for _ in range(5):
            client.post("/v1/jobs", json=PROMPT)
    assert _eventually(lambda: world.redis.llen("imagefleet:txt2img.cpu") == 1)
    time.sleep(0.05)
    assert world.redis.llen("imagefleet:txt2img.cpu") == 1


def test_create_job_waits_for_the_end(live: Any, world: Any) -> None:
    """With `wait` the answer is the finished job, as soon as it has ended."""
    worker = world.worker()

    def work() -> None:
        assert _eventually(lambda: world.count("jobs") == 1)
        worker.claim()
        worker.finish()

    thread = threading.Thread(target=work)
    thread.start()
    with live.client(world.key()) as client:
        began = time.monotonic()
        answer = client.post("/v1/jobs", params={"wait": 30}, json=PROMPT)
    thread.join()
    assert answer.status_code == 200
    assert time.monotonic() - began < 20
    assert (answer.json()["state"], len(answer.json()["images"])) == ("succeeded", 1)


def test_create_job_answers_when_the_wait_is_over(live: Any, world: Any) -> None:
    """A job that takes longer is reported as it stands."""
    with live.client(world.key()) as client:
        answer = client.post("/v1/jobs", params={"wait": 0.2}, json=PROMPT)
    assert (answer.status_code, answer.json()["state"], answer.json()["position"]) == (202, "queued", 1)


def test_model_registered_just_now_is_found(live: Any, world: Any) -> None:
    """An unknown name is looked up once more before it is refused."""
    with live.client(world.key()) as client:
        assert client.get("/v1/models").status_code == 200
        world.add_model("newer")
        assert client.post("/v1/jobs", json=PROMPT | {"model": "Newer"}).json()["model"] == "newer"
        world.add_worker("gpu0@test", tags=("blue",), serves=("cpu", "blue"), queues=("txt2img.cpu", "txt2img.blue"))
        assert client.post("/v1/jobs", json=PROMPT | {"hardware": "blue"}).json()["queue"] == "txt2img.blue"


def test_list_jobs_pages_through_all(live: Any, world: Any) -> None:
    """Following the cursor gives each job once, newest first; a state narrows the list."""
    with live.client(world.key()) as client:
        made = [client.post("/v1/jobs", json=PROMPT).json()["id"] for _ in range(5)]
        client.post(f"/v1/jobs/{made[0]}/cancel")
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = client.get("/v1/jobs", params=query).json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]
        cancelled = client.get("/v1/jobs", params={"state": "cancelled"}).json()["items"]
    assert seen == made[::-1]
    assert [item["id"] for item in cancelled] == made[:1]


def test_cancel_and_delete_follow_the_state(live: Any, world: Any, read_sse: Any) -> None:
    """A waiting job is cancelled at once, a running one on its way, a finished one not at all; only what ended can be deleted."""
    worker = world.worker()
    with live.client(world.key()) as client:
        first = client.post("/v1/jobs", json=PROMPT).json()["id"]
        assert client.delete(f"/v1/jobs/{first}").json()["code"] == "job_active"
        answer = client.post(f"/v1/jobs/{first}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert [event.event for event in read_sse(client, first)] == ["cancelled"]
        assert client.post(f"/v1/jobs/{first}/cancel").json()["state"] == "cancelled"

        second = client.post("/v1/jobs", json=PROMPT).json()["id"]
        worker.claim()
        answer = client.post(f"/v1/jobs/{second}/cancel")
        assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
        worker.finish()
        assert client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "succeeded"

        assert client.delete(f"/v1/jobs/{second}").status_code == 204
        assert client.delete(f"/v1/jobs/{second}").status_code == 404
        assert client.get(f"/v1/jobs/{second}/images/0").status_code == 404
    assert (world.count("jobs"), world.count("images"), world.count("garbage")) == (1, 0, 1)


def test_idempotency_key_gives_the_same_job(live: Any, world: Any) -> None:
    """The same key and request find the job again, also when it has ended; another request is a conflict; owners do not share keys."""
    worker = world.worker()
    headers = {"idempotency-key": "order 66"}
    with live.client(world.key("ann")) as ann, live.client(world.key("bob")) as bob:
        first = ann.post("/v1/jobs", json={"prompt": "x"}, headers=headers)
        again = ann.post(
            "/v1/jobs", content=b'{"seed": -1, "prompt": "x"}', headers=headers | {"content-type": "application/json"}
        )
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        assert again.json()["request"]["seed"] == first.json()["request"]["seed"]
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")

        other = ann.post("/v1/jobs", json={"prompt": "y"}, headers=headers)
        assert (other.status_code, other.json()["code"], other.json()["field"]) == (
            409,
            "idempotency_mismatch",
            "Idempotency-Key",
        )
        assert bob.post("/v1/jobs", json={"prompt": "y"}, headers=headers).status_code == 202

        worker.claim()
        worker.finish()
        ended = ann.post("/v1/jobs", json={"prompt": "x"}, headers=headers)
        assert (ended.status_code, ended.json()["state"]) == (200, "succeeded")
    assert world.count("jobs") == 2


def test_hundred_parallel_posts_with_one_key_make_one_job(application: Any, world: Any) -> None:
    """Whoever wins the race, all are told of the same job."""

    async def story() -> set[str]:
        async with application(world.key()) as (client, _):
            answers = await asyncio.gather(
                *(client.post("/v1/jobs", json={"prompt": "x"}, headers={"idempotency-key": "one"}) for _ in range(100))
            )
        assert {answer.status_code for answer in answers} == {202}
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
        return {answer.json()["id"] for answer in answers}

    assert len(asyncio.run(story())) == 1
    assert world.count("jobs") == 1


def test_jobs_are_accepted_while_redis_is_away(start_server: Any, world: Any) -> None:
    """Without Redis every submit is accepted as quickly, and the server is degraded, not down."""
    with start_server(redis_url="redis://127.0.0.1:1/0") as live, live.client(world.key()) as client:
        began = time.monotonic()
        for _ in range(10):
            assert client.post("/v1/jobs", json=PROMPT).status_code == 202
        assert time.monotonic() - began < 10
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["redis"]) == (200, "degraded", "away")
    assert world.count("jobs") == 10


def test_database_away_is_a_503_that_says_when_to_come_back(start_server: Any, world: Any) -> None:
    """A lost database is no 500; once it is back, so is the server."""
    with start_server() as live, live.client(world.key()) as client:
        made = client.post("/v1/jobs", json=PROMPT).json()["id"]
        world.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'imagefleet api' and datname = current_database()"
        )
        statuses = {503}

        def back() -> bool:
            statuses.add(client.get(f"/v1/jobs/{made}").status_code)
            return 200 in statuses

        assert _eventually(back)
        assert statuses == {200, 503}
        asyncio.run_coroutine_threadsafe(live.services.pool.close(), live.loop).result(10)
        answer = client.post("/v1/jobs", json=PROMPT)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (503, "unready", "away")
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("key", ["own", "unknown"])
def test_reading_an_unknown_job_is_a_404(live: Any, world: Any, key: str) -> None:
    """There is one answer for what is not there."""
    with live.client(world.key(key)) as client:
        assert client.get(f"/v1/jobs/{uuid4()}").json()["code"] == "not_found"


def _eventually(condition: Any, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def test_ids_rise_with_time(live: Any, world: Any) -> None:
    """Ids sort as their jobs were accepted."""
    with live.client(world.key()) as client:
        made = [UUID(client.post("/v1/jobs", json=PROMPT).json()["id"]) for _ in range(5)]
    assert made == sorted(made)


def test_priority_of_a_waiting_job_is_changed(live: Any, world: Any, read_sse: Any) -> None:
    """The job moves ahead in its queue, its followers hear of it, and the list says so; a running one is left as it is."""
    worker = world.worker()
    with live.client(world.key()) as client:
        first, second = (client.post("/v1/jobs", json=PROMPT).json()["id"] for _ in range(2))
        heard: list[Any] = []
        follower = threading.Thread(target=lambda: heard.extend(read_sse(client, second)))
        follower.start()
        assert _eventually(lambda: live.services.hub.readers == 1)
        moved = client.patch(f"/v1/jobs/{second}", json={"priority": 1})
        assert (moved.status_code, moved.json()["position"], moved.json()["request"]["priority"]) == (200, 1, 1)
        assert client.get(f"/v1/jobs/{first}").json()["position"] == 2
        assert str(worker.claim().id) == second
        refused = client.patch(f"/v1/jobs/{second}", json={"priority": 9})
        assert (refused.status_code, refused.json()["code"]) == (409, "job_not_waiting")
        worker.finish()
        follower.join()
    events = [(event.event, event.id) for event in heard]
    assert events == [("queued", "0-1"), ("requeued", "1-1"), ("started", "2-1"), ("succeeded", "2-2")]


@pytest.mark.parametrize(
    "body", [{}, {"priority": 10}, {"priority": -1}, {"priority": "2"}, {"priority": 2, "model": "x"}]
)
def test_priority_that_is_none_is_refused(live: Any, world: Any, body: dict[str, Any]) -> None:
    """Only a whole number from 0 to 9 is one, and nothing else of a job can be changed."""
    with live.client(world.key()) as client:
        job = client.post("/v1/jobs", json=PROMPT).json()["id"]
        answer = client.patch(f"/v1/jobs/{job}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_jobs_of_others_change_for_admins_alone(live: Any, world: Any) -> None:
    """An admin sees whose each job is and moves it; to others it is not there."""
    with live.client(world.key("ann")) as ann, live.client(world.key("bob")) as bob:
        job = ann.post("/v1/jobs", json=PROMPT).json()["id"]
        assert bob.patch(f"/v1/jobs/{job}", json={"priority": 0}).status_code == 404
    with live.client(world.key("root", ("admin", "user"))) as admin:
        (listed,) = admin.get("/v1/jobs").json()["items"]
        assert (listed["owner"], listed["request"]["priority"]) == ("ann", 5)
        assert admin.patch(f"/v1/jobs/{job}", json={"priority": 0}).json()["request"]["priority"] == 0
