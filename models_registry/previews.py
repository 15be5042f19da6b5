"""The pictures that show what entries do: rows here, bytes in storage under their SHA-256."""

from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from models_registry.preview_bytes import preview_key
from models_registry.records import Preview

MOST_PREVIEWS: Final = 20

# The entry's row is locked, so that two pictures that are added at once get two places.
_LOCK: Final = "select id from models where id = %(model)s for no key update"
_ADD: Final = f"""
with wanted_again as (
    delete from garbage where key = %(key)s
)
insert into model_previews (model, index, sha256, mime, width, height, bytes, key)
select %(model)s, coalesce(max(index) + 1, 0), %(sha256)s, %(mime)s, %(width)s, %(height)s, %(bytes)s, %(key)s
from model_previews where model = %(model)s having count(*) < {MOST_PREVIEWS} and coalesce(max(index), 0) < 32767
returning index
"""
_REMOVE: Final = "delete from model_previews where model = %(model)s and index = %(index)s returning index"


async def add_preview(connection: "AsyncConnection[Any]", model: UUID, preview: Preview) -> int | None:
    """Add a picture whose bytes are stored, behind the others, and return its index; None where the entry has as many as it may."""
    values = {**preview.model_dump(), "model": model, "key": preview_key(preview.sha256)}
    async with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_LOCK, values)
        await cursor.execute(_ADD, values)
        row = await cursor.fetchone()
    return None if row is None else int(row["index"])


async def remove_preview(connection: "AsyncConnection[Any]", model: UUID, index: int) -> bool:
    """Remove a picture, and return whether there was one; a trigger leaves its bytes to the keeper."""
    cursor = await connection.execute(_REMOVE, {"model": model, "index": index})
    return await cursor.fetchone() is not None
