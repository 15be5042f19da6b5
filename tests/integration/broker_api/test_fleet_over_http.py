"""The fleet's doors: workers sent to rest, what they draw, how everything does and did; each sees what is theirs."""

import asyncio
import csv
import io
from typing import Any

import pytest

from infra.database import connect
from jobs.fleet import HeldComponent, Ledger
from jobs.roster import Orders, beat
from keeper.leader import leadership

ADMIN: tuple[Any, ...] = ("admin", "user")
WORKER = "cpu0@test"


def test_worker_is_drained_and_resumed_by_admins(live: Any, world: Any) -> None:
    """The worker hears of it with its next beat, and a new life of it with its first."""
    with live.client(world.key("root", ADMIN)) as client, live.client(world.key()) as other:
        assert client.get(f"/v1/workers/{WORKER}").json()["drain_requested_at"] is None
        drained = client.post(f"/v1/workers/{WORKER}/drain").json()
        assert (drained["state"], drained["drain_requested_at"] is None) == ("draining", False)
        again = client.post(f"/v1/workers/{WORKER}/drain").json()
        assert again["drain_requested_at"] == drained["drain_requested_at"]
        facts = world.add_worker(WORKER)
        assert client.get(f"/v1/workers/{WORKER}").json()["state"] == "draining"
        assert _beat(world, facts) == Orders(draining=True)
        assert client.get(f"/v1/workers/{WORKER}").json()["state"] == "draining"
        for path in (f"/v1/workers/{WORKER}/drain", f"/v1/workers/{WORKER}/resume"):
            assert other.post(path).json()["code"] == "forbidden"
        for path in ("/v1/workers/none/drain", "/v1/workers/none/resume"):
            assert client.post(path).json()["code"] == "not_found"
        assert client.get("/v1/workers/a%00b").json()["code"] == "not_found"
        assert client.post(f"/v1/workers/{WORKER}/resume").json()["state"] == "idle"
        assert _beat(world, facts) == Orders(draining=False)
        assert world.connection.execute("select count(*) as n from workers").fetchone() == {"n": 1}


def _beat(world: Any, facts: Any, ledger: Ledger | None = None) -> Orders | None:
    return beat(world.connection, facts.name, facts.run, state="busy", warm=[], loads=1, current=[], ledger=ledger)


def test_waiting_jobs_go_past_a_drained_worker(live: Any, world: Any) -> None:
    """What waits says that nobody takes it; nothing is routed to it while another could."""
    world.add_worker("cuda0@test", hardware="gpu-8g", serves=("gpu-8g",), queues=("txt2img.gpu-8g",))
    _refreshed(live)
    with live.client(world.key("root", ADMIN)) as client:
        assert client.post("/v1/jobs", json={"prompt": "x"}).json()["queue"] == "txt2img.gpu-8g"
        client.post("/v1/workers/cuda0@test/drain")
        _refreshed(live)
        job = client.post("/v1/jobs", json={"prompt": "x"}).json()
        assert job["queue"] == "txt2img.cpu"
        client.post(f"/v1/workers/{WORKER}/drain")
        waiting = client.get(f"/v1/jobs/{job['id']}").json()["waiting_for"]
        assert waiting == "a worker that serves txt2img.cpu: those that do are away"


def _refreshed(live: Any) -> None:
    # The snapshot is a second old at most; this test does not wait for it.
    asyncio.run_coroutine_threadsafe(live.services.snapshots.refresh(), live.loop).result(5)


def test_workers_tell_what_they_draw_and_hold(live: Any, world: Any) -> None:
    """Admins see every job of a worker, others their own; the ledger is as the engine last said it."""
    facts = world.add_worker(WORKER)
    unet = HeldComponent(kind="checkpoint", name="shapes", component="unet", bytes=10, shared_with=("others",))
    ledger = Ledger(capacity_bytes=100, components=(unet,), components_read=3, bytes_read=10)
    _beat(world, facts, ledger)
    with (
        live.client(world.key("root", ADMIN)) as root,
        live.client(world.key()) as ann,
        live.client(world.key("bob")) as bob,
    ):
        job = ann.post("/v1/jobs", json={"prompt": "x", "steps": 9}).json()["id"]
        world.worker().claim()
        world.connection.execute("update workers set current = array[%s::uuid]", (job,))
        for client, seen in ((root, [job]), (ann, [job]), (bob, [])):
            [worker] = client.get("/v1/workers").json()["items"]
            assert ([each["id"] for each in worker["jobs"]], worker["current"]) == (seen, seen)
            assert worker["ledger"] == ledger.model_dump(mode="json")
        [drawn] = root.get(f"/v1/workers/{WORKER}").json()["jobs"]
        assert (drawn["owner"], drawn["step"], drawn["steps"], drawn["model"]) == ("ann", 0, 9, "shapes-sd15")


def test_analytics_tell_each_owner_their_own(live: Any, world: Any) -> None:
    """What one draws is in one's own sums and lines, and in the admins', and in nobody else's."""
    with (
        live.client(world.key("root", ADMIN)) as root,
        live.client(world.key()) as ann,
        live.client(world.key("bob")) as bob,
    ):
        ann.post("/v1/jobs", json={"prompt": "x"})
        worker = world.worker()
        worker.claim()
        worker.finish()
        for client, jobs in ((root, 1), (ann, 1), (bob, 0)):
            summary = client.get("/v1/analytics/summary").json()
            assert (summary["jobs"]["succeeded"], summary["pictures"]) == (jobs, jobs)
            lines = client.get("/v1/analytics/series", params={"by": "model", "step": "1h"}).json()
            assert len(lines["times"]) in {24, 25}
            assert [(line["name"], sum(line["values"])) for line in lines["items"]] == [("shapes-sd15", 1)] * jobs
            stats = client.get("/v1/dashboard/stats").json()
            assert (stats["succeeded_today"], stats["pictures"], stats["models"]) == (jobs, jobs, 1)
            activity = client.get("/v1/dashboard/activity").json()["items"]
            assert [each["type"] for each in activity] == ["job_succeeded"] * jobs + ["worker_joined"]


@pytest.mark.parametrize(
    ("params", "accept", "kind"),
    [
        ({}, "*/*", "application/json"),
        ({}, "text/csv", "text/csv"),
        ({}, "text/html, text/csv;q=0.9, application/json;q=0.8", "text/csv"),
        ({}, "application/json, text/csv", "application/json"),
        ({"format": "json"}, "text/csv", "application/json"),
        ({"format": "csv"}, "application/json", "text/csv"),
    ],
)
def test_series_comes_as_a_table_for_those_who_ask(
    shared_live: Any, shared_world: Any, params: dict[str, str], accept: str, kind: str
) -> None:
    """By `format`, else by the first form in `Accept` that there is."""
    with shared_live.client(shared_world.key(), accept=accept) as client:
        answer = client.get("/v1/analytics/series", params=params)
    assert answer.headers["content-type"].partition(";")[0] == kind


def test_table_of_a_series_holds_no_formula(live: Any, world: Any) -> None:
    """A spreadsheet that opens it runs nothing a model's name says; there is a row for every step."""
    world.add_model("=1+1")
    with live.client(world.key()) as client:
        client.post("/v1/jobs", json={"prompt": "x", "model": "=1+1"})
        worker = world.worker()
        worker.claim()
        worker.finish()
        params = {"by": "model", "step": "1h", "format": "csv"}
        table = list(csv.reader(io.StringIO(client.get("/v1/analytics/series", params=params).text)))
    assert table[0] == ["time", "'=1+1"]
    assert len(table) in {25, 26}
    assert sum(float(row[1]) for row in table[1:]) == 1


@pytest.mark.parametrize(
    ("params", "code", "field"),
    [
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "range_invalid", "until"),
        ({"since": "0001-01-01T00:00:00+14:00"}, "range_invalid", "since"),
        ({"until": "9999-12-31T23:59:59-14:00"}, "range_invalid", "until"),
        ({"since": "2020-01-01T00:00:00Z", "step": "1m"}, "range_invalid", "step"),
        ({"since": "2026-01-02"}, "invalid_request", "since"),
        ({"step": "2m"}, "invalid_request", "step"),
        ({"metric": "x"}, "invalid_request", "metric"),
    ],
)
def test_series_refuses_what_cannot_be_told(
    shared_live: Any, shared_world: Any, params: dict[str, str], code: str, field: str
) -> None:
    """With the field that is at fault."""
    with shared_live.client(shared_world.key()) as client:
        refused = client.get("/v1/analytics/series", params=params)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, code, field)


def test_status_tells_how_each_part_answers(start_server: Any, world: Any) -> None:
    """Versions, times, the schema, and a keeper only while one leads; a part that is away is told, not fatal."""
    with start_server() as live, live.client(world.key()) as client:
        status = client.get("/v1/system/status").json()
        parts = status["parts"]
        assert {name: part["state"] for name, part in parts.items()} == {
            "database": "ok", "redis": "ok", "storage": "ok", "keeper": "away",
        }  # fmt: skip
        with connect(world.database_url, application_name="test") as keeper, leadership(keeper):
            assert client.get("/v1/system/status").json()["parts"]["keeper"]["state"] == "ok"
        assert all(parts[name]["latency_ms"] > 0 for name in ("database", "redis", "storage"))
        assert parts["database"]["version"].startswith("18")
        assert status["migration"]["applied"] == status["migration"]["newest"]
        assert (status["uptime_s"] > 0, status["retention_days"]) == (True, 30)
    with start_server(redis_url="redis://127.0.0.1:1/0") as live, live.client(world.key()) as client:
        status = client.get("/v1/system/status").json()
        assert (status["redis"], status["parts"]["redis"]["state"], status["database"]) == ("away", "away", "ok")
