"""How far this key's jobs are, and stopping them; what A1111 tells of a server is told of one key here."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.responses import Response

from broker_api.doors.sdapi.dialect import answer
from broker_api.doors.sdapi.drawing import task_key
from broker_api.doors.sdapi.payloads import InternalProgress, ProgressQuery
from broker_api.doors.sdapi.translation import KEY_LABEL, TASK_LABEL
from broker_api.endpoints import Call
from jobs.contract import JobView
from jobs.control import cancel
from jobs.events import Event, newest
from jobs.geometry import picture_count
from jobs.labelled import Active, active, by_idempotency_key
from jobs.reading import read_job
from jobs.states import TERMINAL, State

#: A running job is never shown at nothing: nothing means idle.
LEAST: Final = 0.01
_IDLE: Final[dict[str, Any]] = {
    "skipped": False,
    "interrupted": False,
    "stopping_generation": False,
    "job": "",
    "job_count": 0,
    "job_timestamp": "0",
    "job_no": 0,
    "sampling_step": 0,
    "sampling_steps": 0,
}


@dataclass(frozen=True)
class Seen:
    """One job as its progress bar needs it."""

    view: JobView
    task: str
    step: int
    preview: Event | None

    @property
    def fraction(self) -> float:
        """Return how much is done, 0 to 1."""
        if self.view.state is not State.RUNNING:
            return 1.0 if self.view.state in TERMINAL else 0.0
        return min(1.0, max(LEAST, self.step / max(1, self.view.progress.steps)))

    def eta(self) -> float:
        """Return the seconds it will still take, going by those it took so far; 0 where nothing is known."""
        if self.view.started_at is None or self.step == 0 or self.view.state in TERMINAL:
            return self.view.eta_s or 0.0
        spent = (datetime.now(UTC) - self.view.started_at).total_seconds()
        return round(max(0.0, spent * (1 / self.fraction - 1)), 1)

    def text(self) -> str | None:
        """Return what it waits for, or nothing."""
        if self.view.state is not State.QUEUED:
            return None
        position = "" if self.view.position is None else f"In queue: {self.view.position}, "
        return f"{position}waiting for {self.view.waiting_for}"


async def mine(call: Call) -> list[Active]:
    """Return the unfinished jobs that this key sent through this door, running ones first, then the newest."""
    caller = call.principal
    async with call.services.pool.connection() as connection:
        return await active(connection, caller.owner, KEY_LABEL, caller.key_id, shown=TASK_LABEL)


async def look(call: Call, job: UUID, task: str | None) -> Seen | None:
    """Return a job of the caller as it stands now."""
    async with call.services.pool.connection() as connection:
        view = await read_job(connection, call.principal.owner, job, call.services.snapshots.pace)
    if view is None:
        return None
    events: dict[str, Event] = {}
    if view.state is State.RUNNING:
        try:
            events = await newest(call.services.redis, job, ("progress", "preview"))
        except (RedisError, OSError, TimeoutError, ValidationError):
            # The database's own count, a second old, stands in.
            events = {}
    told = events["progress"].data.get("step", 0) if "progress" in events else 0
    return Seen(view, task or str(job), max(view.progress.step, told), events.get("preview"))


async def _chosen(call: Call, id_task: str | None) -> Seen | None:
    if id_task is None:
        found = await mine(call)
        return await look(call, found[0].job, found[0].shown) if found else None
    async with call.services.pool.connection() as connection:
        job = await by_idempotency_key(connection, call.principal.owner, task_key(call.principal, id_task))
    return None if job is None else await look(call, job, id_task)


async def get_progress(call: Call) -> Response:
    """Return the progress of this key's present job, or of the one that `id_task` names."""
    query = call.query(ProgressQuery)
    seen = await _chosen(call, query.id_task)
    if seen is None or seen.view.state in TERMINAL:
        return answer(
            {
                "progress": 0.0,
                "eta_relative": 0.0,
                "state": _IDLE,
                "current_image": None,
                "textinfo": None,
                "current_task": None,
            }
        )
    preview = None if query.skip_current_image or seen.preview is None else seen.preview.data.get("base64")
    return answer(
        {
            "progress": seen.fraction,
            "eta_relative": seen.eta(),
            "state": _state(seen),
            "current_image": preview,
            "textinfo": seen.text(),
            "current_task": seen.task,
            "id": seen.task,
        }
    )


def _state(seen: Seen) -> dict[str, Any]:
    view, pictures = seen.view, picture_count(seen.view.request)
    each = max(1, view.progress.steps // pictures)
    return {
        "skipped": False,
        "interrupted": view.cancel_requested,
        "stopping_generation": view.cancel_requested,
        "job": view.task,
        "job_count": pictures,
        "job_timestamp": view.created_at.strftime("%Y%m%d%H%M%S"),
        "job_no": min(pictures - 1, seen.step // each),
        "sampling_step": seen.step % each,
        "sampling_steps": each,
    }


async def internal_progress(call: Call) -> Response:
    """Return the progress of the task a client has named, as A1111's own pages ask for it."""
    asked = call.body(InternalProgress)
    seen = await _chosen(call, asked.id_task)
    idle = {"progress": None, "eta": None, "live_preview": None, "id_live_preview": -1, "textinfo": "Waiting..."}
    if seen is None or seen.view.state in TERMINAL:
        return answer({"active": False, "queued": False, "completed": seen is not None, **idle})
    if seen.view.state is State.QUEUED:
        return answer({"active": False, "queued": True, "completed": False, **idle, "textinfo": seen.text()})
    live, number = None, asked.id_live_preview
    if seen.preview is not None:
        number = seen.preview.seq
        if asked.live_preview and number != asked.id_live_preview:
            live = f"data:{seen.preview.data.get('mime', 'image/jpeg')};base64,{seen.preview.data.get('base64', '')}"
    return answer(
        {
            "active": True,
            "queued": False,
            "completed": False,
            "progress": seen.fraction,
            "eta": seen.eta(),
            "live_preview": live,
            "id_live_preview": number,
            "textinfo": None,
        }
    )


async def pending_tasks(call: Call) -> Response:
    """Return what this key waits for."""
    waiting = [found.shown or str(found.job) for found in await mine(call) if found.state is State.QUEUED]
    return answer({"size": len(waiting), "tasks": waiting})


async def interrupt(call: Call) -> Response:
    """Stop what this key has running; where nothing runs yet, what waits."""
    found = await mine(call)
    running = [each for each in found if each.state is State.RUNNING]
    for each in running or found:
        async with call.services.pool.connection() as connection:
            done = await cancel(connection, call.principal.owner, each.job)
        if done is not None and done[1] is not None:
            call.services.relay.announce(done[1])
    # Not 204: clients read the body.
    return answer({})


async def status(call: Call) -> Response:
    """Return this key's present job as SD.Next tells of its own."""
    found = await mine(call)
    seen = await look(call, found[0].job, found[0].shown) if found else None
    queued = sum(each.state is State.QUEUED for each in found)
    if seen is None:
        return answer({"status": "idle", "task": "", "id": "", "job": "", "jobs": 0, "queued": 0, "progress": 0})
    state = _state(seen)
    return answer(
        {
            "status": "running" if seen.view.state is State.RUNNING else "queued",
            "task": seen.view.task,
            "timestamp": state["job_timestamp"],
            "current": seen.view.task,
            "id": seen.task,
            "job": state["job_no"],
            "jobs": state["job_count"],
            "total": len(found),
            "step": state["sampling_step"],
            "steps": state["sampling_steps"],
            "queued": queued,
            "eta": seen.eta(),
            "progress": seen.fraction,
        }
    )
