"""Make one job of a request, or join the one that an earlier try of it made."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

from starlette.requests import ClientDisconnect

from broker_api.admission.models import Models
from broker_api.doors.openai.answers import picture_tokens
from broker_api.doors.openai.masks import mask_of, own_mask
from broker_api.doors.openai.payloads import Drawing, Streamed
from broker_api.doors.openai.refusals import JobFailed, JobGone
from broker_api.doors.openai.streaming import preview_every
from broker_api.doors.openai.translation import Sources, model_of, renamed, request_of, task_of, their_names
from broker_api.endpoints import Call
from broker_api.native.jobs import idempotency_key
from broker_api.pictures.sources import Pictures
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import JobUnfinished
from broker_api.streaming.watching import HEADER, PATIENT_SECONDS, hang_up
from broker_api.submission import Admitted, decide, store_watched
from jobs.contract import JobView, Task
from jobs.errors import ModelUnknown, RequestRefused
from jobs.pictures import upload_ref
from jobs.reading import read_job
from jobs.states import State
from models_registry.entries import ModelEntry

DOOR: Final = "openai"
#: OpenAI's clients count their tries.
_TRIES: Final = "x-stainless-retry-count"


@dataclass(frozen=True)
class Taken:
    """The pictures of a request, looked at and not yet stored."""

    pictures: Pictures = field(default_factory=Pictures)
    sources: Sources | None = None

    @property
    def tokens(self) -> int:
        """Return the tokens that the pictures count as."""
        return sum(picture_tokens(each.width, each.height) for each in self.pictures.by_field.values())


async def take(call: Call, image: bytes, mask: bytes | None, *, masked: bool = True) -> Taken:
    """Look at a picture and its mask, raising `PictureRefused` or `PictureTooLarge`; its own transparency masks where no mask is given."""
    door = call.services.pictures
    taken = await door.take_file(image, "image")
    upload = taken.by_field["image"]
    white: bytes | None = None
    if mask is not None:
        await door.take_file(mask, "mask")
        white = await asyncio.to_thread(mask_of, mask, (upload.width, upload.height))
    elif masked:
        white = await asyncio.to_thread(own_mask, image)
    if white is None:
        return Taken(taken, Sources(upload_ref(upload.sha256)))
    masks = await door.take_file(white, "mask")
    both = Pictures({**taken.by_field, **masks.by_field}, {**taken.new, **masks.new})
    return Taken(both, Sources(upload_ref(upload.sha256), upload_ref(masks.by_field["mask"].sha256)))


async def submit(call: Call, payload: Drawing, taken: Taken) -> UUID:
    """Store the job of a request, or join an earlier try's, and return its id; raise a refusal in the request's own names."""
    services, caller = call.services, call.principal
    what = hang_up(call.request.headers.get(HEADER), services.settings.hang_up)
    names = their_names(payload)
    try:
        entry = await _model(call, payload, task_of(taken.sources))
        request = request_of(payload, entry, taken.sources)
        key = idempotency_key(call.request)
        new = await decide(services, caller, request, taken.pictures, idempotency_key=key)
    except RequestRefused as error:
        raise renamed(error, names) from None
    if isinstance(payload, Streamed) and payload.stream and payload.partial_images:
        every = preview_every(new.parameters, payload.partial_images)
        new = replace(new, parameters=new.parameters.model_copy(update={"preview_every": every}))
    admitted = Admitted(new, taken.pictures)
    again = is_again(call.request.headers)
    return (await store_watched(services, caller, admitted, door=DOOR, hang_up=what, again=again)).job


def is_again(headers: Mapping[str, str]) -> bool:
    """Tell whether a client says that it has sent this request before."""
    count = headers.get(_TRIES, "0")
    return count.isdecimal() and count.strip("0") != ""


async def _model(call: Call, payload: Drawing, task: Task) -> ModelEntry:
    snapshots = call.services.snapshots
    try:
        catalogue = snapshots.now.catalogue.seen_by(call.principal.reader)
        return Models(catalogue).checkpoint(model_of(payload, catalogue), task)
    except ModelUnknown:
        # It may be newer than the snapshot.
        catalogue = (await snapshots.refresh()).catalogue.seen_by(call.principal.reader)
        return Models(catalogue).checkpoint(model_of(payload, catalogue), task)


async def wait(call: Call, job: UUID) -> JobView:
    """Return a job when it has succeeded, raising `JobUnfinished` when the server stops first, and what `finished` raises."""
    outcome = await call.services.watching.wait([job], PATIENT_SECONDS, call.request.receive)
    if outcome == "left":
        raise ClientDisconnect
    if outcome != "ended":
        raise unfinished()
    return await finished(call, job)


def unfinished() -> JobUnfinished:
    """Return what is said to clients of a server that stops."""
    return JobUnfinished(
        "The server stops. Send the same request again soon, and it goes on.",
        headers={"retry-after": str(RETRY_SECONDS)},
    )


async def finished(call: Call, job: UUID) -> JobView:
    """Return a job that has succeeded, raising `JobFailed` or `JobGone` for one that has not."""
    async with call.services.pool.connection() as connection:
        view = await read_job(connection, call.principal.owner, job)
    if view is None:
        raise JobGone("The job was deleted before its pictures were fetched.")
    if view.error is not None:
        raise JobFailed(f"{view.error.message} ({view.error.code})", headers={"x-should-retry": "false"})
    if view.state is State.CANCELLED:
        raise JobGone("The job was cancelled.")
    return view
