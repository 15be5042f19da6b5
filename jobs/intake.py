"""Accept a job: one statement, one commit, no other server asked.

Fair order is start-time fair queuing over estimated cost: an owner's next job is stamped behind what the owner has been promised already,
but never before the point the queue has been served up to, so that nobody saves up turns by being idle.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic_core import to_json
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
    #: How long it is kept once it has ended; None as long as the fleet's.
    retention_days: float | None = None


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
                      steps, deadline_at, idempotency_key, request_hash, request, uploads, batch, retention_days)
    select %(id)s, %(owner)s, %(task)s, %(hardware)s, %(needs_hardware)s, %(needs_memory)s, %(model_key)s, %(lora_key)s, %(batch_key)s,
           %(priority)s, promised.vtime - %(cost)s, %(cost)s, %(steps)s, now() + make_interval(secs => %(deadline_s)s), %(idempotency_key)s,
           %(request_hash)s, %(request)s, %(uploads)s, %(batch)s, %(retention_days)s
    from promised
    on conflict (owner, idempotency_key) where idempotency_key is not null do nothing
    returning id, request_hash, queue, created_at
)
select id, request_hash, queue, created_at from stored
union all select id, request_hash, null, null from known
"""

# The same stamps as one by one, in the order of the rows; owners' promises are written in one order, so that two batches never wait for
# each other.
_SUBMIT_TOGETHER: Final = """
with given as materialized (
    select * from jsonb_to_recordset(%(rows)s::jsonb) given (place int, id uuid, owner text, task text, hardware text, queue text,
        needs_hardware text, needs_memory bigint, model_key text, lora_key text, batch_key text, priority smallint, cost bigint,
        steps int, deadline_s float8, request jsonb, uploads text[], batch uuid, retention_days float8)
), owed as materialized (
    select owner, queue, priority, sum(cost)::bigint as cost from given group by owner, queue, priority
), promised as (
    insert into fair_owners as mine (owner, queue, priority, vtime)
    select owner, queue, priority, coalesce((select vtime from fair_clock clock
        where clock.queue = owed.queue and clock.priority = owed.priority), 0) + owed.cost
    from owed order by owner, queue, priority
    on conflict (owner, queue, priority) do update set vtime = greatest(excluded.vtime, mine.vtime + (select cost from owed
        where owed.owner = mine.owner and owed.queue = mine.queue and owed.priority = mine.priority))
    returning owner, queue, priority, vtime
)
insert into jobs (id, owner, task, hardware, needs_hardware, needs_memory, model_key, lora_key, batch_key, priority, fair_order, cost,
                  steps, deadline_at, request, uploads, batch, retention_days)
select given.id, given.owner, given.task, given.hardware, given.needs_hardware, given.needs_memory, given.model_key, given.lora_key,
       given.batch_key, given.priority, promised.vtime - sum(given.cost) over (partition by given.owner, given.queue, given.priority
           order by given.place desc), given.cost, given.steps, now() + make_interval(secs => given.deadline_s), given.request,
       given.uploads, given.batch, given.retention_days
from given join promised using (owner, queue, priority)
returning id, created_at
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


def _values(job: NewJob, batch: UUID | None = None) -> dict[str, Any]:
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
        "batch": batch,
        "retention_days": job.retention_days,
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


async def submit_together(
    connection: "psycopg.AsyncConnection[Any]", jobs: Sequence[NewJob], batch: UUID
) -> list[Change]:
    """Store the jobs of a batch in one statement, inside the caller's transaction, and return their changes in order.

    None of them has an idempotency key of its own.
    """
    rows = [_values(job, batch) for job in jobs]
    sent = [{**row, "place": place, "request": row["request"].obj} for place, row in enumerate(rows)]
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SUBMIT_TOGETHER, {"rows": to_json(sent).decode()})
        stored = {row["id"]: row for row in await cursor.fetchall()}
    return [
        Change(row["id"], 0, 1, "queued", stored[row["id"]]["created_at"], {"queue": row["queue"]}, row["queue"])
        for row in rows
    ]
