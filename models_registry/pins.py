"""Pins: who needs an entry's files until when. A pinned entry cannot be deleted."""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection, Connection

# In one order: two holders that pin the same entries must not wait for each other.
_PIN: Final = """
insert into model_pins as pins (model, holder, until)
select models.id, %(holder)s, now() + make_interval(secs => %(seconds)s) from models
where models.id = any (%(ids)s) order by models.id for key share
on conflict (model, holder) do update set until = greatest(pins.until, excluded.until) returning model
"""
_UNPIN: Final = "delete from model_pins where holder = %(holder)s"
_EXPIRE: Final = "delete from model_pins where until <= now()"


def pin(connection: "Connection[Any]", ids: Collection[UUID], holder: str, seconds: float) -> set[UUID]:
    """Keep entries from being deleted for so long, and return those there are; a pin of the same holder is never shortened."""
    values = {"ids": list(ids), "holder": holder, "seconds": seconds}
    return {row["model"] for row in connection.execute(_PIN, values).fetchall()}


async def pin_async(
    connection: "AsyncConnection[Any]", ids: Collection[UUID], holder: str, seconds: float
) -> set[UUID]:
    """Do what `pin` does on an event loop."""
    cursor = await connection.execute(_PIN, {"ids": list(ids), "holder": holder, "seconds": seconds})
    return {row["model"] for row in await cursor.fetchall()}


def unpin(connection: "Connection[Any]", holder: str) -> None:
    """Take all pins of a holder back."""
    connection.execute(_UNPIN, {"holder": holder})


async def unpin_async(connection: "AsyncConnection[Any]", holder: str) -> None:
    """Do what `unpin` does on an event loop."""
    await connection.execute(_UNPIN, {"holder": holder})


def expire(connection: "Connection[Any]") -> int:
    """Drop the pins whose time is over, and return how many."""
    return connection.execute(_EXPIRE).rowcount
