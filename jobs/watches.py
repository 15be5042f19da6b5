"""Synchronous jobs: who waits for their answer, and which of them nobody waits for any more.

A client that holds a connection open for a job *watches* it. When it hangs up, the same request sent again within a while joins the job;
after that while the job is cancelled, unless it was to be kept. All times are the database's, so several API processes agree, and one
that was killed counts as one that fell silent.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from infra.advisory_locks import EQUAL_REQUESTS
from jobs.changes import Change
from jobs.control import cancel

#: How often a process says whom it serves, and after how long without a word it counts as gone, seconds.
BEAT_SECONDS: Final = 4.0
SILENCE_SECONDS: Final = 12.0

_BEGIN: Final = """insert into watches (job, fingerprint, keep) values (%(job)s, %(fingerprint)s, %(keep)s)
on conflict (job) do update set waiting = true, seen_at = now(), keep = watches.keep or excluded.keep"""

# Two that come back at once never take the same row: the second one makes a job of its own.
_JOIN: Final = """
update watches set waiting = true, seen_at = now() where job = (
    select watches.job from watches join jobs on jobs.id = watches.job
    where watches.fingerprint = %(fingerprint)s and jobs.owner = %(owner)s and jobs.cancel_requested_at is null
        and jobs.state in ('queued', 'running', 'succeeded')
        and case when watches.waiting then %(again)s or watches.seen_at < now() - make_interval(secs => %(silence)s)
            and watches.seen_at > now() - make_interval(secs => %(silence)s + %(grace)s)
            else watches.seen_at > now() - make_interval(secs => %(grace)s) end
    order by watches.waiting, watches.job desc limit 1 for update of watches skip locked
) returning job
"""

_TURN: Final = "select pg_advisory_xact_lock(%(requests)s, hashtext(%(fingerprint)s))"
_RENEW: Final = """update watches set seen_at = now(), waiting = waiting or job = any (%(waiting)s)
where job = any (%(watched)s)"""
_LEAVE: Final = "update watches set waiting = false, seen_at = now() where job = %(job)s"
_FORGET: Final = "delete from watches where job = any (%(jobs)s)"

_LAPSED: Final = """
delete from watches where case when waiting then seen_at < now() - make_interval(secs => %(silence)s + %(grace)s)
    else seen_at < now() - make_interval(secs => %(grace)s) end
returning job, keep
"""


async def take_turn(connection: "psycopg.AsyncConnection[Any]", fingerprint: str) -> None:
    """Let the caller's transaction hold what equal requests hold in turn, so that a second try sees what the first one stores."""
    await connection.execute(_TURN, {"requests": EQUAL_REQUESTS, "fingerprint": fingerprint})


async def begin(connection: "psycopg.AsyncConnection[Any]", job: UUID, fingerprint: str, *, keep: bool) -> None:
    """Write down that a caller waits for a job."""
    await connection.execute(_BEGIN, {"job": job, "fingerprint": fingerprint, "keep": keep})


async def join(
    connection: "psycopg.AsyncConnection[Any]", owner: str, fingerprint: str, grace_seconds: float, *, again: bool
) -> UUID | None:
    """Return the job that this owner's same request left behind within the grace, and wait for it again; None for none.

    With `again` the caller says that it has sent the request before: a job that seems to be waited for is then its own.
    """
    values = {
        "owner": owner,
        "fingerprint": fingerprint,
        "grace": grace_seconds,
        "silence": SILENCE_SECONDS,
        "again": again,
    }
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(_JOIN, values)
        found = await cursor.fetchone()
    return None if found is None else found[0]


async def renew(connection: "psycopg.AsyncConnection[Any]", watched: Sequence[UUID], waiting: Sequence[UUID]) -> None:
    """Say that these jobs are watched, and for which of them a caller waits."""
    await connection.execute(_RENEW, {"watched": list(watched), "waiting": list(waiting)})


async def leave(connection: "psycopg.AsyncConnection[Any]", job: UUID) -> None:
    """Write down that the last caller of this process hung up."""
    await connection.execute(_LEAVE, {"job": job})


async def forget(connection: "psycopg.AsyncConnection[Any]", jobs: Sequence[UUID]) -> None:
    """Forget jobs whose callers have their answer."""
    await connection.execute(_FORGET, {"jobs": list(jobs)})


async def cancel_lapsed(connection: "psycopg.AsyncConnection[Any]", grace_seconds: float) -> list[Change]:
    """Cancel what nobody has watched for the grace, unless it is to be kept; return the changes to announce."""
    changes: list[Change] = []
    async with connection.transaction():
        async with connection.cursor(row_factory=tuple_row) as cursor:
            await cursor.execute(_LAPSED, {"grace": grace_seconds, "silence": SILENCE_SECONDS})
            lapsed = await cursor.fetchall()
        for job, keep in lapsed:
            done = None if keep else await cancel(connection, None, job)
            if done is not None and done[1] is not None:
                changes.append(done[1])
    return changes
