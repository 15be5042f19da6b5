"""Count what ended, hour by hour, before retention deletes the jobs.

Each hour is counted once, after it is over: `rollups` says how far that has been done, and is moved on in the transaction that counts.
"""

from datetime import timedelta
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

from jobs.history.bins import bin_of

NAME: Final = "job_hours"
#: An hour counts as over so long after its end: by then whatever ended in it is committed, seconds.
SETTLED_SECONDS: Final = 300
_HOUR: Final = timedelta(hours=1)
#: Hours one transaction counts at most.
MOST_HOURS: Final = 24

#: What is counted of one job, for statements that read `jobs`.
ENDED_COLUMNS: Final = f"""jobs.owner, jobs.task, jobs.request ->> 'model' as model, coalesce(jobs.worker, '') as worker, jobs.state,
    coalesce(jobs.error_code, '') as error_code, (select count(*) from images where images.job = jobs.id)::int as pictures,
    coalesce(jobs.seconds, 0) as seconds, {bin_of("extract(epoch from jobs.started_at - jobs.created_at)")} as wait_bin,
    {bin_of("jobs.seconds")} as second_bin"""

_BEGIN: Final = f"insert into rollups (name, done_until) values ('{NAME}', '1970-01-01Z') on conflict do nothing"
_STANDING: Final = f"""
select done_until, closed, (select date_trunc('hour', min(finished_at)) from jobs
    where finished_at >= done_until and finished_at < closed) as first
from (select done_until, date_trunc('hour', now() - interval '{SETTLED_SECONDS} seconds') as closed from rollups
    where name = '{NAME}' for update) standing
"""
_KEYS: Final = "hour, owner, task, model, worker, state, error_code"
_COUNT: Final = f"""
with ended as materialized (
    select date_trunc('hour', jobs.finished_at) as hour, {ENDED_COLUMNS} from jobs
    where finished_at >= %(first)s and finished_at < %(until)s
), sums as (
    select {_KEYS}, count(*) as jobs, sum(pictures) as pictures, sum(seconds) as seconds from ended group by {_KEYS}
), waits as (
    select {_KEYS}, jsonb_object_agg(wait_bin::text, jobs) as waits
    from (select {_KEYS}, wait_bin, count(*) as jobs from ended where wait_bin is not null group by {_KEYS}, wait_bin) binned
    group by {_KEYS}
), durations as (
    select {_KEYS}, jsonb_object_agg(second_bin::text, jobs) as durations
    from (select {_KEYS}, second_bin, count(*) as jobs from ended where second_bin is not null group by {_KEYS}, second_bin) binned
    group by {_KEYS}
)
insert into job_hours ({_KEYS}, jobs, pictures, seconds, waits, durations)
select {_KEYS}, jobs, pictures, seconds, coalesce(waits, '{{}}'), coalesce(durations, '{{}}')
from sums left join waits using ({_KEYS}) left join durations using ({_KEYS})
"""
_MOVE_ON: Final = f"update rollups set done_until = %(until)s where name = '{NAME}'"


def roll_up(connection: "psycopg.Connection[Any]") -> bool:
    """Count up to a day of hours that are over; return whether all of them are counted now."""
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_BEGIN)
        standing = cursor.execute(_STANDING).fetchone()
        if standing is None or standing["done_until"] >= standing["closed"]:
            return True
        until = standing["closed"]
        if standing["first"] is not None:
            until = min(until, standing["first"] + MOST_HOURS * _HOUR)
            cursor.execute(_COUNT, {"first": standing["first"], "until": until})
        cursor.execute(_MOVE_ON, {"until": until})
        return bool(until == standing["closed"])
