"""Put tags on many entries at once, and take them off."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection

#: An entry has so many tags at most.
MOST_TAGS: Final = 100

_TAG: Final = """
update models set tags = tags || array(select tag from unnest(%(tags)s::text[]) tag where tag <> all (tags)), changed_at = now()
where id = any (%(ids)s) and not tags @> %(tags)s::text[] returning id, cardinality(tags) as count
"""
_UNTAG: Final = """
update models set changed_at = now(), tags = array(
    select tag from unnest(tags) with ordinality each (tag, place) where tag <> all (%(tags)s::text[]) order by place)
where id = any (%(ids)s) and tags && %(tags)s::text[]
"""


async def tag(connection: "AsyncConnection[Any]", ids: Sequence[UUID], tags: Sequence[str]) -> list[UUID]:
    """Add tags to entries that lack them, and return the entries that have more than `MOST_TAGS` now."""
    cursor = await connection.execute(_TAG, {"ids": list(ids), "tags": list(dict.fromkeys(tags))})
    return [row["id"] for row in await cursor.fetchall() if row["count"] > MOST_TAGS]


async def untag(connection: "AsyncConnection[Any]", ids: Sequence[UUID], tags: Sequence[str]) -> None:
    """Take tags off entries that have them."""
    await connection.execute(_UNTAG, {"ids": list(ids), "tags": list(tags)})
