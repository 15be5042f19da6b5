"""Which files an entry is made of and whether storage has them: what a node asks that lacks them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from models_registry.content import STORED
from models_registry.entries import Kind, ModelRef
from models_registry.records import File

_COLUMNS: Final = "id, kind, name, path, files, stored_at is not null as stored"
_FIND: Final = f"""
select {_COLUMNS} from models where (kind, name) in (select * from unnest(%(kinds)s::text[], %(names)s::text[])) and files <> '[]'
"""
_READ: Final = f"select {_COLUMNS} from models where id = %(id)s"
_WANT: Final = """
update models set wanted_at = now() where id = %(id)s and wanted_at is null and (stored_at is null or damage is not null)
"""
# Where the files lie in a folder as well, the keeper stores them once more; what lay in storage alone is lost.
_DAMAGED: Final = f"""
update models set damage = %(damage)s, wanted_at = now(), stored_at = null, changed_at = now(),
    missing_since = case when starts_with(path, '{STORED}') then coalesce(missing_since, now()) else missing_since end
where id = %(id)s
"""


@dataclass(frozen=True)
class Stock:
    """The files of one entry."""

    id: UUID
    ref: ModelRef
    path: Path
    files: tuple[File, ...]
    #: Whether storage has all of them, under their SHA-256.
    stored: bool


def find_stock(connection: "Connection[Any]", refs: Collection[ModelRef]) -> Mapping[ModelRef, Stock]:
    """Return the files of those of the entries for which they are known, in one statement."""
    values = {"kinds": [ref.kind.value for ref in refs], "names": [ref.name for ref in refs]}
    with connection.cursor(row_factory=dict_row) as cursor:
        found = [_stock(row) for row in cursor.execute(_FIND, values).fetchall()]
    return {stock.ref: stock for stock in found}


def read_stock(connection: "Connection[Any]", which: UUID) -> Stock | None:
    """Return the files of an entry; None when it is gone."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_READ, {"id": which}).fetchone()
    return None if row is None else _stock(row)


def want(connection: "Connection[Any]", which: UUID) -> None:
    """Ask the keeper to put an entry's files into storage."""
    connection.execute(_WANT, {"id": which})


def report_damage(connection: "Connection[Any]", which: UUID, damage: str) -> None:
    """Record that an entry's bytes in storage are not those that were recorded."""
    connection.execute(_DAMAGED, {"id": which, "damage": damage})


def _stock(row: DictRow) -> Stock:
    ref = ModelRef(Kind(row["kind"]), row["name"])
    files = tuple(File.model_validate(each) for each in row["files"])
    return Stock(row["id"], ref, Path(row["path"]), files, row["stored"])
