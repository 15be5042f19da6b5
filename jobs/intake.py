"""Accept a job: one statement, one commit, no other server asked.

Fair order is start-time fair queuing over estimated cost: an owner's next job is stamped behind what the owner has been promised already,
but never before the point the queue has been served up to, so that nobody saves up turns by being idle.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from jobs.changes import Change
from jobs.contract import DiffusionParameters, JobParameters
from jobs.errors import IdempotencyMismatch
from jobs.geometry import estimated_cost, total_steps
from jobs.pictures import uploads_of


@dataclass(frozen=True)
class NewJob:
    """An admitted job that is not yet stored."""

    owner: str
    parameters: JobParameters
    model_key: str
    #: Bytes at half precision.
    needs_memory: int
    #: The route: a class or a tag.
    hardware: str
    idempotency_key: str | None = None
    #: Of the request as it was sent, before defaults were drawn.
    request_hash: str | None = None


@dataclass(frozen=True)
class Accepted:
    """A stored job; `change` is None when an earlier request with the same key had made it."""

    job: UUID
    created: bool
    change: Change | None


_SUBMIT: Final = """
with known as materialized (
    select id, request_hash from jobs where owner = %(owner)s and idempotency_key = %(idempotency_key)s
), clock as materialized (
    select coalesce((select vtime from fair_clock where queue = %(queue)s and priority = %(priority)s), 0) as vtime
), promised as (
    insert into fair_owners as mine (owner, queue, priority, vtime)
    select %(owner)s, %(queue)s, %(priority)s, clock.vtime + %(cost)s from clock where not exists (select from known)
    on conflict (owner, queue, priority) do update set vtime = greatest(mine.vtime, (select vtime from clock)) + %(cost)s
    returning vtime
), stored as (
    insert into jobs (id, owner, task, hardware, needs_hardware, needs_memory, model_key, lora_key, batch_key, priority, fair_order, cost,
                      steps, deadline_at, idempotency_key, request_hash, request, uploads)
    select %(id)s, %(owner)s, %(task)s, %(hardware)s, %(needs_hardware)s, %(needs_memory)s, %(model_key)s, %(lora_key)s, %(batch_key)s,
           %(priority)s, promised.vtime - %(cost)s, %(cost)s, %(steps)s, now() + make_interval(secs => %(deadline_s)s), %(idempotency_key)s,
           %(request_hash)s, %(request)s, %(uploads)s
    from promised
    on conflict (owner, idempotency_key) where idempotency_key is not null do nothing
    returning id, request_hash, queue, created_at
)
select id, request_hash, queue, created_at from stored
union all select id, request_hash, null, null from known
"""


def lora_key(parameters: JobParameters) -> str:
    """Return a digest that is equal for jobs with the same stack of LoRAs, in whatever order; empty without any."""
    if not isinstance(parameters, DiffusionParameters) or not parameters.loras:
        return ""
    stack = sorted((lora.name, lora.weight, lora.text_encoder_weight) for lora in parameters.loras)
    return _digest(repr(stack))


def batch_key(parameters: JobParameters, model_key: str) -> str:
    """Return a digest that is equal for jobs which one engine could draw together."""
    return _digest(f"{parameters.task}|{model_key}|{lora_key(parameters)}|{parameters.width}x{parameters.height}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _values(job: NewJob) -> dict[str, Any]:
    parameters = job.parameters
    return {
        "id": uuid7(),
        "owner": job.owner,
        "task": parameters.task,
        "hardware": job.hardware,
        "queue": f"{parameters.task}.{job.hardware}",
        "needs_hardware": parameters.hardware,
        "needs_memory": job.needs_memory,
        "model_key": job.model_key,
        "lora_key": lora_key(parameters),
        "batch_key": batch_key(parameters, job.model_key),
        "priority": parameters.priority,
        "cost": estimated_cost(parameters),
        "steps": total_steps(parameters),
        "deadline_s": parameters.deadline_s,
        "idempotency_key": job.idempotency_key,
        "request_hash": job.request_hash,
        "request": Jsonb(parameters.model_dump(mode="json")),
        "uploads": uploads_of(parameters),
    }


async def submit(connection: "psycopg.AsyncConnection[Any]", job: NewJob) -> Accepted:
    """Store a job, or find the one its idempotency key made before; raise `IdempotencyMismatch` when that was another request."""
    values = _values(job)
    async with connection.cursor(row_factory=dict_row) as cursor:
        row = None
        while row is None:
            # No row: a concurrent request with the same key won the race, and is visible to the next statement.
            await cursor.execute(_SUBMIT, values)
            row = await cursor.fetchone()
    if row["queue"] is not None:
        created_at: datetime = row["created_at"]
        change = Change(row["id"], 0, 1, "queued", created_at, {"queue": row["queue"]}, row["queue"])
        return Accepted(row["id"], created=True, change=change)
    if row["request_hash"] != job.request_hash:
        raise IdempotencyMismatch("This Idempotency-Key was used before with another request.", field="Idempotency-Key")
    return Accepted(row["id"], created=False, change=None)
