"""/v1/ws/progress: the events of many jobs over one WebSocket, the same and with the same ids as server-sent events."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from broker_api.auth.authentication import is_own_origin
from broker_api.auth.keys import Principal
from broker_api.auth.sessions import cookie_of
from broker_api.endpoints import Call
from broker_api.http.background import end_tasks
from broker_api.problems import DATABASE_ERRORS, problem_of, problem_response
from broker_api.refusals import KeyInvalid, OriginForeign, Unauthorized, UpgradeRequired
from broker_api.services import Services, services_of
from broker_api.streaming.feeds import MOST_JOBS, Feed, Gone, Overflow
from broker_api.streaming.socket_messages import (
    CLIENT_MESSAGE,
    JobGone,
    Ping,
    Pong,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from infra.logging import get_logger
from jobs.changes import Change
from jobs.events import FINAL_EVENTS, parse_event_id
from jobs.reading import present_batches, present_changes
from jobs.watching import jobs_in_motion, jobs_of

log = get_logger(__name__)

PATH: Final = "/v1/ws/progress"
#: What the server speaks; a browser, which cannot send headers, offers it and its key as `imagefleet.key.<key>`.
PROTOCOL: Final = "imagefleet.v1"
KEY_PROTOCOL: Final = "imagefleet.key."
#: A reader that takes nothing for so long is cut.
STALL_SECONDS: Final = 30.0
#: A cut reader that comes to itself within this time, seconds, still learns why.
FAREWELL_SECONDS: Final = 1.0
#: Whether the key is still good is asked so often, seconds.
KEY_SECONDS: Final = 5.0

#: Why the server closes; the first one as the standard has it.
RESTARTING: Final = 1012
KEY_REVOKED: Final = 4401
STALLED: Final = 4408
TOO_MUCH: Final = 4429

READER_CUT: Final = "socket_reader_cut"


class _Closed(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def progress_socket(websocket: WebSocket) -> None:
    """Serve one connection."""
    websocket.scope["route_path"] = PATH
    services = services_of(websocket.scope)
    try:
        find = _finder(websocket, services)
        principal = await find()
    except Exception as error:  # noqa: BLE001 - every error becomes an answer
        await websocket.send_denial_response(problem_response(problem_of(error)))
        return
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=PROTOCOL if PROTOCOL in offered else None)
    await Session(websocket, services, principal, find).run()


async def plain_request(call: Call) -> Response:
    """Refuse a request that is no WebSocket's."""
    raise UpgradeRequired(
        f"{call.request.url.path} speaks WebSocket alone.", headers={"upgrade": "websocket", "connection": "upgrade"}
    )


#: Says whose the connection is, again and again while it lasts; raises `KeyInvalid` once it is nobody's.
_Finder = Callable[[], Awaitable[Principal]]


def _finder(connection: HTTPConnection, services: Services) -> _Finder:
    """Return how to find who opens a connection: by its key, or by its browser's session."""
    key, cookie = key_of(connection), cookie_of(connection)
    if key is None and cookie is None:
        raise Unauthorized(
            f"Send your API key as `Authorization: Bearer <key>`, or offer the protocols `{PROTOCOL}` and `{KEY_PROTOCOL}<key>`.",
            headers={"www-authenticate": "Bearer"},
        )
    # A browser sends its cookie whoever asks it to: the sites that an operator lists must bring a key.
    refuse_foreign_origin(connection, services.settings.origins if key is not None else "")

    async def find() -> Principal:
        if key is not None:
            return await services.keys.find(key)
        return (await services.sessions.find(cookie or "")).principal

    return find


def key_of(connection: HTTPConnection) -> str | None:
    """Return the key of a Bearer header or of the offered protocols, if any."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    for protocol in connection.scope.get("subprotocols", []):
        if protocol.startswith(KEY_PROTOCOL):
            return str(protocol.removeprefix(KEY_PROTOCOL))
    return None


def refuse_foreign_origin(connection: HTTPConnection, listed: str) -> None:
    """Raise `OriginForeign` for a page of another site, unless the operator lists it; programs send no origin."""
    origin = connection.headers.get("origin")
    if origin is None:
        return
    allowed = {name.strip().rstrip("/").lower() for name in listed.split(",") if name.strip()}
    if not is_own_origin(connection) and origin.lower() not in allowed and "*" not in allowed:
        raise OriginForeign("Another web site opened this connection.", field="Origin")


class Session:
    """One connection that has been let in."""

    def __init__(self, websocket: WebSocket, services: Services, principal: Principal, find: _Finder) -> None:
        self._socket = websocket
        self._services = services
        self._principal = principal
        self._find = find
        self._feed = Feed(services.hub)
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        """Hear and tell until one side closes."""
        tasks = [asyncio.create_task(work) for work in (self._hear(), self._tell(), self._check_key())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            problems = [task.exception() for task in done]
            closed = next((problem for problem in problems if isinstance(problem, _Closed)), None)
            if closed is not None:
                await self._close(closed)
            elif (problem := next((each for each in problems if each is not None), None)) is not None:
                raise problem
        except (WebSocketDisconnect, OSError):
            return
        finally:
            self._services.newcomers.leave(self._feed)
            self._feed.close()
            await end_tasks(tasks)

    async def _close(self, closed: _Closed) -> None:
        log.info(READER_CUT, code=closed.code, reason=closed.reason, key_id=self._principal.key_id)
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, OSError, RuntimeError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._socket.close(closed.code, closed.reason)

    async def _check_key(self) -> None:
        while True:
            await asyncio.sleep(KEY_SECONDS)
            try:
                await self._find()
            except KeyInvalid:
                raise _Closed(KEY_REVOKED, "the key was revoked") from None
            except DATABASE_ERRORS:
                continue

    async def _tell(self) -> None:
        feed = self._feed
        while not self._services.hub.stopping:
            if feed.overflowed:
                raise _Closed(TOO_MUCH, f"more than {MOST_JOBS} jobs wait to be told")
            for news in feed.take():
                text = JobGone(job=news.job).model_dump_json() if isinstance(news, Gone) else news.message.decode()
                async with self._writing:
                    await self._send(text)
            await feed.wait(KEY_SECONDS)
        raise _Closed(RESTARTING, "the server stops")

    async def _send(self, text: str) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._socket.send_text(text)
        except TimeoutError:
            raise _Closed(STALLED, f"nothing was taken for {STALL_SECONDS} s") from None

    async def _answer(self, answer: BaseModel) -> None:
        async with self._writing:
            await self._send(answer.model_dump_json())

    async def _hear(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            try:
                if text is None:
                    raise ValueError("send text, not bytes")  # noqa: TRY301 - it is answered as other strange messages are
                heard = CLIENT_MESSAGE.validate_json(text)
            except ValueError as error:
                await self._answer(_refusal(error))
                continue
            try:
                await self._follow(heard)
            except Overflow:
                raise _Closed(TOO_MUCH, f"a connection watches at most {MOST_JOBS} jobs") from None
            except DATABASE_ERRORS as error:
                problem = problem_of(error).problem
                await self._answer(Refused(ref=heard.ref, code=problem.code, message=problem.detail))

    async def _follow(self, heard: Subscribe | Unsubscribe | Ping) -> None:
        if isinstance(heard, Ping):
            await self._answer(Pong(ref=heard.ref))
        elif isinstance(heard, Subscribe):
            await self._subscribe(heard)
        else:
            await self._unsubscribe(heard)

    async def _subscribe(self, heard: Subscribe) -> None:
        changes, missing = await self._named(heard)
        own: dict[UUID, Change] = {}
        if heard.mine:
            self._services.newcomers.join(self._feed, self._principal.owner)
            async with self._services.pool.connection() as connection:
                found = await jobs_in_motion(connection, [self._principal.owner], ended_within=1)
            own = jobs_of(found, self._principal.owner)
            over = {job for job, change in own.items() if change.type in FINAL_EVENTS}
            self._feed.leave_out(over)
            own = {job: change for job, change in own.items() if job not in over}
        watched = {**own, **changes}
        answer = Subscribed(type="subscribed", ref=heard.ref, jobs=list(watched), not_found=missing, mine=heard.mine)
        await self._answer(answer)
        for job, change in watched.items():
            self._feed.watch(change, parse_event_id(heard.after.get(job, "")))

    async def _named(self, heard: Subscribe | Unsubscribe) -> tuple[dict[UUID, Change], list[UUID]]:
        """Return the jobs a message names, and the names that mean nothing to its sender."""
        if not heard.jobs and not heard.batches:
            return {}, []
        sees = self._principal.sees
        async with self._services.pool.connection() as connection:
            found = await present_changes(connection, sees, heard.jobs) if heard.jobs else {}
            batches = await present_batches(connection, sees, heard.batches) if heard.batches else {}
        missing = [job for job in heard.jobs if job not in found] + [
            each for each in heard.batches if each not in batches
        ]
        for members in batches.values():
            found |= members
        return found, missing

    async def _unsubscribe(self, heard: Unsubscribe) -> None:
        jobs: Sequence[UUID] = heard.jobs
        missing: list[UUID] = []
        if heard.batches:
            named, missing = await self._named(heard)
            jobs = list(named)
        if heard.mine:
            self._services.newcomers.leave(self._feed)
            jobs = list(self._feed.jobs)
        left = [job for job in jobs if self._feed.forget(job)]
        await self._answer(
            Subscribed(type="unsubscribed", ref=heard.ref, jobs=left, not_found=missing, mine=heard.mine)
        )


def _refusal(error: ValueError) -> Refused:
    if isinstance(error, ValidationError):
        problem = problem_of(error).problem
        return Refused(code=problem.code, message=problem.detail, field=problem.field)
    return Refused(code="invalid_request", message=f"{error}.", field=None)
