"""A synchronous job whose client hangs up is joined by the same request, or cancelled after a while."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

ASKED: dict[str, Any] = {"prompt": "a red circle", "steps": 20}
DOORS = pytest.mark.parametrize("path", ["/v1/jobs?wait=60", "/sdapi/v1/txt2img", "/v1/images/generations"])


def _eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def _ask_and_hang_up(live: Any, world: Any, key: str, path: str, header: str = "", jobs: int = 1) -> None:
    """Send a request, wait until its job is watched, and break the connection."""
    body = json.dumps(ASKED).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{header}"
    )
    place = urlsplit(live.url)
    with socket.create_connection((place.hostname or "", place.port or 0)) as line:
        line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        _eventually(lambda: world.count("watches") == jobs and live.services.hub.watched)
    _eventually(lambda: not live.services.hub.watched)


def _states(world: Any) -> list[str]:
    return [row["state"] for row in world.connection.execute("select state from jobs order by id").fetchall()]


def _left(world: Any) -> bool:
    return world.connection.execute("select from watches where not waiting").fetchone() is not None


@DOORS
def test_abandoned_job_is_cancelled(world: Any, start_server: Callable[..., Any], path: str) -> None:
    """Some time after its only caller left."""
    world.changes["hang_up_seconds"] = 1.0
    with start_server() as live:
        _ask_and_hang_up(live, world, world.key(), path)
        assert _states(world) == ["queued"]
        _eventually(lambda: _states(world) == ["cancelled"])
        assert world.count("watches") == 0


@DOORS
def test_same_request_joins_the_job_it_left(
    world: Any, start_server: Callable[..., Any], painter: Any, in_thread: Any, path: str
) -> None:
    """Within the time; another key's same request does not, nor does another request."""
    painter.gate.clear()
    world.changes["hang_up_seconds"] = 60.0
    ann, bob = world.key("ann"), world.key("ann")
    with start_server() as live, live.client(ann) as client, live.client(bob) as other:
        _ask_and_hang_up(live, world, ann, path)
        _eventually(lambda: _left(world))
        theirs = in_thread(lambda: other.post(path, json=ASKED))
        _eventually(lambda: world.count("jobs") == 2)
        mine = in_thread(lambda: client.post(path, json=ASKED))
        _eventually(lambda: not _left(world))
        painter.gate.set()
        assert (mine().status_code, theirs().status_code) == (200, 200)
        assert _states(world) == ["succeeded"] * 2
        # Whoever has an answer and asks again means another picture.
        assert client.post(path, json=ASKED).status_code == 200
    assert world.count("jobs") == 3


def test_two_callers_at_once_have_a_job_each(
    world: Any, start_server: Callable[..., Any], painter: Any, in_thread: Any
) -> None:
    """Equal requests that are both waited for are two wishes."""
    painter.gate.clear()
    with start_server() as live, live.client(world.key()) as client:
        calls = [in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED)) for _ in range(2)]
        _eventually(lambda: world.count("watches") == 2)
        painter.gate.set()
        seeds = {json.loads(call().json()["info"])["seed"] for call in calls}
    assert len(seeds) == world.count("jobs") == 2


@DOORS
def test_job_to_be_kept_goes_on(world: Any, start_server: Callable[..., Any], path: str) -> None:
    """The header says so; an unknown word is refused."""
    world.changes["hang_up_seconds"] = 0.5
    with start_server() as live, live.client(world.key()) as client:
        assert client.post(path, json=ASKED, headers={"imagefleet-hang-up": "maybe"}).status_code == 400
        _ask_and_hang_up(live, world, world.key(), path, "Imagefleet-Hang-Up: keep\r\n")
        _eventually(lambda: world.count("watches") == 0)
    assert _states(world) == ["queued"]


def test_setting_keeps_every_job(world: Any, start_server: Callable[..., Any]) -> None:
    """Unless the header says otherwise."""
    world.changes |= {"hang_up_seconds": 0.5, "hang_up": "keep"}
    with start_server() as live:
        _ask_and_hang_up(live, world, world.key(), "/sdapi/v1/txt2img")
        _eventually(lambda: world.count("watches") == 0)
        assert _states(world) == ["queued"]
        _ask_and_hang_up(live, world, world.key(), "/sdapi/v1/txt2img", "Imagefleet-Hang-Up: cancel\r\n")
        _eventually(lambda: _states(world) == ["queued", "cancelled"])


def test_reader_of_its_events_keeps_a_job_alive(
    world: Any, start_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows a job watches it, also when its caller has gone; it ends some time after the last one."""
    monkeypatch.setattr("jobs.watches.BEAT_SECONDS", 0.2)
    world.changes["hang_up_seconds"] = 2.0
    key = world.key()
    with start_server() as live, live.client(key) as client:
        _ask_and_hang_up(live, world, key, "/sdapi/v1/txt2img")
        job = client.get("/v1/jobs").json()["items"][0]["id"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as events:
            assert events.status_code == 200
            before = _seen(world)
            _eventually(lambda: (_seen(world) - before).total_seconds() > 2.5)
            assert _states(world) == ["queued"]
        _eventually(lambda: _states(world) == ["cancelled"])


def _seen(world: Any) -> Any:
    return world.connection.execute("select seen_at from watches").fetchone()["seen_at"]


def test_caller_that_has_the_id_follows_by_itself(world: Any, start_server: Callable[..., Any]) -> None:
    """A wait that is over leaves nothing that could cancel the job."""
    with start_server() as live, live.client(world.key()) as client:
        assert client.post("/v1/jobs?wait=0.2", json=ASKED).status_code == 202
    assert world.count("watches") == 0


def test_caller_of_a_server_that_stops_goes_on_at_the_next(
    world: Any, start_server: Callable[..., Any], painter: Any, in_thread: Any
) -> None:
    """It is told to come back, and has the job it had; nothing is cancelled meanwhile."""
    painter.gate.clear()
    key = world.key()
    with start_server() as live:
        call = in_thread(lambda: httpx.post(f"{live.url}/sdapi/v1/txt2img", json=ASKED, auth=("a", key), timeout=30))
        _eventually(lambda: live.services.hub.watched)
    answer = call()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    painter.gate.set()
    with start_server() as live, live.client(key) as client:
        assert client.post("/sdapi/v1/txt2img", json=ASKED).status_code == 200
    assert _states(world) == ["succeeded"]


def test_callers_of_a_killed_process_are_missed_after_a_while(world: Any, start_server: Callable[..., Any]) -> None:
    """A process that says nothing any more has no callers: its jobs can be joined, and lapse in the end."""
    key = world.key()
    world.changes["hang_up_seconds"] = 1.0
    with start_server() as live:
        _ask_and_hang_up(live, world, key, "/sdapi/v1/txt2img")
        world.connection.execute("update watches set waiting = true, seen_at = now() - interval '12.5 seconds'")
        time.sleep(0.3)
        assert _states(world) == ["queued"]
        _eventually(lambda: _states(world) == ["cancelled"])


def test_another_process_knows_what_was_left_behind(
    world: Any, start_server: Callable[..., Any], painter: Any, in_thread: Any
) -> None:
    """A load balancer may send the second try elsewhere; and a job that one process watches is not taken by another."""
    painter.gate.clear()
    key = world.key()
    with start_server() as first, start_server() as second, second.client(key) as client:
        _ask_and_hang_up(first, world, key, "/sdapi/v1/txt2img")
        _eventually(lambda: _left(world))
        joined = in_thread(lambda: client.post("/sdapi/v1/txt2img", json=ASKED))
        _eventually(lambda: not _left(world))
        with first.client(key) as other:
            own = in_thread(lambda: other.post("/sdapi/v1/txt2img", json=ASKED))
            _eventually(lambda: world.count("jobs") == 2)
            painter.gate.set()
            assert (joined().status_code, own().status_code) == (200, 200)
    assert _states(world) == ["succeeded"] * 2
