"""Stream a job's forming pictures, evenly chosen over its steps, and then the pictures themselves."""

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from PIL import Image
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from broker_api.doors.openai.answers import Facts, encoded
from broker_api.problems import openai_error, problem_of
from broker_api.services import Services
from broker_api.streaming.events import KEEP_ALIVE, KEEP_ALIVE_SECONDS, READER_STALLED, STALL_SECONDS
from broker_api.streaming.topics import Frame, Reader
from broker_api.streaming.waiting import Outcome, departure
from infra.logging import get_logger
from jobs.contract import JobParameters
from jobs.geometry import picture_count, steps_per_picture

log = get_logger(__name__)

STREAM_FAILED: Final = "image_stream_failed"


def preview_every(parameters: JobParameters, partials: int) -> int:
    """Return how many steps lie between the previews that become so many partial pictures."""
    each = steps_per_picture(parameters)
    return min(each, max(1, each * picture_count(parameters) // (partials + 1)))


@dataclass
class Choice:
    """Choose the previews that are sent: the first one at or behind each of so many equal parts of a job's steps."""

    parameters: JobParameters
    partials: int
    sent: int = 0

    def takes(self, data: dict[str, Any]) -> bool:
        """Tell whether a preview is to be sent, and count it as sent."""
        each = steps_per_picture(self.parameters)
        part = max(1, each * picture_count(self.parameters) // (self.partials + 1))
        step = int(data.get("image", 0)) * each + int(data.get("step", 0))
        if self.sent >= self.partials or step < part * (self.sent + 1):
            return False
        self.sent += 1
        return True


@dataclass(frozen=True)
class Plan:
    """What is streamed of one job."""

    job: UUID
    #: `image_generation` or `image_edit`.
    kind: str
    partials: int
    parameters: JobParameters
    facts: Facts
    #: Returns the pictures of the job once it has ended, with their facts; raises a refusal for one that failed.
    fetch: Callable[[], Awaitable[tuple[Facts, Sequence[bytes]]]]
    #: What is told when the server stops.
    unfinished: Exception


class ImageStream(Response):
    """Send one job's pictures to one client as server-sent events."""

    def __init__(self, services: Services, plan: Plan) -> None:
        super().__init__(
            headers={
                "cache-control": "no-cache, no-transform",
                "x-accel-buffering": "no",
                "imagefleet-job": str(plan.job),
            },
            media_type="text/event-stream",
        )
        # It has no length: Starlette counted the empty body.
        del self.headers["content-length"]
        self._services = services
        self._plan = plan
        self._choice = Choice(plan.parameters, plan.partials)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the pictures are sent, the client has left or stalls, or the server stops."""
        del scope
        job, hub = self._plan.job, self._services.hub
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        with contextlib.suppress(TimeoutError):
            async with self._services.watching.attend([job]) as attendance, hub.watch(job) as reader:
                async with departure(receive, reader) as left:
                    attendance.outcome = await self._follow(reader, send, left)
                if attendance.outcome == "left":
                    return
                await self._end(send, attendance.outcome)
            return
        log.info(READER_STALLED, job=str(job), seconds=STALL_SECONDS)

    async def _follow(self, reader: Reader, send: Send, left: asyncio.Event) -> Outcome:
        while True:
            for frame in reader.take():
                await self._show(frame, send)
            if reader.topic.ended or reader.topic.closed:
                return "ended"
            if left.is_set():
                return "left"
            if self._services.hub.stopping:
                return "stopping"
            if not await reader.wait(KEEP_ALIVE_SECONDS):
                await _write(send, KEEP_ALIVE)

    async def _show(self, frame: Frame, send: Send) -> None:
        if frame.type != "preview" or self._choice.sent >= self._choice.partials:
            return
        data = json.loads(frame.message)["data"]
        number = self._choice.sent
        if not self._choice.takes(data):
            return
        try:
            text = await asyncio.to_thread(_reencoded, data.get("base64", ""), self._plan.facts.output_format)
        except (OSError, ValueError, SyntaxError):
            # No preview is worth the pictures that follow it.
            return
        await self._send(send, "partial_image", {**self._facts(text), "partial_image_index": number})

    async def _end(self, send: Send, outcome: Outcome) -> None:
        try:
            if outcome != "ended":
                raise self._plan.unfinished  # noqa: TRY301 - told as every other refusal is
            facts, pictures = await self._plan.fetch()
            for picture in pictures:
                text = await asyncio.to_thread(encoded, picture)
                members = {**facts.members("created_at"), "b64_json": text, "usage": facts.usage}
                await self._send(send, "completed", members)
        except TimeoutError:
            raise
        except Exception as error:
            # The answer has begun: every error becomes its last event.
            problem = problem_of(error).problem
            if problem.code == "internal_error":
                log.exception(STREAM_FAILED, job=str(self._plan.job))
            await _write(send, _event("error", {"type": "error", "error": openai_error(problem)}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _facts(self, text: str) -> dict[str, Any]:
        return {**self._plan.facts.members("created_at"), "b64_json": text}

    async def _send(self, send: Send, what: str, members: dict[str, Any]) -> None:
        name = f"{self._plan.kind}.{what}"
        await _write(send, _event(name, {"type": name, **members}))


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def _write(send: Send, body: bytes) -> None:
    async with asyncio.timeout(STALL_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})


def _reencoded(text: str, output_format: str) -> str:
    """Return a preview, base64 of a JPEG, in another format."""
    if output_format == "jpeg":
        return text
    file = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=["JPEG"]) as picture:
        picture.save(file, output_format.upper())
    return encoded(file.getvalue())
