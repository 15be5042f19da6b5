"""Workers sign on, say that they live, and sign off."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from jobs.changes import Change, present
from jobs.fleet import Fleet, WorkerFacts, WorkerState, WorkerView
from jobs.store import lose_statement

#: A worker counts as online while it was heard of within this time, seconds; it beats about every second.
ONLINE_SECONDS: Final = 10
ONLINE: Final = f"(workers.state <> 'offline' and workers.seen_at > now() - make_interval(secs => {ONLINE_SECONDS}))"

_REGISTER: Final = """
insert into workers (name, run, host, pid, device, device_name, hardware, serves, tags, tasks, queues, memory_bytes, engine, version, state,
    warm, loads, current, started_at, seen_at)
values (%(name)s, %(run)s, %(host)s, %(pid)s, %(device)s, %(device_name)s, %(hardware)s, %(serves)s, %(tags)s, %(tasks)s, %(queues)s,
    %(memory_bytes)s, %(engine)s, %(version)s, 'idle', '{}', 0, '{}', now(), now())
on conflict (name) do update set run = excluded.run, host = excluded.host, pid = excluded.pid, device = excluded.device,
    device_name = excluded.device_name, hardware = excluded.hardware, serves = excluded.serves, tags = excluded.tags,
    tasks = excluded.tasks, queues = excluded.queues, memory_bytes = excluded.memory_bytes, engine = excluded.engine,
    version = excluded.version, state = 'idle', warm = '{}', loads = 0, current = '{}', started_at = now(), seen_at = now()
"""

_INHERITED: Final = lose_statement("jobs.worker = %(name)s and jobs.worker_run <> %(run)s")

_BEAT: Final = """
update workers set state = %(state)s, warm = %(warm)s, loads = %(loads)s, current = %(current)s, seen_at = now()
where name = %(name)s and run = %(run)s returning name
"""

_SIGN_OFF: Final = (
    "update workers set state = 'offline', current = '{}', warm = '{}' where name = %(name)s and run = %(run)s"
)

# Named one by one: a prepared `workers.*` fails on every open connection once a migration adds a column.
_FLEET: Final = f"""
select name, run, host, pid, device, device_name, hardware, serves, tags, tasks, queues, memory_bytes, engine, version, state, warm, loads,
    current, started_at, seen_at, {ONLINE} as online
from workers order by name
"""


def register(connection: "psycopg.Connection[Any]", facts: WorkerFacts) -> list[Change]:
    """Sign a worker on; jobs that an earlier life of the same name still ran are lost by it at once, and returned."""
    values = {
        **facts.model_dump(),
        **{name: list(getattr(facts, name)) for name in ("serves", "tags", "tasks", "queues")},
    }
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_REGISTER, values)
        cursor.execute(_INHERITED, {"name": facts.name, "run": facts.run, "reason": "worker_restarted"})
        return [present(row) for row in cursor.fetchall()]


def beat(
    connection: "psycopg.Connection[Any]",
    name: str,
    run: UUID,
    *,
    state: WorkerState,
    warm: Sequence[str],
    loads: int,
    current: Sequence[UUID],
) -> bool:
    """Say that a worker lives; False when another process has taken its name and it must stop."""
    values = {"name": name, "run": run, "state": state, "warm": list(warm), "loads": loads, "current": list(current)}
    with connection.cursor() as cursor:
        return cursor.execute(_BEAT, values).fetchone() is not None


def sign_off(connection: "psycopg.Connection[Any]", name: str, run: UUID) -> None:
    """Say that a worker is gone on purpose."""
    connection.execute(_SIGN_OFF, {"name": name, "run": run})


async def fleet(connection: "psycopg.AsyncConnection[Any]") -> Fleet:
    """Return every known worker."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_FLEET)
        return _fleet(await cursor.fetchall())


def fleet_now(connection: "psycopg.Connection[Any]") -> Fleet:
    """Return every known worker."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return _fleet(cursor.execute(_FLEET).fetchall())


def _fleet(rows: Sequence[dict[str, Any]]) -> Fleet:
    return Fleet(workers=tuple(WorkerView.model_validate(row) for row in rows))
