"""How long a search of 100 000 entries takes, against reading one entry by its id on the same connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
from psycopg.rows import dict_row

from benchmarks.figures import summary
from infra.database import connect
from models_registry.entries import Kind
from models_registry.library import read_entry_async
from models_registry.listing import Order, Wanted, count_tags, list_entries
from models_registry.records import Reader
from tests.fleet_process import FleetProcess
from tests.library_entries import fill_library

ENTRIES = 100_000
ROUNDS = 30
READER = Reader("ann", "bench")
KINDS = (Kind.LORA,)
#: What is asked, by what the figures call it.
ASKED: dict[str, tuple[Wanted, Order | None]] = {
    "one": (Wanted(KINDS, text="lora 4711"), None),
    "rare_word": (Wanted(KINDS, text="rareword"), None),
    "word_of_all": (Wanted(KINDS, text="lora"), None),
    "page_by_name": (Wanted(KINDS), Order.NAME),
    "tag": (Wanted(KINDS, tags=("tag43",)), Order.SIZE),
}


async def _measure(url: str) -> dict[str, Any]:
    figures: dict[str, Any] = {"entries": ENTRIES}
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)
    async with connection:
        first, _ = await list_entries(connection, Wanted(KINDS), reader=READER, limit=1)

        async def seconds(ask: Callable[[], Awaitable[object]]) -> float:
            began = time.perf_counter()
            await ask()
            return time.perf_counter() - began

        for name, (wanted, order) in ASKED.items():

            async def search(wanted: Wanted = wanted, order: Order | None = order) -> object:
                return await list_entries(connection, wanted, reader=READER, order=order, limit=50)

            async def read() -> object:
                return await read_entry_async(connection, first[0].id)

            pairs = [(await seconds(search), await seconds(read)) for _ in range(ROUNDS + 1)][1:]
            figures[f"{name}_seconds"] = summary([pair[0] for pair in pairs])
            figures[f"{name}_over_one_read"] = summary([pair[0] / pair[1] for pair in pairs], 2)
        figures["tags_seconds"] = summary(
            [await seconds(lambda: count_tags(connection, KINDS, reader=READER)) for _ in range(5)]
        )
    return figures


def measure(fleet: FleetProcess) -> dict[str, Any]:
    """Measure in the database of a running fleet without workers."""
    url = fleet.services()["database_url"]
    with connect(url, application_name="bench", statement_seconds=300) as connection:
        fill_library(connection, ENTRIES)
    return asyncio.run(_measure(url))
