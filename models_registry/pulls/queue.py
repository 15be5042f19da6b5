"""The queue of downloads as a keeper sees it: claim one, hold it by a lease, put it off, end it.

Every write carries the epoch it was claimed with and is refused once somebody else has taken the download over, or a person has paused or
cancelled it: that is how the one who fetches hears of it.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from models_registry.pulls.orders import Order
from models_registry.pulls.plans import Plan

#: A keeper that has not renewed for so long has died, seconds.
LEASE_SECONDS: Final = 30.0
#: Tries without a new byte.
MOST_DELAYS: Final = 10
#: Rows one sweep deletes.
_BATCH: Final = 1000

_CLAIM: Final = """
update downloads set state = 'running', epoch = epoch + 1, started_at = coalesce(started_at, now()), error_code = null,
    error_message = null, lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
where id = (
    select id from downloads
    where state in ('queued', 'running') and available_at <= now() and (state = 'queued' or lease_until < clock_timestamp())
    order by available_at, id limit 1 for update skip locked)
returning id, owner, source, request, plan, epoch, delays, bytes_done
"""
_HELD: Final = "where id = %(id)s and epoch = %(epoch)s and state = 'running'"
_RENEW: Final = f"""
update downloads set lease_until = clock_timestamp() + make_interval(secs => %(lease)s), bytes_done = %(done)s,
    delays = case when %(done)s > bytes_done then 0 else delays end {_HELD} returning id
"""
_PLAN: Final = f"update downloads set plan = %(plan)s, bytes_total = %(total)s {_HELD} returning id"
_PUT_OFF: Final = f"""
update downloads set state = 'queued', lease_until = null, available_at = clock_timestamp() + make_interval(secs => %(seconds)s),
    delays = delays + 1, error_code = %(code)s, error_message = %(message)s {_HELD} returning id
"""
_FAIL: Final = f"""
update downloads set state = 'failed', lease_until = null, finished_at = clock_timestamp(), error_code = %(code)s,
    error_message = %(message)s {_HELD} returning id
"""
_SUCCEED: Final = f"""
update downloads set state = 'succeeded', lease_until = null, finished_at = clock_timestamp(), model = %(model)s,
    bytes_total = bytes_done, error_code = null, error_message = null {_HELD} returning id
"""
_KEPT: Final = """
select id from downloads where id = any (%(ids)s)
    and (state in ('queued', 'running', 'paused') or (state = 'failed' and finished_at > now() - interval '24 hours'))
"""
_RETIRE: Final = f"""
delete from downloads where id in (
    select id from downloads where finished_at < now() - make_interval(days => 1) * %(days)s limit {_BATCH})
"""


@dataclass(frozen=True)
class Claimed:
    """A download that this process may work on while its lease lives."""

    id: UUID
    owner: str
    source: str
    order: Order
    plan: Plan | None
    epoch: int
    delays: int


class Lost(Exception):
    """The download is not this process's any more: paused, cancelled, or taken over."""


def claim(connection: "Connection[Any]") -> Claimed | None:
    """Take the download that waits longest, or one whose keeper has died; None when there is none."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_CLAIM, {"lease": LEASE_SECONDS}).fetchone()
    if row is None:
        return None
    return Claimed(
        row["id"],
        row["owner"],
        row["source"],
        Order.model_validate(row["request"]),
        None if row["plan"] is None else Plan.model_validate(row["plan"]),
        row["epoch"],
        row["delays"],
    )


def renew(connection: "Connection[Any]", held: Claimed, done: int) -> None:
    """Hold a download for another lease and say how many bytes there are; raise `Lost`."""
    _write(connection, _RENEW, held, done=done, lease=LEASE_SECONDS)


def write_plan(connection: "Connection[Any]", held: Claimed, plan: Plan) -> None:
    """Record what is to be fetched; raise `Lost`."""
    _write(connection, _PLAN, held, plan=Jsonb(plan.model_dump(mode="json")), total=plan.bytes)


def put_off(connection: "Connection[Any]", held: Claimed, seconds: float, code: str, message: str) -> None:
    """Let a download wait for so long; raise `Lost`."""
    _write(connection, _PUT_OFF, held, seconds=seconds, code=code, message=message)


def fail(connection: "Connection[Any]", held: Claimed, code: str, message: str) -> None:
    """End a download that cannot succeed; raise `Lost`."""
    _write(connection, _FAIL, held, code=code, message=message)


def succeed(connection: "Connection[Any]", held: Claimed, model: UUID) -> None:
    """End a download that became an entry; raise `Lost`."""
    _write(connection, _SUCCEED, held, model=model)


def kept(connection: "Connection[Any]", ids: list[UUID]) -> frozenset[UUID]:
    """Return those of the downloads whose bytes are still needed on the disk."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return frozenset(row["id"] for row in cursor.execute(_KEPT, {"ids": ids}).fetchall())


def retire(connection: "Connection[Any]", days: float) -> int:
    """Delete a batch of downloads that ended more than `days` ago, and return how many."""
    return connection.execute(_RETIRE, {"days": days}).rowcount


def identity_of(name: str) -> UUID | None:
    """Return the download whose folder has this name; None for any other name."""
    try:
        found = UUID(name)
    except ValueError:
        return None
    return found if str(found) == name else None


def _write(connection: "Connection[Any]", statement: str, held: Claimed, **values: Any) -> None:
    if connection.execute(statement, {"id": held.id, "epoch": held.epoch, **values}).fetchone() is None:
        raise Lost
