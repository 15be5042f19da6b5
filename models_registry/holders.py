"""Who needs entries besides those that pin them: the registry knows no job, so whoever deletes or replaces entries says how to ask."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

from psycopg import AsyncConnection, Connection

from models_registry.entries import ModelRef

#: Return those of the entries that must stay as they are.
Holders = Callable[["Connection[Any]", Collection[ModelRef]], Collection[ModelRef]]
HoldersAsync = Callable[["AsyncConnection[Any]", Collection[ModelRef]], Awaitable[Collection[ModelRef]]]

#: The clock is every writer's first lock: nothing else changes the library between a look at the holders and the commit.
LOCK: Final = "select from library_clock for update"


def nobody(connection: "Connection[Any]", refs: Collection[ModelRef]) -> Collection[ModelRef]:
    """Hold nothing."""
    del connection, refs
    return ()


async def nobody_async(connection: "AsyncConnection[Any]", refs: Collection[ModelRef]) -> Collection[ModelRef]:
    """Hold nothing."""
    del connection, refs
    return ()
