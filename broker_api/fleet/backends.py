"""GET /v1/backends: what the fleet can draw now, by class of worker."""

from collections import Counter

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call
from broker_api.http.answers import json_answer
from jobs.fleet import WorkerView
from jobs.roster import fleet


class Backend(BaseModel):
    """Workers that are alike: one engine on one kind of device."""

    hardware: str
    engine: str
    device_name: str
    tags: list[str]
    tasks: list[str]
    queues: list[str]
    workers: int = Field(description="Online, those that are about to leave not counted.")
    idle: int
    memory_bytes: int = Field(description="What the largest of them offers to a job.")
    versions: list[str]


class BackendPage(BaseModel):
    """All classes of workers that are online, and what they do together."""

    items: list[Backend]
    tasks: dict[str, int] = Field(description="Task to the number of workers that do it.")
    next_cursor: str | None = None


async def list_backends(call: Call) -> Response:
    """Return the classes of workers that are online."""
    async with call.services.pool.connection() as connection:
        known = await fleet(connection)
    taking = [worker for worker in known.online() if worker.state != "draining"]
    groups: dict[tuple[object, ...], list[WorkerView]] = {}
    for worker in taking:
        alike = (worker.hardware, worker.engine, worker.device_name, worker.tags, worker.tasks)
        groups.setdefault(alike, []).append(worker)
    tasks = Counter(task for worker in taking for task in worker.tasks)
    return json_answer(
        BackendPage(items=[_backend(group) for group in groups.values()], tasks=dict(sorted(tasks.items())))
    )


def _backend(workers: list[WorkerView]) -> Backend:
    first = workers[0]
    return Backend(
        hardware=first.hardware,
        engine=first.engine,
        device_name=first.device_name,
        tags=list(first.tags),
        tasks=sorted(first.tasks),
        queues=sorted({queue for worker in workers for queue in worker.queues}),
        workers=len(workers),
        idle=sum(worker.state == "idle" for worker in workers),
        memory_bytes=max(worker.memory_bytes for worker in workers),
        versions=sorted({worker.version for worker in workers}),
    )
