"""Which job runs next: where scheduling lives, in one statement.

Order inside a bounded window: priority; then what waited longer than its patience, oldest promise first; then what is warm here (same
weights, then same LoRA set); then fair order, counted from how far the job's own queue has been served, because each queue has a clock of
its own. Only the row that is taken is locked. Further jobs with the same batch key follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.contract import JobParameters, parse_parameters
from jobs.events import Event

#: How many heads of a queue are looked at for something warm.
WINDOW: Final = 32
#: A job that has waited so long is never overtaken by a warmer one, seconds.
PATIENCE_SECONDS: Final = 30.0
#: A worker that lost a job leaves it to the others for so long, seconds.
AVOID_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Claimer:
    """Who claims, and what it could hold."""

    worker: str
    run: UUID
    queues: Sequence[str]
    #: Bytes at half precision.
    memory_bytes: int
    lease_seconds: float


@dataclass(frozen=True)
class ClaimedJob:
    """A job this worker owns while its lease lives."""

    id: UUID
    epoch: int
    owner: str
    queue: str
    parameters: JobParameters
    model_key: str
    attempts: int
    losses: int
    created_at: datetime
    #: The event of the state before: published first, so that no reader misses it when its own writer was slower.
    predecessor: Event


@dataclass(frozen=True)
class Claim:
    """`seen` jobs could have been taken; with some seen and none taken a race was lost, and the claim is worth repeating."""

    seen: int
    jobs: Sequence[ClaimedJob]


_CLAIM: Final = """
with seen as materialized (
    select head.* from unnest(%(queues)s::text[]) served (queue) cross join lateral (
        select id, epoch, queue, priority, fair_order, model_key, lora_key, batch_key,
               created_at < now() - make_interval(secs => %(patience)s) as overdue,
               fair_order - coalesce((select vtime from fair_clock clock
                   where clock.queue = jobs.queue and clock.priority = jobs.priority), 0) as turn
        from jobs
        where jobs.queue = served.queue and state = 'queued' and available_at <= now() and needs_memory <= %(memory)s
          and (deadline_at is null or deadline_at > now())
          and (%(worker)s <> all (lost_on) or available_at <= now() - make_interval(secs => %(avoid)s))
        order by priority, fair_order, id limit %(window)s) head
    order by priority, overdue desc, turn, id limit %(window)s
), ranked as materialized (
    select *, row_number() over (order by priority, overdue desc,
        case when overdue then 0 when model_key = %(warm_model)s then case when lora_key = %(warm_loras)s then 0 else 1 end else 2 end,
        turn, id) as rank
    from seen order by rank
), lead as materialized (
    select ranked.id, ranked.queue, ranked.priority, ranked.batch_key, ranked.fair_order from ranked cross join lateral (
        select from jobs where jobs.id = ranked.id and jobs.epoch = ranked.epoch and jobs.state = 'queued' for update skip locked) taken
    limit 1
), mates as materialized (
    select mate.id from lead cross join lateral (
        select jobs.id from jobs
        where jobs.queue = lead.queue and jobs.batch_key = lead.batch_key and jobs.state = 'queued' and jobs.available_at <= now()
          and jobs.needs_memory <= %(memory)s and jobs.id <> lead.id and %(batch)s > 1
          and (jobs.deadline_at is null or jobs.deadline_at > now()) and %(worker)s <> all (jobs.lost_on)
        order by jobs.priority, jobs.fair_order, jobs.id limit %(batch)s - 1 for update skip locked) mate
), served as (
    insert into fair_clock as clock (queue, priority, vtime) select queue, priority, fair_order from lead
    on conflict (queue, priority) do update set vtime = greatest(clock.vtime, excluded.vtime)
), taken as (
    update jobs set state = 'running', epoch = epoch + 1, state_seq = 1, worker = %(worker)s, worker_run = %(run)s, step = 0,
        started_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    from (select id from lead union all select id from mates) chosen where jobs.id = chosen.id
    returning jobs.id, jobs.epoch, jobs.owner, jobs.queue, jobs.request, jobs.model_key, jobs.attempts, jobs.losses, jobs.created_at,
        jobs.available_at, jobs.requeue_reason, jobs.priority, jobs.fair_order
)
select (select count(*) from seen) as seen, taken.* from (select) one left join taken on true
order by taken.priority, taken.fair_order, taken.id
"""


def claim(
    connection: "psycopg.Connection[Any]",
    claimer: Claimer,
    *,
    warm_model: str | None = None,
    warm_loras: str = "",
    batch: int = 1,
) -> Claim:
    """Take the best job this worker can hold, and up to `batch` - 1 that can be drawn with it."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            _CLAIM,
            {
                "queues": list(claimer.queues),
                "worker": claimer.worker,
                "run": claimer.run,
                "memory": claimer.memory_bytes,
                "lease": claimer.lease_seconds,
                "warm_model": warm_model,
                "warm_loras": warm_loras,
                "batch": batch,
                "window": WINDOW,
                "patience": PATIENCE_SECONDS,
                "avoid": AVOID_SECONDS,
            },
        ).fetchall()
    return Claim(rows[0]["seen"], [_claimed(row) for row in rows if row["id"] is not None])


def _claimed(row: dict[str, Any]) -> ClaimedJob:
    before = row["epoch"] - 1
    predecessor = (
        Event(job=row["id"], epoch=0, seq=1, type="queued", at=row["created_at"], data={"queue": row["queue"]})
        if before == 0
        else Event(
            job=row["id"],
            epoch=before,
            seq=1,
            type="requeued",
            at=row["available_at"],
            data={"reason": row["requeue_reason"], "queue": row["queue"]},
        )
    )
    return ClaimedJob(
        id=row["id"],
        epoch=row["epoch"],
        owner=row["owner"],
        queue=row["queue"],
        parameters=parse_parameters(row["request"]),
        model_key=row["model_key"],
        attempts=row["attempts"],
        losses=row["losses"],
        created_at=row["created_at"],
        predecessor=predecessor,
    )
