"""Who works, on what, with what in memory; and sending a worker to rest and back."""

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from infra.database import AsyncConnection
from jobs import roster
from jobs.fleet import WorkerView
from jobs.reading import CurrentJob, running_jobs


class WorkerDetail(WorkerView):
    """A worker, how it does and what it draws."""

    jobs: list[CurrentJob] = Field(description="What it draws now, and stores; to others than admins, their own alone.")


class WorkerPage(BaseModel):
    """All workers."""

    items: list[WorkerDetail]
    next_cursor: str | None = None


async def list_workers(call: Call) -> Response:
    """Return every worker known; which jobs of others they run is told to admins alone."""
    async with call.services.pool.connection() as connection:
        return json_answer(WorkerPage(items=await _details(call, connection)))


async def read_worker(call: Call) -> Response:
    """Return one worker."""
    async with call.services.pool.connection() as connection:
        return json_answer(await _detail(call, connection))


async def drain_worker(call: Call) -> Response:
    """Ask a worker to take no jobs, now and after a restart, until it is told to resume."""
    async with call.services.pool.connection() as connection:
        await roster.drain(connection, _name(call))
        return json_answer(await _detail(call, connection))


async def resume_worker(call: Call) -> Response:
    """Let a worker take jobs again."""
    async with call.services.pool.connection() as connection:
        await roster.resume(connection, _name(call))
        return json_answer(await _detail(call, connection))


def _name(call: Call) -> str:
    name: str = call.request.path_params["name"]
    if "\x00" in name:
        raise not_found()
    return name


async def _detail(call: Call, connection: AsyncConnection) -> WorkerDetail:
    name = _name(call)
    found = next((worker for worker in await _details(call, connection) if worker.name == name), None)
    if found is None:
        raise not_found()
    return found


async def _details(call: Call, connection: AsyncConnection) -> list[WorkerDetail]:
    workers = (await roster.fleet(connection)).workers
    jobs = await running_jobs(connection, call.principal.sees)
    shown = {job.id for job in jobs}
    return [
        WorkerDetail(
            **worker.model_dump(exclude={"current"}),
            current=tuple(job for job in worker.current if call.principal.is_admin or job in shown),
            jobs=[job for job in jobs if job.worker == worker.name],
        )
        for worker in workers
    ]
