"""Look-ups of entries that are here: whose, how far, what CivitAI said; statements of the API and of the keeper."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field

from models_registry.pulls.plans import Facts
from models_registry.pulls.queue import LEASE_SECONDS, Lost
from models_registry.pulls.states import State

#: How long an answer counts, and how long it does that a file is unknown: somebody may publish it tomorrow.
KNOWN_FOR: Final = timedelta(days=30)
UNKNOWN_FOR: Final = timedelta(days=3)
_BATCH: Final = 1000

_COLUMNS: Final = (
    "id, owner, state, total, done, found, changed, error_code, error_message, created_at, finished_at, available_at"
)
# Whoever may change an entry may have it looked up.
_ADD: Final = f"""
with chosen as (
    select id from models where missing_since is null and (%(all)s or owner = %(owner)s)
        and (%(ids)s::uuid[] is null or id = any (%(ids)s))
    order by found_at, id
)
insert into library_lookups (id, owner, entries, total)
select %(id)s, %(owner)s, coalesce((select jsonb_agg(id) from chosen), '[]'), (select count(*) from chosen)
returning {_COLUMNS}
"""
_READ: Final = (
    f"select {_COLUMNS} from library_lookups where id = %(id)s and (%(owner)s::text is null or owner = %(owner)s)"
)
_CLAIM: Final = """
update library_lookups set state = 'running', epoch = epoch + 1, error_code = null, error_message = null,
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
where id = (
    select id from library_lookups
    where state in ('queued', 'running') and available_at <= now() and (state = 'queued' or lease_until < clock_timestamp())
    order by available_at, id limit 1 for update skip locked)
returning id, entries, epoch, delays
"""
_HELD: Final = "where id = %(id)s and epoch = %(epoch)s and state = 'running'"
_ADVANCE: Final = f"""
update library_lookups set entries = %(entries)s, done = total - %(left)s, found = found + %(found)s, changed = changed + %(changed)s,
    delays = 0, lease_until = clock_timestamp() + make_interval(secs => %(lease)s) {_HELD} returning id
"""
_RENEW: Final = f"""
update library_lookups set lease_until = clock_timestamp() + make_interval(secs => %(lease)s) {_HELD} returning id
"""
_END: Final = f"""
update library_lookups set state = %(state)s, lease_until = null, finished_at = clock_timestamp(), error_code = %(code)s,
    error_message = %(message)s {_HELD} returning id
"""
_PUT_OFF: Final = f"""
update library_lookups set state = 'queued', lease_until = null, delays = delays + 1, error_code = %(code)s, error_message = %(message)s,
    available_at = clock_timestamp() + make_interval(secs => %(seconds)s) {_HELD} returning id
"""
_HASHES: Final = "select id, sha256 from models where id = any (%(ids)s) and sha256 is not null and layout = 'file'"
_ANSWERS: Final = "select sha256, facts from civitai_answers where sha256 = any (%(digests)s) and expires_at > now()"
_KEEP: Final = """
insert into civitai_answers (sha256, facts, expires_at) values (%(sha256)s, %(facts)s, now() + %(lives)s)
on conflict (sha256) do update set facts = excluded.facts, expires_at = excluded.expires_at, asked_at = now()
"""
# What people wrote stays.
_DESCRIBE: Final = """
update models set changed_at = now(),
    description = case when description = '' then %(description)s else description end,
    licence = case when licence = '' then %(licence)s else licence end,
    source = case when source = '' then %(source)s else source end,
    base_model = case when base_model = '' then %(base_model)s else base_model end,
    tags = case when tags = '{}' then %(tags)s else tags end,
    trigger_words = case when trigger_words = '{}' then %(trigger_words)s else trigger_words end
where id = %(id)s and (description = '' and %(description)s <> '' or licence = '' and %(licence)s <> ''
    or source = '' and %(source)s <> '' or base_model = '' and %(base_model)s <> ''
    or tags = '{}' and %(tags)s <> '{}'::text[] or trigger_words = '{}' and %(trigger_words)s <> '{}'::text[])
returning id
"""
_RETIRE: Final = f"""
with old as (
    delete from library_lookups where id in (
        select id from library_lookups where finished_at < now() - make_interval(days => 1) * %(days)s limit {_BATCH})
)
delete from civitai_answers where sha256 in (select sha256 from civitai_answers where expires_at < now() limit {_BATCH})
"""


class Lookup(BaseModel):
    """Entries that are looked up, and how far that is."""

    id: UUID
    owner: str
    state: State
    total: int = Field(description="Entries to look up.")
    done: int
    found: int = Field(description="Entries that CivitAI knows.")
    changed: int = Field(description="Entries of which something was written down.")
    error_code: str | None = Field(description="Why it failed, or why it waits.")
    error_message: str | None
    created_at: datetime
    finished_at: datetime | None
    available_at: datetime = Field(description="A waiting one is tried then.")


@dataclass(frozen=True)
class ClaimedLookup:
    """A look-up that this process may work on while its lease lives."""

    id: UUID
    #: Still to be looked at.
    entries: tuple[UUID, ...]
    epoch: int
    delays: int


async def add_lookup(
    connection: "AsyncConnection[Any]", identity: UUID, owner: str, *, everyones: bool, entries: Collection[UUID] | None
) -> Lookup:
    """Queue a look-up of an owner's entries, or with `everyones` of anyone's; of all of them, or of those named."""
    ids = None if entries is None else list(entries)
    values = {"id": identity, "owner": owner, "all": everyones, "ids": ids}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_ADD, values)
        return Lookup.model_validate(await cursor.fetchone())


async def read_lookup(connection: "AsyncConnection[Any]", owner: str | None, identity: UUID) -> Lookup | None:
    """Return one look-up of an owner (None: of anyone), or None."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_READ, {"id": identity, "owner": owner})
        row = await cursor.fetchone()
    return None if row is None else Lookup.model_validate(row)


def claim_lookup(connection: "Connection[Any]") -> ClaimedLookup | None:
    """Take the look-up that waits longest, or one whose keeper has died; None when there is none."""
    row = _one(connection, _CLAIM, {"lease": LEASE_SECONDS})
    if row is None:
        return None
    return ClaimedLookup(row["id"], tuple(UUID(each) for each in row["entries"]), row["epoch"], row["delays"])


def renew_lookup(connection: "Connection[Any]", held: ClaimedLookup) -> None:
    """Hold a look-up for another lease; raise `Lost`."""
    _write(connection, _RENEW, held, lease=LEASE_SECONDS)


def advance_lookup(
    connection: "Connection[Any]", held: ClaimedLookup, left: Sequence[UUID], *, found: int, changed: int
) -> None:
    """Record what is left, and what came of the entries before it; raise `Lost`."""
    entries = Jsonb([str(each) for each in left])
    values = {"entries": entries, "left": len(left), "found": found, "changed": changed, "lease": LEASE_SECONDS}
    _write(connection, _ADVANCE, held, **values)


def end_lookup(connection: "Connection[Any]", held: ClaimedLookup, code: str | None = None, message: str = "") -> None:
    """End a look-up, with a code as failed; raise `Lost`."""
    state = State.SUCCEEDED if code is None else State.FAILED
    _write(connection, _END, held, state=state.value, code=code, message=message or None)


def put_off_lookup(connection: "Connection[Any]", held: ClaimedLookup, seconds: float, code: str, message: str) -> None:
    """Let a look-up wait for so long; raise `Lost`."""
    _write(connection, _PUT_OFF, held, seconds=seconds, code=code, message=message)


def hashes_of(connection: "Connection[Any]", ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the SHA-256 of those entries that are one file whose hash is known."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row["id"]: row["sha256"] for row in cursor.execute(_HASHES, {"ids": list(ids)}).fetchall()}


def kept_answers(connection: "Connection[Any]", digests: Collection[str]) -> dict[str, Facts | None]:
    """Return what is known of files without asking; None for those that CivitAI is known not to have."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_ANSWERS, {"digests": list(digests)}).fetchall()
    return {row["sha256"]: None if row["facts"] is None else Facts.model_validate(row["facts"]) for row in rows}


def keep_answers(connection: "Connection[Any]", answers: Mapping[str, Facts | None]) -> None:
    """Remember what CivitAI said, also that it has nothing."""
    rows = [
        {
            "sha256": sha256,
            "facts": None if facts is None else Jsonb(facts.model_dump(mode="json")),
            "lives": UNKNOWN_FOR if facts is None else KNOWN_FOR,
        }
        # In one order: two look-ups must not wait for each other.
        for sha256, facts in sorted(answers.items())
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_KEEP, rows)


def describe(connection: "Connection[Any]", identity: UUID, facts: Facts) -> bool:
    """Write down what a source says of an entry, where nobody wrote anything; return whether anything was written."""
    values = facts.model_dump(exclude={"previews"}) | {"id": identity}
    values |= {name: list(values[name]) for name in ("tags", "trigger_words")}
    return _one(connection, _DESCRIBE, values) is not None


def retire_lookups(connection: "Connection[Any]", days: float) -> None:
    """Delete look-ups that ended more than `days` ago, and answers that count no more."""
    connection.execute(_RETIRE, {"days": days})


def _one(connection: "Connection[Any]", statement: str, values: Mapping[str, Any]) -> dict[str, Any] | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchone()


def _write(connection: "Connection[Any]", statement: str, held: ClaimedLookup, **values: Any) -> None:
    if _one(connection, statement, {"id": held.id, "epoch": held.epoch, **values}) is None:
        raise Lost
