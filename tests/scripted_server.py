"""A server that answers what a test says, and is cut off where a test says."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Script:
    """Answer one request per connection with the next of `answers`; keep what was asked."""

    answers: list[bytes]
    asked: list[Asked] = field(default_factory=list)
    url: str = ""
    #: What to do before waiting for the request of this number, counted from 0.
    before: dict[int, Callable[[], object]] = field(default_factory=dict)

    def serve(self, listener: socket.socket) -> None:
        """Answer until the script ends, and nobody after that."""
        with listener, contextlib.suppress(OSError):
            for number, answer in enumerate(self.answers):
                self.before.get(number, _nothing)()
                connection, _ = listener.accept()
                with connection:
                    self.asked.append(_read(connection))
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)


def _nothing() -> None:
    """Do nothing."""


def _read(connection: socket.socket) -> Asked:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, path, _ = first.split(" ")
    return Asked(method, path, headers, body)


def answer(
    body: bytes | str = b"",
    status: int = 200,
    kind: str = "application/json",
    length: int | None = None,
    **headers: str,
) -> bytes:
    """Write one HTTP answer; `length` promises more bytes than are sent."""
    raw = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"content-type: {kind}", "connection: close"]
    lines.append(f"content-length: {len(raw) if length is None else length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw


@contextlib.contextmanager
def player() -> Iterator[Callable[[list[bytes]], Script]]:
    """Yield a function that starts a server with a script; all of them end with the block."""
    stops: list[tuple[socket.socket, threading.Thread]] = []

    def start(answers: list[bytes]) -> Script:
        listener = socket.create_server(("127.0.0.1", 0))
        script = Script(answers, url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=script.serve, args=(listener,))
        thread.start()
        stops.append((listener, thread))
        return script

    yield start
    for listener, thread in stops:
        # Closing alone would not wake a thread that waits in accept().
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert not thread.is_alive()
