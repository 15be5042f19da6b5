"""Events over a WebSocket: the same as over server-sent events, for many jobs at once."""

import json
from typing import Any
from uuid import uuid4

import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broker_api.refusals import OriginForeign
from broker_api.streaming.feeds import MOST_JOBS
from broker_api.streaming.sockets import KEY_REVOKED, RESTARTING, refuse_foreign_origin
from tests.socket_client import PATH, hear, hear_until, opened, say, submit, until


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


def test_socket_tells_the_events_of_a_stream(live: Any, world: Any, read_sse: Any) -> None:
    """Ids, order and contents are those of server-sent events, from queued to the end."""
    key = world.key()
    with live.client(key) as client, opened(live, key) as line:
        job = submit(client)
        answer = say(line, type="subscribe", jobs=[job], ref="a")
        assert answer == {"type": "subscribed", "ref": "a", "jobs": [job], "not_found": [], "mine": False}
        worker = world.worker()
        worker.claim()
        for step in (1, 2):
            worker.publish("progress", step=step, steps=5)
        worker.publish("image", index=0)
        streamed = read_sse(client, job, most=5)
        worker.finish()
        heard = hear_until(line, lambda message: message["type"] == "succeeded")
    assert [message["id"] for message in heard] == ["0-1", "1-1", "1-2", "1-3", "1-4", "1-5"]
    for message, event in zip(heard, streamed, strict=False):
        assert message == {"id": event.id, **json.loads(event.data)}


def test_socket_goes_on_after_the_last_event_had(live: Any, world: Any) -> None:
    """One who names the last event gets what followed it, without gap or repeat."""
    key = world.key()
    with live.client(key) as client:
        job = submit(client)
        worker = world.worker()
        worker.claim()
        for step in (1, 2, 3):
            worker.publish("progress", step=step, steps=5)
        with opened(live, key) as line:
            say(line, type="subscribe", jobs=[job], after={job: "1-2"})
            worker.finish()
            heard = hear_until(line, lambda message: message["type"] == "succeeded")
            assert [message["id"] for message in heard] == ["1-3", "1-4", "1-5"]
            say(line, type="subscribe", jobs=[job])
            assert hear(line, 1)["id"] == "1-5", "asked for again, a job that is over tells its end"


def test_socket_tells_all_of_ones_own_and_nothing_else(live: Any, world: Any) -> None:
    """Jobs begun before and after are heard of to their ends, those of others never."""
    ann, bob = world.key("ann"), world.key("bob")
    with live.client(ann) as client, live.client(bob) as other, opened(live, ann) as line:
        first, foreign = submit(client), submit(other)
        assert say(line, type="subscribe", mine=True)["jobs"] == [first]
        second = submit(client)
        heard = hear_until(line, lambda message: message["job"] == second)
        worker = world.worker()
        for _ in range(3):
            worker.claim()
            worker.finish()
        ended: set[str] = set()
        while ended != {first, second}:
            heard.append(hear(line))
            ended |= {heard[-1]["job"]} if heard[-1]["type"] == "succeeded" else set()
        assert foreign not in {message["job"] for message in heard}
        assert [message["id"] for message in heard if message["job"] == second] == ["0-1", "1-1", "1-2"]
        with pytest.raises(TimeoutError):
            line.recv(1.2)
        assert say(line, type="unsubscribe", mine=True)["type"] == "unsubscribed"
        submit(client)
        with pytest.raises(TimeoutError):
            line.recv(1.2)


def test_socket_tells_the_end_of_a_job_too_quick_to_be_seen(live: Any, world: Any) -> None:
    """A job that begins and ends between two looks is heard of all the same."""
    key = world.key()
    with live.client(key) as client, opened(live, key) as line:
        say(line, type="subscribe", mine=True)
        job = submit(client)
        worker = world.worker()
        worker.claim()
        worker.finish()
        assert hear_until(line, lambda message: message["type"] == "succeeded")[-1]["job"] == job


def test_foreign_and_unknown_jobs_look_alike(live: Any, world: Any) -> None:
    """Neither can be watched."""
    key = world.key("bob")
    with live.client(world.key("ann")) as client, opened(live, key) as line:
        job, nobody = submit(client), str(uuid4())
        answer = say(line, type="subscribe", jobs=[job, nobody], batches=[nobody])
        assert (answer["jobs"], answer["not_found"]) == ([], [job, nobody, nobody])


def test_left_and_deleted_jobs_are_not_watched(live: Any, world: Any) -> None:
    """Who unsubscribes hears nothing more, and a job that is deleted says so once."""
    key = world.key()
    with live.client(key) as client, opened(live, key) as line:
        left, deleted = submit(client), submit(client)
        say(line, type="subscribe", jobs=[left, deleted])
        assert {hear(line)["job"] for _ in range(2)} == {left, deleted}
        assert say(line, type="unsubscribe", jobs=[left])["jobs"] == [left]
        world.connection.execute("delete from jobs")
        assert hear(line) == {"type": "gone", "job": deleted}
        until(lambda: live.services.hub.readers == 0)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("nonsense", None),
        ("[]", None),
        ('{"type": "dance"}', None),
        ('{"type": "subscribe", "jobs": ["x"]}', "subscribe.jobs.0"),
        ('{"type": "subscribe", "after": {"01990000-0000-7000-8000-000000000000": "1"}}', None),
        ('{"type": "subscribe", "more": 1}', "subscribe.more"),
        (b"bytes", None),
    ],
)
def test_strange_message_is_answered_and_the_connection_stays(
    live: Any, world: Any, text: str | bytes, field: str | None
) -> None:
    """What cannot be followed is refused with the field at fault."""
    with opened(live, world.key()) as line:
        line.send(text)
        answer = hear(line)
        assert (answer["type"], answer["code"]) == ("error", "invalid_request")
        assert field is None or answer["field"] == field
        assert say(line, type="ping", ref="r") == {"type": "pong", "ref": "r"}


def test_socket_wants_a_key(live: Any, world: Any) -> None:
    """Without one, or with a wrong one, the upgrade is refused with a problem document."""
    for key in (None, "if_wrong"):
        with pytest.raises(InvalidStatus) as refused, opened(live, key):
            pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["code"] in {"unauthorized", "key_invalid"}
    with live.client(world.key()) as client:
        assert client.get(PATH).json()["code"] == "upgrade_required"


def test_browser_sends_its_key_as_a_protocol(live: Any, world: Any) -> None:
    """The key among the offered protocols counts, and only our protocol's name is echoed."""
    key = world.key()
    with opened(live, None, subprotocols=["imagefleet.v1", f"imagefleet.key.{key}"]) as line:
        assert line.subprotocol == "imagefleet.v1"
        assert say(line, type="ping")["type"] == "pong"


def test_foreign_page_is_refused(live: Any, world: Any) -> None:
    """A page of another site opens nothing; the server's own pages may."""
    key = world.key()
    with pytest.raises(InvalidStatus) as refused, opened(live, key, headers={"origin": "https://evil.example"}):
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["code"] == "origin_foreign"
    with opened(live, key, headers={"origin": live.url}) as line:
        assert say(line, type="ping")["type"] == "pong"


def test_listed_page_may_open_it() -> None:
    """The operator's list of web sites counts, and what is not on it is refused."""
    page = HTTPConnection(
        {"type": "websocket", "headers": [(b"origin", b"https://studio.example"), (b"host", b"fleet")]}
    )
    refuse_foreign_origin(page, "https://other.example, https://Studio.example/")
    refuse_foreign_origin(page, "*")
    with pytest.raises(OriginForeign):
        refuse_foreign_origin(page, "https://other.example")


def test_revoked_key_ends_its_connections(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a key opened is closed when it is revoked, with a code that says why."""
    monkeypatch.setattr("broker_api.streaming.sockets.KEY_SECONDS", 0.2)
    with opened(live, world.key()) as line:
        world.connection.execute("update api_keys set revoked_at = now()")
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == KEY_REVOKED


def test_full_connection_is_closed_with_a_code(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who wants more than a connection may hold is told so, and holds nothing afterwards."""
    monkeypatch.setattr("broker_api.streaming.feeds.MOST_JOBS", 2)
    assert MOST_JOBS > 2
    key = world.key()
    with live.client(key) as client, opened(live, key) as line:
        jobs = [submit(client) for _ in range(3)]
        say(line, type="subscribe", jobs=jobs)
        with pytest.raises(ConnectionClosed) as closed:
            hear_until(line, lambda _: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4429
    until(lambda: live.services.hub.readers == 0)


def test_stop_closes_connections(start_server: Any, world: Any) -> None:
    """A stopping server says that it will be back."""
    key = world.key()
    with start_server() as live, opened(live, key) as line:
        assert say(line, type="ping")["type"] == "pong"
        live.server.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == RESTARTING
