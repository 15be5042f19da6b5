"""Events over a WebSocket: the same as over server-sent events, for many jobs at once."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.requests import HTTPConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from broker_api.feeds import MOST_JOBS
from broker_api.refusals import OriginForeign
from broker_api.sockets import KEY_REVOKED, RESTARTING, STALLED, refuse_foreign_origin
from jobs.events import channel

PATH = "/v1/ws/progress"


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


@contextlib.contextmanager
def opened(live: Any, key: str | None, **options: Any) -> Iterator[ClientConnection]:
    """Open a WebSocket."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    headers |= options.pop("headers", {})
    url = live.url.replace("http", "ws") + PATH
    with connect(url, additional_headers=headers, proxy=None, compression=None, **options) as found:
        yield found


def say(line: ClientConnection, **message: Any) -> dict[str, Any]:
    """Send a message and return its answer."""
    line.send(json.dumps(message))
    return hear(line)


def hear(line: ClientConnection, seconds: float = 5) -> dict[str, Any]:
    """Return the next message."""
    found: dict[str, Any] = json.loads(line.recv(seconds))
    return found


def hear_until(line: ClientConnection, last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return messages up to one."""
    heard = [hear(line)]
    while not last(heard[-1]):
        heard.append(hear(line))
    return heard


def submit(client: Any) -> str:
    """Submit a job and return its id."""
    found: str = client.post("/v1/jobs", json={"prompt": "x", "steps": 5}).json()["id"]
    return found


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


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
    monkeypatch.setattr("broker_api.sockets.KEY_SECONDS", 0.2)
    with opened(live, world.key()) as line:
        world.connection.execute("update api_keys set revoked_at = now()")
        with pytest.raises(ConnectionClosed) as closed:
            line.recv(5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == KEY_REVOKED


def test_full_connection_is_closed_with_a_code(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who wants more than a connection may hold is told so, and holds nothing afterwards."""
    monkeypatch.setattr("broker_api.feeds.MOST_JOBS", 2)
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


def _stalled(live: Any, key: str, job: str) -> socket.socket:
    """Open a WebSocket by hand that watches a job and takes nothing."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(_place(live))
    line.sendall(_upgrade(live, key))
    while not line.recv(4096).endswith(b"\r\n\r\n"):
        pass
    line.sendall(_subscribe(job))
    return line


def test_stalled_readers_cost_little_and_delay_nobody(live: Any, world: Any) -> None:
    """200 readers that take nothing hold less than 64 MB together, while one that reads gets every state event at once."""
    key = world.key()
    preview = "A" * 100_000
    with live.client(key) as client, contextlib.ExitStack() as stack, opened(live, key, max_size=None) as line:
        job = submit(client)
        for _ in range(200):
            stack.enter_context(contextlib.closing(_stalled(live, key, job)))
        say(line, type="subscribe", jobs=[job])
        until(lambda: live.services.hub.readers == 201)
        asyncio.run_coroutine_threadsafe(_small_buffers(live), live.loop).result(10)
        worker = world.worker()
        worker.claim()
        for step in range(1, 31):
            worker.publish("preview", step=step, base64=preview)
            worker.publish("progress", step=step, steps=30)
        worker.finish()
        heard = hear_until(line, lambda message: message["type"] == "succeeded")
        states = [message["type"] for message in heard if message["type"] not in {"preview", "progress"}]
        assert states == ["queued", "started", "succeeded"]
        held = asyncio.run_coroutine_threadsafe(_held(live), live.loop).result(10)
    assert held[0] == 201
    assert 0 < held[1] < 64 * 1024 * 1024
    topic_limit = 2 * 1024 * 1024
    assert held[2] < topic_limit


async def _small_buffers(live: Any) -> None:
    """Let the kernel hold little for those who take nothing, so that the process would have to."""
    for each in live.server.server_state.connections:
        each.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


async def _held(live: Any) -> tuple[int, int, int]:
    """Return how many WebSockets are open, what waits for them in bytes, and what the topics hold."""
    sockets = [each for each in live.server.server_state.connections if hasattr(each, "conn")]
    waiting = sum(each.transport.get_write_buffer_size() for each in sockets)
    topics = live.services.hub._topics.values()  # noqa: SLF001 - what a process holds is no public fact
    return len(sockets), waiting, sum(len(frame.body) for topic in topics for frame in topic.frames)


def test_stalled_reader_is_cut_with_a_code(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing for too long is closed, and learns why when it comes to itself in time."""
    monkeypatch.setattr("broker_api.sockets.STALL_SECONDS", 0.5)
    monkeypatch.setattr("broker_api.sockets.FAREWELL_SECONDS", 10.0)
    key = world.key()
    with live.client(key) as client:
        job = submit(client)
        worker = world.worker()
        worker.claim()
        with contextlib.closing(_stalled(live, key, job)) as line:
            until(lambda: live.services.hub.readers == 1)
            asyncio.run_coroutine_threadsafe(_small_buffers(live), live.loop).result(10)
            for step in range(20):
                worker.publish("preview", step=step, base64="A" * 100_000)
                time.sleep(0.02)
            time.sleep(1.0)
            line.settimeout(5)
            last = b""
            farewell = STALLED.to_bytes(2, "big") + b"nothing was taken"
            while farewell not in last:
                chunk = line.recv(65536)
                assert chunk, "closed without a word"
                last = last[-200:] + chunk
    until(lambda: live.services.hub.readers == 0)


def test_thousand_sockets_cost_one_subscription_and_one_encoding(live: Any, world: Any) -> None:
    """However many watch a job, Redis has one subscriber, each event is encoded once, and no state event is lost."""
    key = world.key()
    encoded = live.services.metrics.encoded
    with live.client(key) as client:
        job = submit(client)
        before = encoded._value.get()  # noqa: SLF001 - no public way to read a counter

        async def story() -> list[list[str]]:
            lines = [await asyncio.open_connection(*_place(live), limit=2**20) for _ in range(1000)]
            for reader, writer in lines:
                writer.write(_upgrade(live, key))
                await reader.readuntil(b"\r\n\r\n")
                writer.write(_subscribe(job))
            while live.services.hub.readers < 1000:  # noqa: ASYNC110 - nothing announces a reader
                await asyncio.sleep(0.01)
            assert world.redis.pubsub_numsub(channel(UUID(job)))[0][1] == 1
            await asyncio.to_thread(_draw, world.worker())
            read = await asyncio.gather(*(_types(reader) for reader, _ in lines))
            for _, writer in lines:
                writer.close()
            return list(read)

        read = asyncio.run(story())
    assert {tuple(types) for types in read} == {("queued", "started", "image", "succeeded")}
    assert encoded._value.get() - before == 4  # noqa: SLF001 - no public way to read a counter


def _place(live: Any) -> tuple[str, int]:
    host, port = live.url.removeprefix("http://").split(":")
    return host, int(port)


def _upgrade(live: Any, key: str) -> bytes:
    host, port = _place(live)
    return (
        f"GET {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {key}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def _subscribe(job: str) -> bytes:
    text = json.dumps({"type": "subscribe", "jobs": [job]}).encode()
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


def _draw(worker: Any) -> None:
    worker.claim()
    worker.publish("image", index=0)
    worker.finish()


async def _types(reader: asyncio.StreamReader) -> list[str]:
    """Read unmasked text frames until the job's end, and return the types of its events."""
    types: list[str] = []
    while not types or types[-1] != "succeeded":
        head = await reader.readexactly(2)
        size = head[1]
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        message = json.loads(await reader.readexactly(size))
        types += [message["type"]] if "id" in message else []
    return types
