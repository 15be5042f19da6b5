"""A WebSocket client for tests, and what they say over it."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from websockets.sync.client import ClientConnection, connect

PATH = "/v1/ws/progress"


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
