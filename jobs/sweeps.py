"""What the keeper mends: jobs whose worker has died, jobs past their deadline, queues nobody was woken for, rows kept long enough."""

from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row, tuple_row

from jobs.changes import PRESENT_COLUMNS, Change, present
from jobs.errors import DeadlinePassed, TooLargeForFleet
from jobs.fleet import Fleet
from jobs.history.rollups import NAME as JOB_HOURS
from jobs.routing import route
from jobs.store import lose_statement
from jobs.uploads import FOLDER as UPLOADS

#: Rows one statement touches at most, so that no lock is held for long.
BATCH: Final = 1000

_EXPIRED: Final = lose_statement("jobs.lease_until < clock_timestamp()")

_OVERDUE: Final = f"""
with late as (
update jobs set state = 'failed', epoch = epoch + 1, state_seq = 1, finished_at = clock_timestamp(), error_code = '{DeadlinePassed.code}',
    error_message = 'The deadline passed while the job waited.', error_retryable = false
where id in (select id from jobs where state = 'queued' and deadline_at <= now() order by deadline_at limit {BATCH} for update skip locked)
returning {PRESENT_COLUMNS}, jobs.owner, jobs.priority, jobs.cost
), given_back as (
    update fair_owners mine set vtime = mine.vtime - charged.cost
    from (select owner, queue, priority, sum(cost)::bigint as cost from late group by owner, queue, priority) charged
    where mine.owner = charged.owner and mine.queue = charged.queue and mine.priority = charged.priority
)
select * from late
"""

_WAITING: Final = """
select queue from unnest(%(queues)s::text[]) queue
where exists (select from jobs where jobs.queue = queue.queue and state = 'queued' and available_at <= now())
"""

# Each retention that jobs have is found by one look into the index, and of each the oldest jobs are looked at.
_RETIRE: Final = f"""
with recursive kept (days) as (
    (select retention_days from jobs where finished_at is not null and retention_days is not null order by retention_days limit 1)
    union all
    select (select retention_days from jobs where finished_at is not null and retention_days > kept.days order by retention_days limit 1)
    from kept where kept.days is not null
), counted as materialized (
    -- Not before its hour is counted, however short the retention.
    select coalesce((select done_until from rollups where name = '{JOB_HOURS}'), 'infinity') as until
), due as (
    (select id from jobs where retention_days is null and finished_at is not null
        and finished_at < least(now() - make_interval(days => 1) * %(days)s, (select until from counted))
        order by finished_at limit {BATCH})
    union all
    (select own.id from kept cross join lateral (
        select id from jobs where retention_days = kept.days and finished_at is not null
            and finished_at < least(now() - make_interval(days => 1) * kept.days, (select until from counted))
        order by finished_at limit {BATCH}) own)
), gone as (
    delete from jobs where id = any (array(select id from due limit {BATCH})) returning id
), swept as (
    insert into garbage (key) select images.key from images join gone on gone.id = images.job on conflict do nothing
)
select count(*) from gone
"""

# A job whose row is kept can be drawn again: its pictures stay as long as it does, for whoever has them. Not compared by owner: an equality
# would let the planner join on that alone, and read every job of an owner for every upload.
_RETIRE_UPLOADS: Final = f"""
with old as (
    select owner, sha256 from uploads sent
    where used_at < now() - make_interval(days => 1) * %(days)s and not exists (
        select from jobs where jobs.uploads @> array[sent.sha256] and jobs.uploads <> '{{}}')
    order by used_at limit {BATCH} for update skip locked
), gone as (
    delete from uploads using old where uploads.owner = old.owner and uploads.sha256 = old.sha256 returning uploads.sha256
), swept as (
    insert into garbage (key) select distinct '{UPLOADS}/' || left(sha256, 2) || '/' || sha256 from gone on conflict do nothing
)
select count(*) from gone
"""

_FORGET_KEYS: Final = f"""
update jobs set idempotency_key = null where id in (select id from jobs where idempotency_key is not null
    and created_at < now() - interval '24 hours' limit {BATCH})
"""

_FORGET_BATCHES: Final = f"""
delete from batches where id in (select id from batches where created_at < now() - interval '24 hours'
    and not exists (select from jobs where jobs.batch = batches.id) limit {BATCH})
"""

_FORGET_WORKERS: Final = "delete from workers where seen_at < now() - interval '7 days'"

_GARBAGE: Final = f"select key from garbage order by since limit {BATCH}"
# The lock makes a request that is about to record the same bytes wait until they are gone; it then stores them anew.
_UNUSED_UPLOAD: Final = """
select from garbage where key = %(key)s and not exists (select from uploads where sha256 = %(sha256)s) for update
"""
_SWEPT: Final = "delete from garbage where key = %(key)s"
_POSTPONED: Final = "update garbage set since = now() where key = %(key)s"

_ROUTES: Final = """
select task, hardware, needs_hardware, needs_memory, count(*) as waiting from jobs where state = 'queued' and needs_hardware is null
group by task, hardware, needs_hardware, needs_memory
"""

_REROUTE: Final = f"""
update jobs set hardware = %(to)s,
    -- Stamps count from their queue's clock.
    fair_order = fair_order
        - coalesce((select vtime from fair_clock clock where clock.queue = %(queue)s and clock.priority = jobs.priority), 0)
        + coalesce((select vtime from fair_clock clock where clock.queue = %(better)s and clock.priority = jobs.priority), 0)
where id in (
    select id from jobs where queue = %(queue)s and state = 'queued' and needs_hardware is null and needs_memory = %(memory)s
    order by priority, fair_order, id limit {BATCH} for update skip locked)
"""


def _changes(connection: "psycopg.Connection[Any]", statement: str, values: dict[str, Any]) -> list[Change]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return [present(row) for row in cursor.execute(statement, values).fetchall()]


def expire_leases(connection: "psycopg.Connection[Any]") -> list[Change]:
    """Take running jobs from workers whose lease has ended."""
    return _changes(connection, _EXPIRED, {"reason": "lease_expired"})


def expire_deadlines(connection: "psycopg.Connection[Any]") -> list[Change]:
    """Fail waiting jobs whose deadline has passed."""
    return _changes(connection, _OVERDUE, {})


def waiting_queues(connection: "psycopg.Connection[Any]", queues: Sequence[str]) -> list[str]:
    """Return those of `queues` in which a job could start now."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return [row[0] for row in cursor.execute(_WAITING, {"queues": list(queues)}).fetchall()]


def retire(connection: "psycopg.Connection[Any]", days: float) -> int:
    """Delete a batch of jobs that ended more than `days` ago, leaving their pictures to `garbage`; return how many."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_RETIRE, {"days": days}).fetchone()
    return 0 if row is None else int(row[0])


def retire_uploads(connection: "psycopg.Connection[Any]", days: float) -> int:
    """Delete a batch of uploads that no job names and nobody used for `days`, leaving their bytes to `garbage`; return how many."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_RETIRE_UPLOADS, {"days": days}).fetchone()
    return 0 if row is None else int(row[0])


def is_unused_upload(connection: "psycopg.Connection[Any]", key: str, sha256: str) -> bool:
    """Tell whether no owner has an upload any more, and lock that fact; call it inside a transaction that also removes the bytes."""
    return connection.execute(_UNUSED_UPLOAD, {"key": key, "sha256": sha256}).fetchone() is not None


def forget(connection: "psycopg.Connection[Any]") -> None:
    """Release idempotency keys after a day, batches without jobs then too, and workers after a week of silence."""
    connection.execute(_FORGET_KEYS)
    connection.execute(_FORGET_BATCHES)
    connection.execute(_FORGET_WORKERS)


def garbage_keys(connection: "psycopg.Connection[Any]") -> list[str]:
    """Return a batch of storage keys no row refers to."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        return [row[0] for row in cursor.execute(_GARBAGE).fetchall()]


def garbage_removed(connection: "psycopg.Connection[Any]", key: str) -> None:
    """Record that an object is gone."""
    connection.execute(_SWEPT, {"key": key})


def garbage_postponed(connection: "psycopg.Connection[Any]", key: str) -> None:
    """Put an object that could not be removed behind all others."""
    connection.execute(_POSTPONED, {"key": key})


def reroute(connection: "psycopg.Connection[Any]", fleet: Fleet) -> list[str]:
    """Move waiting jobs to where the present fleet would send them; return the queues that gained some.

    Jobs that asked for a class or a tag stay where they asked to be.
    """
    gained: set[str] = set()
    with connection.cursor(row_factory=dict_row) as cursor:
        for group in cursor.execute(_ROUTES).fetchall():
            try:
                better = route(group["task"], group["needs_memory"], None, fleet)
            except TooLargeForFleet:
                continue  # it waits and says so: a larger worker may come
            if better == group["hardware"]:
                continue
            queue = f"{group['task']}.{group['hardware']}"
            gained.add(f"{group['task']}.{better}")
            values = {
                "to": better,
                "queue": queue,
                "better": f"{group['task']}.{better}",
                "memory": group["needs_memory"],
            }
            cursor.execute(_REROUTE, values)
    return sorted(gained)
