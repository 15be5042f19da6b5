"""Submit the jobs of one request, wait until they have ended, and fetch their pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.requests import ClientDisconnect

from broker_api.auth.keys import Principal
from broker_api.doors.sdapi.refusals import JobFailed, ThingNotFound
from broker_api.endpoints import Call
from broker_api.pictures.images import pictures_of
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import JobUnfinished
from broker_api.streaming.watching import HEADER, PATIENT_SECONDS, hang_up
from broker_api.submission import admit, store_watched
from jobs.contract import JobRequest, JobView
from jobs.reading import read_job
from jobs.states import State

DOOR: Final = "sdapi"


@dataclass(frozen=True)
class Drawn:
    """A job that has ended, and its pictures; none where it was interrupted, or they were not asked for."""

    view: JobView
    pictures: list[bytes]

    @property
    def interrupted(self) -> bool:
        """Tell whether it was stopped before its end."""
        return self.view.state is State.CANCELLED


def task_key(caller: Principal, task: str, number: int = 0) -> str:
    """Return the idempotency key that a client-chosen task id stands for."""
    return f"{DOOR}:{caller.key_id}:{number}:{task}"


async def draw(
    call: Call, requests: Sequence[JobRequest], *, task: str | None = None, pictures: bool = True
) -> list[Drawn]:
    """Return the jobs of these requests when all have ended.

    Raises what admission raises, `JobFailed` when a job failed and `JobUnfinished` when the server stops.
    """
    services, caller = call.services, call.principal
    what = hang_up(call.request.headers.get(HEADER), services.settings.hang_up)
    keys = [None if task is None else task_key(caller, task, number) for number in range(len(requests))]
    # All are admitted before the first is stored: a refused request leaves nothing behind.
    admitted = [
        await admit(services, caller, request, idempotency_key=key) for request, key in zip(requests, keys, strict=True)
    ]
    jobs = [(await store_watched(services, caller, new, door=DOOR, hang_up=what)).job for new in admitted]
    outcome = await services.watching.wait(jobs, PATIENT_SECONDS, call.request.receive)
    if outcome == "left":
        raise ClientDisconnect
    if outcome != "ended":
        raise JobUnfinished(
            "The server stops. Send the same request again soon, and it goes on.",
            headers={"retry-after": str(RETRY_SECONDS)},
        )
    drawn = []
    for job in jobs:
        async with services.pool.connection() as connection:
            view = await read_job(connection, caller.owner, job)
        if view is None:
            raise ThingNotFound("The job was deleted")
        if view.error is not None:
            raise JobFailed(view.error.message, error=view.error.code)
        found = await pictures_of(services, caller.owner, view) if pictures else []
        if found is None:
            raise ThingNotFound("The job was deleted")
        drawn.append(Drawn(view, found))
    return drawn
