"""The Python client follows many jobs over one WebSocket, and its commands show batches and pictures."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from cli.failure import CommandFailed
from cli.main import app
from client.client import Client
from client.errors import FleetUnreachable, NotFound, RequestUnusable, Unauthorized
from client.views import FINAL_EVENTS, Event


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


def _finish(world: Any, jobs: int) -> None:
    worker = world.worker()
    for _ in range(jobs):
        worker.claim()
        worker.publish("progress", step=1, steps=4, fraction=0.25, image=0)
        worker.finish()


def test_follow_ends_with_the_last_of_a_batch_and_a_job(shared_live: Any, world: Any) -> None:
    """Each event once, each job's in order, those that had ended before too."""
    with Client(shared_live.url, world.key()) as fleet:
        first = fleet.submit({"prompt": "x"})
        _finish(world, 1)
        batch = fleet.submit_batch([{"prompt": "x"}, {"prompt": "y"}])
        events: list[Event] = []
        for event in fleet.follow(jobs=[first.id], batches=[batch.id]):
            if not events:
                threading.Thread(target=_finish, args=(world, 2)).start()
            events.append(event)
    ended = [event.job for event in events if event.type in FINAL_EVENTS]
    assert sorted(ended) == sorted([first.id, *batch.jobs])
    for job in batch.jobs:
        own = [(event.epoch, event.seq) for event in events if event.job == job]
        assert own == sorted(set(own))
    assert sum(event.type == "progress" for event in events) >= 2


def test_follow_mine_hears_of_jobs_to_come(shared_live: Any, world: Any) -> None:
    """It goes on until its caller stops."""
    with Client(shared_live.url, world.key()) as fleet, Client(shared_live.url, world.key("bob")) as other:
        stream = fleet.follow(mine=True)
        before = fleet.submit({"prompt": "x"})
        assert next(stream).job == before.id
        other.submit({"prompt": "x"})
        later = fleet.submit({"prompt": "x"})
        assert next(stream).job == later.id


def test_follow_goes_on_where_the_connection_broke(world: Any, start_server: Callable[..., Any]) -> None:
    """At the next server, without a gap or a repeat."""
    key = world.key()
    with start_server() as live:
        port = int(live.url.rpartition(":")[2])
        fleet = Client(live.url, key)
        job = fleet.submit({"prompt": "x"})
        stream = fleet.follow(jobs=[job.id])
        events = [next(stream)]
    with start_server(port=port):
        worker = world.worker()
        worker.claim()
        worker.finish()
        events += list(stream)
    fleet.close()
    assert [event.type for event in events] == ["queued", "started", "succeeded"]


def test_follow_says_why_it_cannot(shared_live: Any, world: Any) -> None:
    """Unknown jobs, a wrong key, nobody there, nothing asked for."""
    with Client(shared_live.url, world.key()) as fleet:
        with pytest.raises(NotFound):
            list(fleet.follow(jobs=[uuid4()]))
        with pytest.raises(RequestUnusable):
            fleet.follow()
    with Client(shared_live.url, "wrong") as fleet, pytest.raises(Unauthorized):
        list(fleet.follow(mine=True))
    with Client("http://127.0.0.1:1", "x") as fleet, pytest.raises(FleetUnreachable):
        list(fleet.follow(mine=True))


def test_commands_show_batches_and_fetch_pictures(shared_live: Any, world: Any, tmp_path: Path) -> None:
    """As tables and as JSON; a picture is written once under its job's name."""
    key = world.key()
    environment = {"IMAGEFLEET_URL": shared_live.url, "IMAGEFLEET_API_KEY": key, "COLUMNS": "200"}

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment)

    def said(*arguments: str) -> str:
        # The server, in the same process, logs there too.
        return "\n".join(line for line in run(*arguments).stdout.splitlines() if "http_request" not in line)

    def read(*arguments: str) -> Any:
        return json.loads(said(*arguments, "--json"))

    with Client(shared_live.url, key) as fleet:
        batch = fleet.submit_batch([{"prompt": "a star"}, {"prompt": "a moon"}])
    _finish(world, 1)
    name, picture = str(batch.id), f"{batch.jobs[0]}/0"
    assert f"{name}  active" in run("batches", "list").stdout
    assert read("batches", "list")[0]["size"] == 2
    assert all(str(job) in run("batches", "show", name).stdout for job in batch.jobs)
    assert read("batches", "show", name)["jobs"][0]["state"] == "succeeded"
    assert "1 cancelled" in run("batches", "cancel", name).stdout
    assert "1 of 2 jobs did not succeed" in str(run("batches", "watch", name).exception)
    assert picture in run("results", "list", "-q", "star").stdout
    assert read("results", "list")[0]["prompt"] == "a star"
    assert "a star" in run("results", "show", picture).stdout
    assert read("results", "show", picture)["request"]["prompt"] == "a star"
    for arguments in (["results", "download", picture], ["results", "download", "--batch", name]):
        assert run(*arguments, "-o", str(tmp_path / "out")).exit_code == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.read_bytes() == b"\x89PNG a picture"
    assert run("batches", "download", name, "-o", str(tmp_path / "batch")).exit_code == 0
    assert len(list((tmp_path / "batch").iterdir())) == 1
    assert isinstance(run("results", "show", "x/y").exception, CommandFailed)
    assert run("results", "delete", picture).exit_code == 0
    assert said("results", "list") == "No pictures."
