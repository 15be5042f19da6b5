"""Follow the table of models: read it once, and from then on only what changed.

The clock of the library counts its writers in the order in which they commit, so what came after a revision is all that is new; while
nothing is written, one row is read.
"""

import asyncio
from typing import Any, Final

from psycopg import AsyncConnection, Connection
from psycopg.rows import DictRow, dict_row

from models_registry.offers import Catalogue, Offer
from models_registry.rows import FIELDS, entry_of

#: Rows that are understood in one go: about 50 ms, for which nothing else happens on an event loop.
PAGE: Final = 1000
#: Deletions are told one by one for so long; whoever slept longer reads everything again.
TOLD_DAYS: Final = 1

_CLOCK: Final = "select revision, forgotten from library_clock"
_GONE: Final = "select id from model_tombstones where revision > %(since)s"
_CHANGED: Final = f"""
select {", ".join(FIELDS)}, id, found_at, missing_since, owner, visibility, allowed_keys, weight,
    array(select alias from model_aliases where model = models.id order by alias) as aliases
from models where revision > %(since)s or %(all)s order by found_at, name, kind
"""
_FORGET: Final = """
with old as (
    delete from model_tombstones where deleted_at < now() - make_interval(days => %(days)s) returning revision
)
update library_clock set forgotten = greatest(forgotten, (select max(revision) from old)) where exists (select from old)
"""


class Follower:
    """Keep a catalogue up to date; for one event loop."""

    def __init__(self) -> None:
        self._catalogue = Catalogue()
        self._revision: int | None = None
        # What was read first must be applied first.
        self._turn = asyncio.Lock()
        #: Rows of models and deletions read so far.
        self.rows_read = 0

    async def refresh(self, connection: "AsyncConnection[Any]") -> Catalogue:
        """Bring the catalogue up to date and return it: one statement that reads one row while nothing changed."""
        async with self._turn, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(_CLOCK)
            clock = await cursor.fetchone()
            revision, forgotten = (0, 0) if clock is None else (clock["revision"], clock["forgotten"])
            since = self._revision
            if since is None or since < forgotten or revision < since:
                self._catalogue, since = Catalogue(), None
            if since == revision:
                return self._catalogue
            # Deletions first: what is deleted between the two statements is told again next time.
            if since is not None:
                await cursor.execute(_GONE, {"since": since})
                for row in await cursor.fetchall():
                    self.rows_read += 1
                    self._catalogue.drop(row["id"])
            await cursor.execute(_CHANGED, {"since": since or 0, "all": since is None})
            while rows := await cursor.fetchmany(PAGE):
                self.rows_read += len(rows)
                for row in rows:
                    self._catalogue.put(_offer(row))
                await asyncio.sleep(0)
            self._revision = revision
        return self._catalogue


def read_offers(connection: "Connection[Any]") -> Catalogue:
    """Read everything in one statement."""
    catalogue = Catalogue()
    with connection.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_CHANGED, {"since": 0, "all": True}).fetchall():
            catalogue.put(_offer(row))
    return catalogue


def forget_deletions(connection: "Connection[Any]") -> None:
    """Drop what was told long enough; harmless when repeated."""
    connection.execute(_FORGET, {"days": TOLD_DAYS})


def _offer(row: DictRow) -> Offer:
    keys = row["allowed_keys"]
    return Offer(
        id=row["id"],
        entry=entry_of(row),
        found_at=row["found_at"],
        missing=row["missing_since"] is not None,
        owner=row["owner"],
        is_public=row["visibility"] == "public",
        allowed_keys=None if keys is None else frozenset(keys),
        weight=row["weight"],
        aliases=tuple(row["aliases"]),
    )
