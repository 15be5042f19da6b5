"""Many jobs, cancelled jobs, jobs for certain workers."""

import time

import httpx
import pytest

from tests.fleet_process import FleetProcess, eventually

SEVERAL = 200


def _workers(http: httpx.Client) -> dict[str, dict[str, object]]:
    return {worker["name"]: worker for worker in http.get("/v1/workers").json()["items"] if worker["online"]}


def _warm(fleet: FleetProcess, http: httpx.Client) -> None:
    """Draw until every worker has loaded the model and says so."""

    def warm() -> bool:
        for job in [fleet.submit(http, steps=2) for _ in range(4)]:
            fleet.wait(http, job)
        return all(worker["loads"] for worker in _workers(http).values())

    eventually(warm)


def test_cancel_stops_within_a_step_and_keeps_the_model(fleet: FleetProcess, http: httpx.Client) -> None:
    """A running job ends within a step and half a second; the next one is drawn by the same engine without a load."""
    _warm(fleet, http)
    engines = {process.pid for process in fleet.processes("engine")}
    job = fleet.submit(http, steps=200, num_images=8)
    steps = (frame for frame in fleet.events(http, job) if frame["event"] == "progress")
    first, second = next(steps), next(steps)
    assert second["data"]["data"]["step"] > first["data"]["data"]["step"]
    asked = time.monotonic()
    assert http.post(f"/v1/jobs/{job}/cancel").status_code in {200, 202}
    view = fleet.wait(http, job, seconds=10)
    # A step of this model takes well under a tenth of a second; polling adds another tenth.
    assert time.monotonic() - asked < 0.9
    assert view["state"] == "cancelled"
    assert view["images"] == []
    assert fleet.wait(http, fleet.submit(http, steps=4))["state"] == "succeeded"
    assert {process.pid for process in fleet.processes("engine")} == engines
    # Workers beat about every second: two beats later the row tells every load there was.
    time.sleep(2)
    assert [worker["loads"] for worker in _workers(http).values()] == [1, 1]


def test_two_hundred_jobs_give_two_hundred_results(fleet: FleetProcess, http: httpx.Client) -> None:
    """Each job succeeds once, on either worker, with one load per engine."""
    jobs = [fleet.submit(http, f"a red circle number {number}", steps=2, preview_every=0) for number in range(SEVERAL)]
    assert len(set(jobs)) == SEVERAL
    views = [fleet.wait(http, job, 240) for job in jobs]
    assert {view["state"] for view in views} == {"succeeded"}
    assert all(len(view["images"]) == 1 for view in views)
    assert {(view["attempts"], view["losses"]) for view in views} == {(0, 0)}
    assert len({view["worker"] for view in views}) == 2
    # Beaten about every second: the last beat tells all loads since each engine began.
    eventually(lambda: all(worker["state"] == "idle" for worker in _workers(http).values()))
    assert [worker["loads"] for worker in _workers(http).values()] == [1, 1]


def test_ping_is_answered_in_the_middle_of_a_job(fleet: FleetProcess, http: httpx.Client) -> None:
    """Celery's remote control and Flower see the workers and the job by its id, with the first key as password."""
    job = fleet.submit(http, steps=200, num_images=4)
    assert next(frame for frame in fleet.events(http, job) if frame["event"] == "progress")
    ping = fleet.command("celery", "inspect", "ping")
    assert ping.returncode == 0, ping.stderr
    names = set(_workers(http))
    assert all(name in ping.stdout for name in names)
    assert http.get(f"/v1/jobs/{job}").json()["state"] == "running"
    pages = httpx.Client(base_url=fleet.url, auth=("admin", fleet.key), timeout=30)
    with pages:
        known = eventually(lambda: pages.get("/flower/api/workers", params={"refresh": "1"}).json(), 30)
        assert names <= set(known)
        task = eventually(lambda: pages.get("/flower/api/tasks").json().get(job), 30)
        assert task["name"] == "txt2img"
        assert pages.get("/flower/").status_code == 200
    assert httpx.get(f"{fleet.url}/flower/").status_code == 401
    http.post(f"/v1/jobs/{job}/cancel")
    assert fleet.wait(http, job)["state"] == "cancelled"


def test_delete_removes_the_picture_too(fleet: FleetProcess, http: httpx.Client) -> None:
    """The row goes at once, the bytes a little later."""
    view = fleet.wait(http, fleet.submit(http, steps=2))
    digest = view["images"][0]["sha256"]
    stored = fleet.home / "storage"
    assert any(digest in path.name for path in stored.rglob("*"))
    assert http.delete(f"/v1/jobs/{view['id']}").status_code == 204
    assert http.get(f"/v1/jobs/{view['id']}").status_code == 404
    assert http.get(view["images"][0]["url"]).status_code == 404


def test_commands_speak_plainly(fleet: FleetProcess, http: httpx.Client) -> None:
    """`jobs`, `models`, `workers`, `doctor` show what a person wants to know."""
    job = fleet.wait(http, fleet.submit(http, steps=2))["id"]
    assert job in fleet.command("jobs", "show", job).stdout
    assert "shapes-sd15" in fleet.command("models", "list").stdout
    assert "cpu0@" in fleet.command("workers").stdout
    assert fleet.command("doctor").returncode == 0


def test_second_instance_on_one_folder_is_refused(fleet: FleetProcess) -> None:
    """Two fleets never share a home."""
    refused = fleet.command("up")
    assert refused.returncode == 1
    assert "is in use by process" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_second_worker_of_one_device_is_refused(fleet: FleetProcess, http: httpx.Client) -> None:
    """A worker started by hand beside a running one of the same name ends with the cure, and the first goes on."""
    refused = fleet.command("worker", "--device", "cpu:0")
    assert refused.returncode == 1
    assert "--device cpu:1" in refused.stderr
    assert fleet.wait(http, fleet.submit(http, steps=2))["state"] == "succeeded"


@pytest.mark.parametrize("title", ["api", "keeper", "agent cpu0", "engine cpu0"])
def test_processes_are_named(fleet: FleetProcess, title: str) -> None:
    """People and tools find every part by its title."""
    assert fleet.processes(title)
