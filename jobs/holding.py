"""Which models unfinished jobs name: what must not be deleted under them."""

from collections.abc import Collection, Iterable
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, dict_row

from models_registry.entries import Kind, ModelRef

# One look at every unfinished job: deletions are rare, and an index over what jobs name would cost every submit.
_NAMED: Final = """
select distinct named.kind, named.name from jobs cross join lateral (
    select 'checkpoint' as kind, request ->> 'model' as name
    union all select 'checkpoint', request -> 'refiner' ->> 'model'
    union all select 'vae', request ->> 'vae'
    union all select 'upscaler', request ->> 'upscaler'
    union all select 'upscaler', request -> 'hires' ->> 'upscaler'
    union all select 'preprocessor', request ->> 'preprocessor'
    union all select 'lora', each ->> 'name' from jsonb_path_query(request, '$.loras[*]') each
    union all select 'embedding', each #>> '{}' from jsonb_path_query(request, '$.embeddings[*]') each
    union all select 'controlnet', each ->> 'model' from jsonb_path_query(request, '$.controls[*]') each
    union all select 'preprocessor', each ->> 'preprocessor' from jsonb_path_query(request, '$.controls[*]') each
) named
where jobs.state in ('queued', 'running') and (named.kind, named.name) in (select * from unnest(%(kinds)s::text[], %(names)s::text[]))
"""


def unfinished_naming(connection: "psycopg.Connection[Any]", refs: Collection[ModelRef]) -> frozenset[ModelRef]:
    """Return those of the models that a job names which waits or runs."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return _refs(cursor.execute(_NAMED, _values(refs)).fetchall())


async def unfinished_naming_async(
    connection: "psycopg.AsyncConnection[Any]", refs: Collection[ModelRef]
) -> frozenset[ModelRef]:
    """Do what `unfinished_naming` does on an event loop."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_NAMED, _values(refs))
        return _refs(await cursor.fetchall())


def _values(refs: Collection[ModelRef]) -> dict[str, Any]:
    return {"kinds": [ref.kind.value for ref in refs], "names": [ref.name for ref in refs]}


def _refs(rows: Iterable[DictRow]) -> frozenset[ModelRef]:
    return frozenset(ModelRef(Kind(row["kind"]), row["name"]) for row in rows)
