"""Workers sign on, say that they live, and sign off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from jobs.changes import Change, present
from jobs.fleet import Fleet, Ledger, WorkerFacts, WorkerState, WorkerView
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
    version = excluded.version, state = case when workers.drain_requested_at is null then 'idle' else 'draining' end, warm = '{}',
    loads = 0, current = '{}', ledger = null, started_at = now(), seen_at = now()
"""

_INHERITED: Final = lose_statement("jobs.worker = %(name)s and jobs.worker_run <> %(run)s")

_BEAT: Final = """
update workers set state = case when drain_requested_at is null then %(state)s else 'draining' end, warm = %(warm)s, loads = %(loads)s,
    current = %(current)s, ledger = %(ledger)s, seen_at = now()
where name = %(name)s and run = %(run)s returning drain_requested_at is not null as draining
"""

_DRAIN: Final = """
update workers set drain_requested_at = coalesce(drain_requested_at, now()),
    state = case when state = 'offline' then state else 'draining' end where name = %(name)s
"""

# Its next beat says how it does.
_RESUME: Final = """
update workers set drain_requested_at = null, state = case when state = 'draining' then 'idle' else state end where name = %(name)s
"""

_SIGN_OFF: Final = """
update workers set state = 'offline', current = '{}', warm = '{}', ledger = null where name = %(name)s and run = %(run)s
"""

# Named one by one: a prepared `workers.*` fails on every open connection once a migration adds a column.
_FLEET: Final = f"""
select name, run, host, pid, device, device_name, hardware, serves, tags, tasks, queues, memory_bytes, engine, version, state, warm, loads,
    current, started_at, seen_at, drain_requested_at, ledger, {ONLINE} as online
from workers order by name
"""


@dataclass(frozen=True)
class Orders:
    """What the fleet wants of a worker."""

    #: To take no jobs until told otherwise.
    draining: bool


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
    ledger: Ledger | None = None,
) -> Orders | None:
    """Say that a worker lives and return its orders; None when another process has taken its name and it must stop."""
    values = {
        "name": name,
        "run": run,
        "state": state,
        "warm": list(warm),
        "loads": loads,
        "current": list(current),
        "ledger": None if ledger is None else Jsonb(ledger.model_dump()),
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_BEAT, values).fetchone()
    return None if row is None else Orders(row["draining"])


async def drain(connection: "psycopg.AsyncConnection[Any]", name: str) -> bool:
    """Ask a worker to take no jobs until it is told to resume, also after a restart; return whether there is such a worker."""
    return (await connection.execute(_DRAIN, {"name": name})).rowcount == 1


async def resume(connection: "psycopg.AsyncConnection[Any]", name: str) -> bool:
    """Let a worker take jobs again; return whether there is such a worker."""
    return (await connection.execute(_RESUME, {"name": name})).rowcount == 1


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
