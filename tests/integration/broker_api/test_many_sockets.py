"""Many WebSockets at once, and those that take nothing: bounded memory, one subscription, nobody delayed."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from broker_api.streaming.sockets import STALLED
from jobs.events import channel
from tests.socket_client import PATH, hear_until, opened, say, submit, until


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


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


def _stalled_stream(live: Any, key: str, job: str) -> socket.socket:
    """Ask for a job's server-sent events by hand and take nothing."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(_place(live))
    line.sendall(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    line.recv(1)
    return line


@pytest.mark.parametrize("stall", [_stalled, _stalled_stream], ids=["sockets", "streams"])
def test_stalled_readers_cost_little_and_delay_nobody(live: Any, world: Any, stall: Callable[..., Any]) -> None:
    """200 readers that take nothing hold less than 64 MB together, while one that reads gets every state event at once."""
    key = world.key()
    preview = "A" * 100_000
    with live.client(key) as client, contextlib.ExitStack() as stack, opened(live, key, max_size=None) as line:
        job = submit(client)
        for _ in range(200):
            stack.enter_context(contextlib.closing(stall(live, key, job)))
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
    assert held[0] >= 201
    assert 0 < held[1] < 64 * 1024 * 1024
    topic_limit = 2 * 1024 * 1024
    assert held[2] < topic_limit


async def _small_buffers(live: Any) -> None:
    """Let the kernel hold little for those who take nothing, so that the process would have to."""
    for each in live.server.server_state.connections:
        each.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)


async def _held(live: Any) -> tuple[int, int, int]:
    """Return how many connections are open, what waits for them in bytes, and what the topics hold."""
    sockets = [each for each in live.server.server_state.connections if not each.transport.is_closing()]
    waiting = sum(each.transport.get_write_buffer_size() for each in sockets)
    topics = live.services.hub._topics.values()  # noqa: SLF001 - what a process holds is no public fact
    return len(sockets), waiting, sum(len(frame.body) for topic in topics for frame in topic.frames)


def test_stalled_reader_is_cut_with_a_code(live: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes nothing for too long is closed, and learns why when it comes to itself in time."""
    monkeypatch.setattr("broker_api.streaming.sockets.STALL_SECONDS", 0.5)
    monkeypatch.setattr("broker_api.streaming.sockets.FAREWELL_SECONDS", 10.0)
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
