"""What jobs did with entries: noted with what happened, counted once by the keeper, kept when the jobs are gone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.rows import dict_row, tuple_row
from pydantic import BaseModel, Field

#: Notes one statement counts at most.
BATCH: Final = 1000
#: Weights are counted in steps of this.
WEIGHT_STEP: Final = 0.05
#: Of an entry's weights, the shares below and above which the rest lies.
_LOW, _HIGH = 0.1, 0.9

# Rows are written in one order, so that two counters never wait for each other. A name is looked up when it is counted: the entry of a
# deleted name counts no more, a renamed one was noted under the name it had.
_COUNT: Final = f"""
with taken as materialized (
    delete from usage_notes where id in (select id from usage_notes order by id limit {BATCH} for update skip locked)
    returning id, owner, what, pictures, seconds, used, at
), used as materialized (
    select distinct on (taken.id, models.id) taken.*, models.id as model, models.kind, named.weight
    from taken cross join lateral jsonb_to_recordset(taken.used) named (kind text, name text, weight float8)
    join models on models.kind = named.kind and models.name = named.name order by taken.id, models.id, named.weight
), counted as (
    insert into model_usage as mine (model, owner, uses, failures, seconds, pictures, deleted, downloaded, repeated, last_at)
    select model, owner, count(*) filter (where what in ('succeeded', 'failed')), count(*) filter (where what = 'failed'),
        coalesce(sum(seconds) filter (where what = 'succeeded'), 0), coalesce(sum(pictures) filter (where what = 'succeeded'), 0),
        coalesce(sum(pictures) filter (where what = 'deleted'), 0), coalesce(sum(pictures) filter (where what = 'downloaded'), 0),
        count(*) filter (where what = 'repeated'), max(at) filter (where what in ('succeeded', 'failed'))
    from used group by model, owner order by model, owner
    on conflict (model, owner) do update set uses = mine.uses + excluded.uses, failures = mine.failures + excluded.failures,
        seconds = mine.seconds + excluded.seconds, pictures = mine.pictures + excluded.pictures, deleted = mine.deleted + excluded.deleted,
        downloaded = mine.downloaded + excluded.downloaded, repeated = mine.repeated + excluded.repeated,
        last_at = greatest(mine.last_at, excluded.last_at)
), weighed as (
    insert into model_usage_weights as mine (model, owner, weight, uses)
    select model, owner, round((weight / {WEIGHT_STEP})::numeric) * {WEIGHT_STEP}, count(*) from used
    where what = 'succeeded' and weight is not null group by 1, 2, 3 order by 1, 2, 3
    on conflict (model, owner, weight) do update set uses = mine.uses + excluded.uses
), paired as (
    insert into model_pairs as mine (one, other, owner, uses)
    select a.model, b.model, a.owner, count(*) from used a join used b on b.id = a.id and a.model < b.model
    where a.what = 'succeeded' and a.kind = 'lora' and b.kind = 'lora' group by 1, 2, 3 order by 1, 2, 3
    on conflict (one, other, owner) do update set uses = mine.uses + excluded.uses
)
select count(*) from taken
"""

_NOTE: Final = """
insert into usage_notes (owner, what, pictures, used)
select owner, %(what)s, 1, job_uses(task, request) from jobs
where id = %(job)s and (%(owner)s::text is null or owner = %(owner)s) and task <> 'analyse'
"""

_SUMS: Final = """
select model, sum(uses)::bigint as uses, sum(failures)::bigint as failures, sum(seconds) as seconds, sum(pictures)::bigint as pictures,
    sum(deleted)::bigint as deleted, sum(downloaded)::bigint as downloaded, sum(repeated)::bigint as repeated,
    count(*)::int as owners, max(last_at) as last_at
from model_usage where model = any (%(models)s) and (%(owner)s::text is null or owner = %(owner)s) group by model
"""
_WEIGHTS: Final = """
select model, weight::float8 as weight, sum(uses)::bigint as uses from model_usage_weights
where model = any (%(models)s) and (%(owner)s::text is null or owner = %(owner)s) group by model, weight order by model, weight
"""
_PAIRS: Final = """
select case when one = %(model)s then other else one end as model, sum(uses)::bigint as uses from model_pairs
where one = %(model)s or other = %(model)s group by 1 order by uses desc, 1 limit %(limit)s
"""
_MOST_USED: Final = """
select model from model_usage join models on models.id = model_usage.model
where models.missing_since is null and models.kind = any (%(kinds)s)
    and (%(families)s::text[] is null or models.family = any (%(families)s))
group by model order by sum(uses) desc, model limit %(limit)s
"""

Noted = Literal["downloaded", "repeated"]


class TypicalWeights(BaseModel):
    """At which weights an entry was used."""

    median: float
    low: float = Field(description="A tenth of the uses lies below.")
    high: float = Field(description="A tenth of the uses lies above.")


class Usage(BaseModel):
    """What jobs did with an entry."""

    uses: int = Field(default=0, description="Jobs that have ended with it, failed ones too.")
    failures: int = 0
    failure_share: float = Field(default=0.0, description="Of its uses, 0 to 1.")
    mean_seconds: float | None = Field(default=None, description="Of the jobs that succeeded.")
    pictures: int = Field(default=0, description="Pictures drawn with it.")
    deleted: int = Field(default=0, description="Of these, deleted by people; retention does not count.")
    downloaded: int = 0
    repeated: int = Field(default=0, description="Jobs with it that were drawn again.")
    last_used_at: datetime | None = None
    weights: TypicalWeights | None = None


@dataclass(frozen=True)
class Counted:
    """An entry's usage, and by how many owners."""

    usage: Usage
    owners: int


UNUSED: Final = Counted(Usage(), 0)


def count_usage(connection: "psycopg.Connection[Any]") -> int:
    """Count a batch of notes, each once however often this is cut short, and return how many."""
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute(_COUNT).fetchone()
    return 0 if row is None else int(row[0])


async def note(connection: "psycopg.AsyncConnection[Any]", owner: str | None, job: UUID, what: Noted) -> None:
    """Note that somebody did something with a job's pictures."""
    await connection.execute(_NOTE, {"owner": owner, "job": job, "what": what})


async def read_usage(
    connection: "psycopg.AsyncConnection[Any]", models: Sequence[UUID], owner: str | None = None
) -> Mapping[UUID, Counted]:
    """Return the usage of those entries that were used, by one owner or by all."""
    values = {"models": list(models), "owner": owner}
    weights: dict[UUID, list[tuple[float, int]]] = {}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_WEIGHTS, values)
        for row in await cursor.fetchall():
            weights.setdefault(row["model"], []).append((row["weight"], row["uses"]))
        await cursor.execute(_SUMS, values)
        rows = await cursor.fetchall()
    return {row["model"]: Counted(_usage(row, weights.get(row["model"], [])), row["owners"]) for row in rows}


async def read_pairs(connection: "psycopg.AsyncConnection[Any]", model: UUID, limit: int) -> dict[UUID, int]:
    """Return which LoRAs were used together with one, and how often."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_PAIRS, {"model": model, "limit": limit})
        return {row["model"]: row["uses"] for row in await cursor.fetchall()}


async def most_used(
    connection: "psycopg.AsyncConnection[Any]", kinds: Sequence[str], families: Sequence[str] | None, limit: int
) -> list[UUID]:
    """Return the entries that were used most, whoever may see them."""
    values = {"kinds": list(kinds), "families": None if families is None else list(families), "limit": limit}
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_MOST_USED, values)
        return [row["model"] for row in await cursor.fetchall()]


def _usage(row: Mapping[str, Any], weights: Sequence[tuple[float, int]]) -> Usage:
    succeeded = row["uses"] - row["failures"]
    return Usage(
        uses=row["uses"],
        failures=row["failures"],
        failure_share=row["failures"] / row["uses"] if row["uses"] else 0.0,
        mean_seconds=row["seconds"] / succeeded if succeeded else None,
        pictures=row["pictures"],
        deleted=row["deleted"],
        downloaded=row["downloaded"],
        repeated=row["repeated"],
        last_used_at=row["last_at"],
        weights=typical(weights),
    )


def typical(weights: Sequence[tuple[float, int]]) -> TypicalWeights | None:
    """Return the middle and the edges of weights with how often each was used, in rising order; None where there are none."""
    whole = sum(uses for _, uses in weights)
    if not whole:
        return None

    def at(share: float) -> float:
        passed = 0
        for weight, uses in weights:
            passed += uses
            if passed >= share * whole:
                return weight
        return weights[-1][0]

    return TypicalWeights(median=at(0.5), low=at(_LOW), high=at(_HIGH))
