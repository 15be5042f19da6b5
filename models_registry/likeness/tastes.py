"""What people say of entries: ratings, favourites, feedback on recommendations, and how each owner wants to be advised."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from models_registry.library import VISIBLE, who
from models_registry.likeness.scores import SHARES, SOURCES, Source
from models_registry.records import Reader

_SAID: Final = """
select models.id, coalesce(marks.favourites, 0)::int as favourites, marks.rating, coalesce(marks.ratings, 0)::int as ratings,
    coalesce(feedback.helpful, 0)::int as helpful, coalesce(feedback.unhelpful, 0)::int as unhelpful
from models
left join lateral (select count(*) filter (where favourite) as favourites, avg(rating)::float8 as rating, count(rating) as ratings
    from model_marks where model = models.id) marks on true
left join lateral (select count(*) filter (where helpful > 0) as helpful, count(*) filter (where helpful < 0) as unhelpful
    from taste_feedback where model = models.id) feedback on true
where models.id = any (%(models)s)
"""
_FACTS: Final = f"""
select models.id, models.name as ref, models.model_name as name, models.version, models.kind, models.family, models.fingerprint,
    models.trigger_words, models.tags, models.weight, models.found_at
from models where models.missing_since is null and models.id = any (%(models)s) and {VISIBLE}
"""
_NEWEST: Final = f"""
select models.id from models where models.missing_since is null and models.kind = any (%(kinds)s)
    and (%(families)s::text[] is null or models.family = any (%(families)s)) and {VISIBLE}
order by models.found_at desc, models.id limit %(limit)s
"""
_SAY: Final = """
insert into taste_feedback (owner, model, about, helpful) values (%(owner)s, %(model)s, %(about)s, %(helpful)s)
on conflict (owner, model, about) do update set helpful = excluded.helpful, said_at = now()
"""
_REFUSED: Final = """
select model from taste_feedback where owner = %(owner)s and about = %(about)s and helpful < 0
"""
_PREFERENCES: Final = "select sources, hidden from taste_preferences where owner = %(owner)s"
_PREFER: Final = """
insert into taste_preferences (owner, sources, hidden) values (%(owner)s, %(sources)s, %(hidden)s)
on conflict (owner) do update set sources = excluded.sources, hidden = excluded.hidden, changed_at = now()
"""


@dataclass(frozen=True)
class Facts:
    """What a recommendation shows of an entry."""

    id: UUID
    ref: str
    name: str
    version: str
    kind: str
    family: str
    fingerprint: str
    trigger_words: Sequence[str]
    tags: Sequence[str]
    weight: float | None


@dataclass(frozen=True)
class Said:
    """What all people together say of an entry."""

    favourites: int = 0
    #: Mean of the ratings, 1 to 5.
    rating: float | None = None
    ratings: int = 0
    helpful: int = 0
    unhelpful: int = 0


@dataclass(frozen=True)
class Preferences:
    """How one owner wants to be advised."""

    shares: Mapping[Source, float] = field(default_factory=lambda: dict(SHARES))
    hidden: frozenset[UUID] = frozenset()


async def read_facts(connection: "AsyncConnection[Any]", reader: Reader, models: Collection[UUID]) -> dict[UUID, Facts]:
    """Return those of the entries that are offered and exist for the reader: the last gate before anything is recommended."""
    rows = await _rows(connection, _FACTS, {"models": list(models), **who(reader)})
    names = Facts.__dataclass_fields__
    return {row["id"]: Facts(**{name: row[name] for name in names}) for row in rows}


async def newest(
    connection: "AsyncConnection[Any]",
    reader: Reader,
    kinds: Sequence[str],
    families: Sequence[str] | None,
    limit: int,
) -> list[UUID]:
    """Return the entries that came last."""
    values = {"kinds": list(kinds), "families": None if families is None else list(families), "limit": limit}
    return [row["id"] for row in await _rows(connection, _NEWEST, values | who(reader))]


async def read_said(connection: "AsyncConnection[Any]", models: Collection[UUID]) -> dict[UUID, Said]:
    """Return what people say of entries."""
    rows = await _rows(connection, _SAID, {"models": list(models)})
    return {row.pop("id"): Said(**row) for row in rows}


async def say(connection: "AsyncConnection[Any]", owner: str, model: UUID, about: str, *, helpful: bool) -> None:
    """Keep whether a recommendation helped; said again about the same, the last word holds."""
    values = {"owner": owner, "model": model, "about": about, "helpful": 1 if helpful else -1}
    await connection.execute(_SAY, values)


async def read_refused(connection: "AsyncConnection[Any]", owner: str, about: str) -> frozenset[UUID]:
    """Return the entries of which an owner said that they did not help with this."""
    return frozenset(row["model"] for row in await _rows(connection, _REFUSED, {"owner": owner, "about": about}))


async def read_preferences(connection: "AsyncConnection[Any]", owner: str) -> Preferences:
    """Return how an owner wants to be advised."""
    rows = await _rows(connection, _PREFERENCES, {"owner": owner})
    if not rows:
        return Preferences()
    shares = {source: float(rows[0]["sources"].get(source, SHARES[source])) for source in SOURCES}
    return Preferences(shares, frozenset(rows[0]["hidden"]))


async def write_preferences(connection: "AsyncConnection[Any]", owner: str, preferences: Preferences) -> None:
    """Keep how an owner wants to be advised."""
    values = {"owner": owner, "sources": Jsonb(dict(preferences.shares)), "hidden": sorted(preferences.hidden)}
    await connection.execute(_PREFER, values)


async def _rows(connection: "AsyncConnection[Any]", statement: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, values)
        return await cursor.fetchall()
