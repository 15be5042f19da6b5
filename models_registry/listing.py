"""Look through the library: words, filters, orders, pages; and count its tags.

Only what is asked for is part of a statement, so that the indexes serve it. A page begins behind the last entry of the page before, never
at an offset.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from models_registry.entries import Kind
from models_registry.library import COLUMNS, MARKED, VISIBLE, entry_of, who
from models_registry.records import Entry, Reader

#: Of what a frequent word finds, so many entries are ranked.
RANKED: Final = 2000
MOST_WORDS: Final = 16
_WORDS: Final = re.compile(r"[^\W_]+")


#: What a cursor holds must be what a column can hold, whoever wrote the cursor.
_Stored = Annotated[str, Field(pattern=r"\A[^\x00]*\z")]
_Count = Annotated[int, Field(ge=0, le=2**62)]
Found = TypeVar("Found", bound=BaseModel)


class Order(StrEnum):
    """Name what entries are sorted by."""

    NAME = "name"
    CREATED = "created"
    UPDATED = "updated"
    SIZE = "size"
    RATING = "rating"
    RELEVANCE = "relevance"


@dataclass(frozen=True)
class Ordering:
    """How an order is written in SQL; `id` decides between equals."""

    name: str
    expression: str
    type: str
    #: What a cursor holds of it.
    value: TypeAdapter[Any]
    falls: bool
    #: Beside `models` in a `from`: what the expression is about, with a row for every entry.
    join: str = ""
    #: The entry's id, where the index of the expression has it.
    id: str = "models.id"


_ORDERINGS: Final[Mapping[Order, Ordering]] = {
    Order(each.name): each
    for each in (
        Ordering("name", "lower(models.name)", "text", TypeAdapter(_Stored), falls=False),
        Ordering("created", "models.found_at", "timestamptz", TypeAdapter(datetime), falls=True),
        Ordering("updated", "models.changed_at", "timestamptz", TypeAdapter(datetime), falls=True),
        Ordering("size", "models.weight_bytes", "bigint", TypeAdapter(_Count), falls=True),
        Ordering("rating", "coalesce(marks.rating, 0)", "int", TypeAdapter(_Count), falls=True),
        Ordering(
            "relevance", "ts_rank(models.search, to_tsquery('simple', %(words)s))::float8", "float8", TypeAdapter(float), falls=True
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Which entries to look for; what is None does not matter."""

    kinds: tuple[Kind, ...]
    #: All of them, the beginnings of words are enough.
    text: str | None = None
    families: tuple[str, ...] | None = None
    base_model: str | None = None
    #: All of them.
    tags: tuple[str, ...] | None = None
    added_by: str | None = None
    favourite: bool | None = None
    active: bool | None = None
    #: At least.
    rating: int | None = None
    #: Those whose files are away, or those whose files are here.
    missing: bool | None = False
    previewed: bool | None = None


_FILTERS: Final[Mapping[str, str]] = {
    "families": "models.family = any (%(families)s)",
    "base_model": "lower(models.base_model) = lower(%(base_model)s)",
    "tags": "models.tags @> %(tags)s",
    "added_by": "models.owner = %(added_by)s",
    "rating": "marks.rating >= %(rating)s",
}
_SWITCHES: Final[Mapping[str, tuple[str, str]]] = {
    "favourite": ("marks.favourite", "marks.favourite is not true"),
    "active": ("marks.active", "marks.active is not true"),
    "missing": ("models.missing_since is not null", "models.missing_since is null"),
    "previewed": (
        "exists (select from model_previews where model = models.id)",
        "not exists (select from model_previews where model = models.id)",
    ),
}
_MATCHES: Final = "models.search @@ to_tsquery('simple', %(words)s)"

_TAGS: Final = """
select tag, count(*)::int as count from models cross join lateral unnest(models.tags) tag
where models.kind = any (%(kinds)s) and models.missing_since is null and {visible} and starts_with(tag, %(start)s)
group by tag having %(after)s::text is null or (-count(*), tag) > (-%(after_count)s::bigint, %(after)s)
order by count(*) desc, tag limit %(limit)s
"""


class PageInvalid(ValueError):
    """The cursor is not one that this list, in this order, gave out."""


class Cursor(BaseModel):
    """Where a page ended: by what it was sorted, and its last entry."""

    order: str
    falls: bool
    value: Any
    id: UUID


class TagCount(BaseModel):
    """One tag, and how many entries have it."""

    tag: str
    count: int


class _TagCursor(BaseModel):
    tag: _Stored
    count: _Count


async def list_entries(
    connection: "AsyncConnection[Any]",
    wanted: Wanted,
    *,
    reader: Reader,
    order: Order | Ordering | None = None,
    falls: bool | None = None,
    cursor: str | None = None,
    limit: int = 100,
) -> tuple[list[Entry], str | None]:
    """Return a page of entries and the cursor of the next one; raise `PageInvalid`. An `Ordering` is one that the caller knows of.

    By default what was searched for is ordered by how well it matches, anything else by age, the oldest first.
    """
    statement, values, key, down = page_statement(wanted, order=order, falls=falls, cursor=cursor)
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(statement, {**values, **who(reader), "limit": limit + 1})
        rows = await opened.fetchall()
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = encode(Cursor(order=key.name, falls=down, value=last["sorted_by"], id=last["id"]))
    return [entry_of({name: row[name] for name in row if name != "sorted_by"}) for row in rows[:limit]], following


async def list_refs(
    connection: "AsyncConnection[Any]",
    wanted: Wanted,
    *,
    reader: Reader,
    order: Order | Ordering | None = None,
    falls: bool | None = None,
    limit: int,
) -> list[str]:
    """Return what jobs call the entries that are wanted, in the order of their list, but of no more than `limit`."""
    statement, values, _, _ = page_statement(wanted, order=order, falls=falls, columns="models.name as ref")
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(statement, {**values, **who(reader), "limit": limit})
        return [row["ref"] for row in await opened.fetchall()]


async def matching(connection: "AsyncConnection[Any]", wanted: Wanted, *, reader: Reader, limit: int) -> list[UUID]:
    """Return the ids of all entries that are wanted, by name, but of no more than `limit`."""
    words = search_words(wanted.text)
    conditions, values = _conditions(wanted, words)
    statement = f"""select models.id from models {MARKED} where {" and ".join(conditions)}
        order by lower(models.name), models.id limit %(limit)s"""
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(statement, {**values, **who(reader), "limit": limit})
        return [row["id"] for row in await opened.fetchall()]


async def count_tags(
    connection: "AsyncConnection[Any]",
    kinds: tuple[Kind, ...],
    *,
    reader: Reader,
    start: str = "",
    cursor: str | None = None,
    limit: int = 100,
) -> tuple[list[TagCount], str | None]:
    """Return a page of the tags that begin so, the most frequent first, and the cursor of the next one; raise `PageInvalid`."""
    after = None if cursor is None else decode(_TagCursor, cursor)
    values = {
        "kinds": [kind.value for kind in kinds], "start": start, "limit": limit + 1, "after": None if after is None else after.tag,
        "after_count": None if after is None else after.count, **who(reader),
    }  # fmt: skip
    async with connection.cursor(row_factory=dict_row) as opened:
        await opened.execute(_TAGS.format(visible=VISIBLE), values)
        found = [TagCount(**row) for row in await opened.fetchall()]
    following = encode(_TagCursor(**found[limit - 1].model_dump())) if len(found) > limit else None
    return found[:limit], following


def search_words(text: str | None) -> str:
    """Return the search for entries that have words which begin with each word of a text; empty for a text without any."""
    found = _WORDS.findall((text or "").lower())[:MOST_WORDS]
    return " & ".join(f"'{word}':*" for word in found)


def page_statement(
    wanted: Wanted,
    *,
    order: Order | Ordering | None = None,
    falls: bool | None = None,
    cursor: str | None = None,
    columns: str = COLUMNS,
) -> tuple[str, dict[str, Any], Ordering, bool]:
    """Return the statement of a page and its values but for the reader's and `limit`, the order, and whether it falls."""
    words = search_words(wanted.text)
    if order is None:
        order, falls = (Order.RELEVANCE, None) if words else (Order.CREATED, falls or False)
    if order is Order.RELEVANCE and not words:
        order = Order.NAME
    key = order if isinstance(order, Ordering) else _ORDERINGS[order]
    down = key.falls if falls is None else falls
    conditions, values = _conditions(wanted, words)
    source = "models"
    if order is Order.RELEVANCE:
        # A word that everything has would be ranked everywhere.
        source = f"(select * from models where {_MATCHES} limit {RANKED}) models"
    if cursor is not None:
        after = decode(Cursor, cursor)
        if (after.order, after.falls) != (key.name, down):
            raise PageInvalid
        try:
            values["after"] = key.value.validate_python(after.value)
        except ValidationError:
            raise PageInvalid from None
        values["after_id"] = after.id
        conditions.append(f"({key.expression}, {key.id}) {'<' if down else '>'} (%(after)s::{key.type}, %(after_id)s)")
    direction = "desc" if down else "asc"
    statement = f"""select {columns}, {key.expression} as sorted_by from {source} {MARKED} {key.join}
        where {" and ".join(conditions)} order by {key.expression} {direction}, {key.id} {direction} limit %(limit)s"""
    return statement, values, key, down


def _conditions(wanted: Wanted, words: str) -> tuple[list[str], dict[str, Any]]:
    conditions = [VISIBLE]
    values: dict[str, Any] = {}
    if len(wanted.kinds) < len(Kind):
        conditions.append("models.kind = any (%(kinds)s)")
        values["kinds"] = [kind.value for kind in wanted.kinds]
    if words:
        conditions.append(_MATCHES)
        values["words"] = words
    for name, condition in _FILTERS.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(condition)
            values[name] = list(value) if isinstance(value, tuple) else value
    for name, (yes, no) in _SWITCHES.items():
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(yes if value else no)
    return conditions, values


def encode(cursor: BaseModel) -> str:
    """Return a cursor as text that nobody need understand."""
    return base64.urlsafe_b64encode(cursor.model_dump_json().encode()).decode().rstrip("=")


def decode(kind: type[Found], text: str) -> Found:
    """Return the cursor of a text, raising `PageInvalid`."""
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return kind.model_validate_json(data)
    except (ValueError, binascii.Error):
        raise PageInvalid from None
