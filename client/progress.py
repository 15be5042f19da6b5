"""Follow many jobs over one WebSocket, which is opened again where it breaks; no event is given twice."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from client.errors import AnswerUnusable, FleetUnreachable, NotFound, Unauthorized, problem_of
from client.views import FINAL_EVENTS, Event

_PATH = "/v1/ws/progress"
#: The server closes with this when the key is no longer good.
_KEY_REVOKED = 4401
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
#: Jobs one message may name.
_MOST_NAMED = 1000
#: Largest message taken: a preview is far smaller.
_LARGEST = 4 * 1024 * 1024


@dataclass
class Progress:
    """Yield the events of jobs, batches, or all of one's own, until the named ones have ended; with `mine` for ever."""

    url: str
    key: str | None
    patience: float
    #: No proxy is asked: the fleet is on this machine.
    direct: bool
    jobs: Collection[str] = ()
    batches: Collection[str] = ()
    mine: bool = False
    #: Job to the last event had of it.
    seen: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    #: Jobs whose end has not been seen; None before the server has said which jobs there are.
    _open: set[UUID] | None = None
    _answered: bool = False

    def __iter__(self) -> Iterator[Event]:
        """Yield events as they come, raising a `ClientError` when the fleet refuses or stays away."""
        heard, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                with self._connected() as line:
                    for event in self._hear(line):
                        heard, pause = time.monotonic(), _FIRST_PAUSE
                        yield event
                    return
            except (OSError, ConnectionClosed, InvalidHandshake) as error:
                if isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == _KEY_REVOKED:
                    raise Unauthorized(
                        HTTPStatus.UNAUTHORIZED, {"code": "key_invalid", "detail": error.rcvd.reason}
                    ) from None
                if not self._answered or time.monotonic() - heard > self.patience:
                    raise FleetUnreachable(self.url, str(error) or type(error).__name__) from None
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _connected(self) -> ClientConnection:
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        address = "ws" + self.url.removeprefix("http") + _PATH
        try:
            line = connect(address, additional_headers=headers, max_size=_LARGEST, proxy=None if self.direct else True)
        except InvalidStatus as refused:
            answer = refused.response
            if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR and self._answered:
                raise
            raise problem_of(answer.status_code, _document(bytes(answer.body))) from None
        self._answered = True
        return line

    def _hear(self, line: ClientConnection) -> Iterator[Event]:
        for message in self._wishes():
            line.send(json.dumps({"type": "subscribe", **message}))
        while self.mine or self._open is None or self._open:
            message = json.loads(line.recv())
            match message.get("type"):
                case "subscribed":
                    self._take(message)
                case "gone":
                    self._end(UUID(message["job"]))
                case "error":
                    raise problem_of(HTTPStatus.BAD_REQUEST, {**message, "detail": message.get("message")})
                case _:
                    event = _event(message)
                    if (event.epoch, event.seq) > self.seen.get(event.job, (-1, -1)):
                        yield self._noted(event)

    def _wishes(self) -> Iterator[dict[str, Any]]:
        """Yield what to subscribe to: at first what was asked for, later what is left of it."""
        if self._open is None:
            yield {
                "jobs": list(self.jobs),
                "batches": list(self.batches),
                "mine": self.mine,
                "after": self._after(self.seen),
            }
            return
        left = sorted(self._open)
        for start in range(0, len(left), _MOST_NAMED):
            some = left[start : start + _MOST_NAMED]
            yield {"jobs": [str(job) for job in some], "after": self._after(some)}
        if self.mine:
            yield {"mine": True}

    def _after(self, jobs: Collection[UUID]) -> Mapping[str, str]:
        had = {str(job): self.seen[job] for job in jobs if job in self.seen}
        return {job: f"{epoch}-{seq}" for job, (epoch, seq) in had.items()}

    def _take(self, message: Mapping[str, Any]) -> None:
        missing = {str(each) for each in message.get("not_found", ())}
        if self._open is None:
            if missing:
                detail = f"There is no job or batch {min(missing)}, or it is not yours."
                raise NotFound(HTTPStatus.NOT_FOUND, {"code": "not_found", "detail": detail})
            self._open = {UUID(job) for job in message["jobs"]}
            return
        # Deleted while nobody listened.
        self._open -= {UUID(job) for job in missing}

    def _noted(self, event: Event) -> Event:
        self.seen[event.job] = (event.epoch, event.seq)
        if event.type in FINAL_EVENTS:
            self._end(event.job)
        elif self._open is not None:
            self._open.add(event.job)
        return event

    def _end(self, job: UUID) -> None:
        if self._open is not None:
            self._open.discard(job)
        # One that follows everything for long does not remember all that ever was.
        if self.mine:
            self.seen.pop(job, None)


def _event(message: Mapping[str, Any]) -> Event:
    try:
        return Event.model_validate(message)
    except ValidationError:
        raise AnswerUnusable(f"the fleet says {str(message)[:100]!r}, which is no event") from None


def _document(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
