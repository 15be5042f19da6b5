"""Create, read, list, cancel and delete jobs over HTTP."""

from http import HTTPStatus
from typing import Any, Final, cast
from uuid import UUID

from pydantic import BaseModel, Field, RootModel
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.refusals import HeaderInvalid
from broker_api.streaming.watching import HEADER, hang_up
from broker_api.submission import admit, store, store_watched
from jobs.changes import Change
from jobs.contract import JobParameters, JobRequest, JobView, Request, Task
from jobs.control import cancel, delete, delete_many
from jobs.fleet import Fleet
from jobs.geometry import estimated_cost, picture_count, total_steps
from jobs.intake import NewJob
from jobs.labels import Labels, parse_labels
from jobs.parts import Name, Strict
from jobs.priorities import change_priority
from jobs.reading import JobSearch, foresee, list_jobs, read_job, view
from jobs.states import TERMINAL, State

LONGEST_IDEMPOTENCY_KEY: Final = 255
LONGEST_WAIT_SECONDS: Final = 600
MOST_LISTED: Final = 200


class CreateQuery(Query):
    """How to create a job."""

    wait: float = Field(
        default=0,
        ge=0,
        le=LONGEST_WAIT_SECONDS,
        description="Answer when the job has ended, but after so many seconds at most.",
    )
    dry_run: bool = Field(default=False, description="Only say what would become of the request: nothing is stored.")


class ListQuery(Query):
    """Which jobs to list."""

    state: State | None = None
    active: bool = Field(default=False, description="Only those that wait or run.")
    task: Task | None = None
    model: Name | None = None
    labels: Labels | None = None
    batch: UUID | None = None
    mine: bool = Field(default=False, description="For admins: only one's own.")
    cursor: str | None = Field(default=None, max_length=200, description="`next_cursor` of the page before.")
    limit: int = Field(default=50, ge=1, le=MOST_LISTED)


class DryRun(BaseModel):
    """What would become of a request."""

    request: JobParameters = Field(description="As resolved; a seed that was to be drawn is drawn anew each time.")
    queue: str
    hardware: str
    needs_memory_bytes: int
    cost: int = Field(description="Share of a device's time: pixels times steps, in units of 4 096.")
    steps: int
    pictures: int
    position: int
    eta_s: float | None = Field(description="Seconds until it would end, as measured lately.")
    waiting_for: str | None


class ChangeJob(Strict):
    """What to change of a job that waits."""

    priority: int = Field(ge=0, le=9, description="0 first, 9 last.")


class DeleteJobs(Strict):
    """Jobs to delete."""

    jobs: list[UUID] = Field(min_length=1, max_length=1000)


class DeletedJobs(BaseModel):
    """What was deleted; what is missing here waits or runs still, was not there, or is not yours."""

    jobs: list[UUID]


class JobOrDryRun(RootModel[JobView | DryRun]):
    """A job, or with `dry_run` what would become of it."""


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobView]
    next_cursor: str | None


async def create_job(call: Call) -> Response:
    """Admit and store a job, and answer at once or when it has ended."""
    return await accept(call, cast("JobRequest", call.body(Request)), call.query(CreateQuery))


async def accept(call: Call, request: JobRequest, query: CreateQuery) -> Response:
    """Do with a request, wherever it came from, what `POST /v1/jobs` does."""
    found, headers = await accepted(call, request, query)
    status = HTTPStatus.OK if isinstance(found, DryRun) or found.state in TERMINAL else HTTPStatus.ACCEPTED
    return json_answer(found, status, headers)


async def accepted(call: Call, request: JobRequest, query: CreateQuery) -> tuple[JobView | DryRun, dict[str, str]]:
    """Admit and store a request, and return its job, or what would become of it, with the headers of the answer."""
    seconds = query.wait
    services, caller = call.services, call.principal
    admitted = await admit(services, caller, request, idempotency_key=idempotency_key(call.request))
    if query.dry_run:
        return await _foreseen(call, admitted.new), {}
    if seconds > 0:
        what = hang_up(call.request.headers.get(HEADER), services.settings.hang_up)
        stored = await store_watched(services, caller, admitted, door="v1", hang_up=what)
        await services.watching.wait([stored.job], seconds, call.request.receive)
    else:
        stored = await store(services, admitted)
    headers = {"location": f"/v1/jobs/{stored.job}"}
    if stored.change is None:
        headers["idempotent-replayed"] = "true"
    if seconds > 0 or stored.change is None:
        # A job may be deleted as soon as it has ended.
        return await _read(call, stored.job), headers
    return _fresh_view(stored.change, admitted.new, services.snapshots.now.fleet), headers


async def read_one_job(call: Call) -> Response:
    """Return a job."""
    async with call.services.pool.connection() as connection:
        found = await read_job(connection, call.principal.sees, call.job(), call.services.snapshots.pace)
    if found is None:
        raise not_found()
    return json_answer(found)


async def list_page(call: Call) -> Response:
    """Return a page of jobs."""
    query = call.query(ListQuery)
    wanted = JobSearch(
        state=query.state,
        active=query.active,
        task=query.task,
        model=query.model,
        labels=None if query.labels is None else parse_labels(query.labels),
        batch=query.batch,
    )
    async with call.services.pool.connection() as connection:
        items, following = await list_jobs(
            connection,
            call.principal.owner if query.mine else call.principal.sees,
            wanted,
            cursor=query.cursor,
            limit=query.limit,
            pace=call.services.snapshots.pace,
        )
    return json_answer(JobPage(items=items, next_cursor=following))


async def change_job(call: Call) -> Response:
    """Give a waiting job another priority."""
    job = call.job()
    async with call.services.pool.connection() as connection:
        is_there, change = await change_priority(connection, call.principal.sees, job, call.body(ChangeJob).priority)
        if change is not None:
            call.services.relay.announce(change)
        found = await read_job(connection, call.principal.sees, job, call.services.snapshots.pace) if is_there else None
    if found is None:
        raise not_found()
    return json_answer(found)


async def cancel_job(call: Call) -> Response:
    """Cancel a job: at once while it waits, within a step while it runs, not at all when it has ended."""
    job = call.job()
    async with call.services.pool.connection() as connection:
        done = await cancel(connection, call.principal.sees, job)
        if done is None:
            raise not_found()
        change = done[1]
        if change is not None:
            call.services.relay.announce(change)
        found = await read_job(connection, call.principal.sees, job, call.services.snapshots.pace)
    if found is None:
        raise not_found()
    return json_answer(found, HTTPStatus.OK if found.state in TERMINAL else HTTPStatus.ACCEPTED)


async def delete_job(call: Call) -> Response:
    """Delete a job that has ended, and its pictures."""
    async with call.services.pool.connection() as connection:
        if not await delete(connection, call.principal.sees, call.job()):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def delete_jobs(call: Call) -> Response:
    """Delete those of the jobs that have ended, and their pictures."""
    async with call.services.pool.connection() as connection:
        gone = await delete_many(connection, call.principal.sees, call.body(DeleteJobs).jobs)
    return json_answer(DeletedJobs(jobs=sorted(gone)))


async def _foreseen(call: Call, job: NewJob) -> DryRun:
    async with call.services.pool.connection() as connection:
        outlook = await foresee(connection, job, call.services.snapshots.pace)
    parameters = job.parameters
    return DryRun(
        request=parameters,
        queue=f"{parameters.task}.{job.hardware}",
        hardware=job.hardware,
        needs_memory_bytes=job.needs_memory,
        cost=estimated_cost(parameters),
        steps=total_steps(parameters),
        pictures=picture_count(parameters),
        position=outlook.position,
        eta_s=outlook.eta_s,
        waiting_for=outlook.waiting_for,
    )


def idempotency_key(request: HttpRequest) -> str | None:
    """Return the header's value, raising `HeaderInvalid` for one that cannot be kept."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= LONGEST_IDEMPOTENCY_KEY or not key.isascii() or not key.isprintable():
        raise HeaderInvalid(
            f"Idempotency-Key must be 1 to {LONGEST_IDEMPOTENCY_KEY} printable ASCII characters.",
            field="Idempotency-Key",
        )
    return key


def _fresh_view(change: Change, job: NewJob, fleet: Fleet) -> JobView:
    """Show a job just stored without asking the database for what we have just told it."""
    serving = [worker for worker in fleet.workers if change.queue in worker.queues]
    online = [worker for worker in serving if worker.online and worker.state != "draining"]
    fitting = [worker for worker in online if worker.memory_bytes >= job.needs_memory]
    row: dict[str, Any] = {
        "id": change.job, "owner": job.owner, "state": State.QUEUED, "task": job.parameters.task, "queue": change.queue, "batch": None,
        "created_at": change.at, "started_at": None, "finished_at": None, "available_at": change.at, "read_at": change.at,
        "cancel_requested_at": None, "worker": None, "seconds": None, "attempts": 0, "losses": 0, "ahead": None, "images": [],
        "step": 0, "steps": total_steps(job.parameters), "cost": estimated_cost(job.parameters),
        "request": job.parameters.model_dump(mode="json"),
        "serving": {"fitting": len(fitting), "online": len(online), "serving": len(serving)},
    }  # fmt: skip
    return view(row)


async def _read(call: Call, job: UUID) -> JobView:
    async with call.services.pool.connection() as connection:
        found = await read_job(connection, call.principal.owner, job, call.services.snapshots.pace)
    if found is None:
        raise not_found()
    return found
