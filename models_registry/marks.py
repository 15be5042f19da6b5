"""What an owner thinks of entries: favourites, ratings, and the stack that the owner composes with."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection

from models_registry.records import Marks

_FIELDS: Final = tuple(Marks.model_fields)

# What becomes active without a place comes last in the stack; several at once in the order in which they are given.
_MARK: Final = """
insert into model_marks as mine (owner, model, {columns})
select %(owner)s, given.model, {values} from unnest(%(ids)s::uuid[]) with ordinality given (model, place)
order by given.model
on conflict (owner, model) do update set {changes}, changed_at = now()
"""
_LAST: Final = """
update model_marks mine set position = coalesce(last.position, 0) + given.place::int
from unnest(%(ids)s::uuid[]) with ordinality given (model, place),
    (select max(position) as position from model_marks where owner = %(owner)s and active) last
where mine.owner = %(owner)s and mine.model = given.model and mine.active and mine.position is null
"""
_NOWHERE: Final = (
    "update model_marks set position = null where owner = %(owner)s and model = any (%(ids)s::uuid[]) and not active"
)


async def mark(connection: "AsyncConnection[Any]", owner: str, ids: Sequence[UUID], marks: Mapping[str, Any]) -> None:
    """Set those of an owner's marks that are given, on entries that exist; inside the caller's transaction."""
    unknown = marks.keys() - set(_FIELDS)
    if unknown:
        raise KeyError(f"no such mark: {', '.join(sorted(unknown))}")
    if not marks or not ids:
        return
    statement = _MARK.format(
        columns=", ".join(marks),
        values=", ".join(f"%({name})s" for name in marks),
        changes=", ".join(f"{name} = excluded.{name}" for name in marks),
    )
    values = {"owner": owner, "ids": list(ids), **marks}
    await connection.execute(statement, values)
    if marks.get("active") is False:
        await connection.execute(_NOWHERE, values)
    elif marks.get("active") or "position" in marks:
        await connection.execute(_LAST, values)
