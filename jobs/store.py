"""How a running job ends, or goes back: every statement is guarded by epoch, so a worker that lost the job changes nothing.

Each function returns the change to announce, or None when the job was no longer this writer's. Repeated because the reply to a commit was
lost, each returns the change it had made: None always means that another writer has the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.changes import PRESENT_COLUMNS, Change, present
from jobs.errors import JobFailure, Poison
from jobs.states import MAX_ATTEMPTS, POISON_LOSSES, POISON_LOSSES_ANYWHERE, POISON_WORKERS

#: How long a job rests after its own retryable error, times the attempts so far, seconds.
RETRY_SECONDS: Final = 2.0


@dataclass(frozen=True)
class StoredPicture:
    """A picture whose bytes are in storage."""

    index: int
    seed: int
    width: int
    height: int
    mime: str
    bytes: int
    sha256: str
    key: str


#: Of the parameters `job` and `epoch`: only its writer ends a job.
MINE: Final = "jobs.id = %(job)s and jobs.epoch = %(epoch)s and jobs.state = 'running'"

_COMPLETE: Final = f"""
with ended as (
    update jobs set state = 'succeeded', state_seq = %(seq)s, lease_until = null, step = steps, seconds = %(seconds)s,
        finished_at = clock_timestamp()
    where {MINE} returning {PRESENT_COLUMNS}
), pictures as (
    insert into images (job, index, epoch, seed, width, height, mime, bytes, sha256, key)
    select ended.id, picture.index, ended.epoch, picture.seed, picture.width, picture.height, picture.mime, picture.bytes, picture.sha256,
           picture.key
    from ended cross join unnest(%(indexes)s::int[], %(seeds)s::numeric[], %(widths)s::int[], %(heights)s::int[], %(mimes)s::text[],
        %(sizes)s::bigint[], %(digests)s::text[], %(keys)s::text[])
        picture (index, seed, width, height, mime, bytes, sha256, key)
)
select * from ended
"""

_FAIL: Final = f"""
update jobs set state = 'failed', state_seq = %(seq)s, lease_until = null, finished_at = clock_timestamp(),
    attempts = attempts + %(charged)s, error_code = %(code)s, error_message = %(message)s, error_retryable = %(retryable)s
where {MINE} and (not %(retryable)s or attempts + 1 >= {MAX_ATTEMPTS}) returning {PRESENT_COLUMNS}
"""

_RETRY: Final = f"""
update jobs set state = case when cancel_requested_at is null then 'queued' else 'cancelled' end, epoch = epoch + 1, state_seq = 1,
    lease_until = null, attempts = attempts + 1, requeue_reason = %(reason)s,
    -- Others may try first: what is broken may be this worker's host.
    lost_on = case when worker = any (lost_on) then lost_on else lost_on || worker end,
    finished_at = case when cancel_requested_at is null then null else clock_timestamp() end,
    available_at = clock_timestamp() + make_interval(secs => {RETRY_SECONDS} * (attempts + 1))
where {MINE} returning {PRESENT_COLUMNS}
"""

_STOPPED: Final = f"""
update jobs set state = 'cancelled', state_seq = %(seq)s, lease_until = null, finished_at = clock_timestamp()
where {MINE} returning {PRESENT_COLUMNS}
"""

_HAND_BACK: Final = f"""
update jobs set state = case when cancel_requested_at is null then 'queued' else 'cancelled' end, epoch = epoch + 1, state_seq = 1,
    lease_until = null, requeue_reason = %(reason)s, available_at = clock_timestamp(),
    finished_at = case when cancel_requested_at is null then null else clock_timestamp() end
where {MINE} returning {PRESENT_COLUMNS}
"""


def lose_statement(where: str) -> str:
    """Return the statement that takes running jobs from a worker that failed them, for the rows `where` names.

    It needs the parameter `reason`. A job is charged a loss, not an attempt; one that was lost too often fails as `poison`.
    """
    poison = f"""(jobs.losses + 1 >= {POISON_LOSSES_ANYWHERE} or (jobs.losses + 1 >= {POISON_LOSSES}
        and cardinality(jobs.lost_on) + (jobs.worker <> all (jobs.lost_on))::int >= {POISON_WORKERS}))"""
    outcome = (
        f"case when jobs.cancel_requested_at is not null then 'cancelled' when {poison} then 'failed' else 'queued' end"
    )
    return f"""
        update jobs set state = {outcome}, epoch = jobs.epoch + 1, state_seq = 1, lease_until = null, losses = jobs.losses + 1,
            lost_on = case when jobs.worker = any (jobs.lost_on) then jobs.lost_on else jobs.lost_on || jobs.worker end,
            requeue_reason = %(reason)s, available_at = clock_timestamp(),
            finished_at = case when {outcome} = 'queued' then null else clock_timestamp() end,
            error_code = case when {outcome} = 'failed' then '{Poison.code}' end,
            error_retryable = case when {outcome} = 'failed' then false end,
            error_message = case when {outcome} = 'failed' then format('The job was lost %%s times, last because of %%s on %%s; it is not '
                'tried any more.', jobs.losses + 1, %(reason)s::text, jobs.worker) end
        where {where} and jobs.state = 'running' returning {PRESENT_COLUMNS}"""


_LOSE: Final = lose_statement("jobs.id = %(job)s and jobs.epoch = %(epoch)s")

# Only the writer of an epoch ends it under that epoch, so a final state there is its own work.
_ENDED: Final = f"""select {PRESENT_COLUMNS} from jobs
where id = %(job)s and epoch = %(epoch)s and state_seq = %(seq)s and state in ('succeeded', 'failed', 'cancelled')"""

# Whoever took the job back from this epoch, the event that says so is the same.
_TAKEN_BACK: Final = f"""select {PRESENT_COLUMNS} from jobs
where id = %(job)s and epoch = %(epoch)s + 1 and state_seq = 1 and state <> 'running' and requeue_reason = %(reason)s"""


def _change(
    connection: "psycopg.Connection[Any]", statement: str, repeated: str, values: dict[str, Any]
) -> Change | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(statement, values).fetchone() or cursor.execute(repeated, values).fetchone()
    return None if row is None else present(row)


def change_once(connection: "psycopg.Connection[Any]", statement: str, values: dict[str, Any]) -> Change | None:
    """Run a statement that ends a job, guarded by `MINE`; repeated, return the change it had made."""
    return _change(connection, statement, _ENDED, values)


def complete(
    connection: "psycopg.Connection[Any]",
    job: UUID,
    epoch: int,
    seq: int,
    pictures: Sequence[StoredPicture],
    seconds: float,
) -> Change | None:
    """Record the pictures and the success; `seconds` is what drawing took, `seq` that of the event to come."""
    values = {
        "job": job,
        "epoch": epoch,
        "seq": seq,
        "seconds": seconds,
        "indexes": [picture.index for picture in pictures],
        "seeds": [str(picture.seed) for picture in pictures],
        "widths": [picture.width for picture in pictures],
        "heights": [picture.height for picture in pictures],
        "mimes": [picture.mime for picture in pictures],
        "sizes": [picture.bytes for picture in pictures],
        "digests": [picture.sha256 for picture in pictures],
        "keys": [picture.key for picture in pictures],
    }
    return _change(connection, _COMPLETE, _ENDED, values)


def fail(connection: "psycopg.Connection[Any]", job: UUID, epoch: int, seq: int, failure: JobFailure) -> Change | None:
    """Record a failure: the fleet's counts as a loss, a retryable one of the job's own as an attempt, any other ends the job."""
    mine = {"job": job, "epoch": epoch}
    if failure.fleet_fault:
        return _change(connection, _LOSE, _TAKEN_BACK, {**mine, "reason": failure.code})
    values = {
        **mine,
        "seq": seq,
        "code": failure.code,
        "message": failure.message.replace("\x00", ""),
        "retryable": failure.retryable,
        "charged": int(failure.retryable),
    }
    ended = _change(connection, _FAIL, _ENDED, values)
    if ended is None and failure.retryable:
        return _change(connection, _RETRY, _TAKEN_BACK, {**mine, "reason": failure.code})
    return ended


def stopped(connection: "psycopg.Connection[Any]", job: UUID, epoch: int, seq: int) -> Change | None:
    """Record a cancel; call it only when nothing of the job runs any more."""
    return _change(connection, _STOPPED, _ENDED, {"job": job, "epoch": epoch, "seq": seq})


def hand_back(connection: "psycopg.Connection[Any]", job: UUID, epoch: int, reason: str) -> Change | None:
    """Put a job back into its queue and charge it nothing."""
    return _change(connection, _HAND_BACK, _TAKEN_BACK, {"job": job, "epoch": epoch, "reason": reason})
