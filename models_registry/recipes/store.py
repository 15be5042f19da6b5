"""Store, find and change recipes; two recipes of one owner have neither the same name nor the same content."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb
from pydantic import BaseModel, Field
from pydantic_core import to_json
from uuid_utils.compat import uuid7

from infra.database import AsyncConnection
from models_registry.preview_bytes import preview_key

Visibility = Literal["public", "private"]


class RecipeLora(BaseModel):
    """One LoRA of a stack."""

    name: str
    weight: float = 1.0
    text_encoder_weight: float | None = None
    #: Of the file, where it was known; or the beginning of a hash that a picture names.
    sha256: str | None = None


class Preview(BaseModel):
    """The picture that shows a recipe; its bytes lie under `previews/<sha256>`."""

    sha256: str
    mime: str
    width: int
    height: int
    bytes: int


class Recipe(BaseModel):
    """A stored recipe."""

    id: UUID
    owner: str
    name: str
    visibility: Visibility = "private"
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    prompt: str = ""
    negative_prompt: str = ""
    model: str | None = None
    loras: list[RecipeLora] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    source: str = ""
    preview: Preview | None = None
    created_at: datetime
    changed_at: datetime


class RecipeTaken(Exception):
    """The owner has such a recipe already."""

    def __init__(self, field: Literal["name", "content"], other: str) -> None:
        super().__init__(other)
        #: What both have in common.
        self.field = field
        #: Name of the one that is there.
        self.other = other


@dataclass(frozen=True)
class RecipeSearch:
    """Which recipes to list."""

    text: str | None = None
    tag: str | None = None
    own: bool = False


#: What a person gives; by the names of the columns.
FIELDS: Final = (
    "name", "visibility", "description", "tags", "prompt", "negative_prompt", "model", "loras", "settings", "source", "preview",
)  # fmt: skip
COLUMNS: Final = f"id, owner, {', '.join(FIELDS)}, created_at, changed_at"
_CREATE: Final = f"""
insert into recipes (id, owner, content, {", ".join(FIELDS)})
values (%(id)s, %(owner)s, %(content)s, {", ".join(f"%({field})s" for field in FIELDS)}) returning {COLUMNS}
"""
_CHANGE: Final = f"""
update recipes set content = %(content)s, changed_at = now(), {", ".join(f"{field} = %({field})s" for field in FIELDS)}
where id = %(id)s returning {COLUMNS}
"""
#: Who sees a recipe: its owner, everyone where it is public, admins always.
_SEEN: Final = "(%(owner)s::text is null or owner = %(owner)s or visibility = 'public')"
_READ: Final = f"select {COLUMNS} from recipes where id = %(id)s and {_SEEN}"
_NAMED: Final = f"""
select {COLUMNS} from recipes where lower(name) = lower(%(name)s) and (owner = %(own)s or visibility = 'public')
order by owner = %(own)s desc, id limit 1
"""
_LOCK: Final = (
    f"select {COLUMNS} from recipes where id = %(id)s and (%(owner)s::text is null or owner = %(owner)s) for update"
)
_DELETE: Final = "delete from recipes where id = %(id)s and (%(owner)s::text is null or owner = %(owner)s) returning id"
_LIST: Final = f"""
select {COLUMNS} from recipes
where {_SEEN} and (not %(own)s or owner = %(caller)s) and (%(tag)s::text is null or tags @> array[%(tag)s::text])
  and (%(text)s::text is null or position(lower(%(text)s) in lower(name || ' ' || description || ' ' || prompt)) > 0)
  and (%(after)s::uuid is null or id < %(after)s)
order by id desc limit %(limit)s
"""
_SAME: Final = "select name from recipes where owner = %(owner)s and {} and id <> %(id)s"
_KEPT: Final = "delete from garbage where key = any (%s)"
_ABANDON: Final = "insert into garbage (key) select unnest(%s::text[]) on conflict do nothing"


def content_of(values: Mapping[str, Any]) -> str:
    """Return the digest of what a recipe draws, whatever it is called; LoRAs count in any order."""
    loras = sorted((lora.name, lora.weight, lora.text_encoder_weight) for lora in values["loras"])
    settings = {name: value for name, value in sorted(values["settings"].items()) if value is not None}
    data = [
        values["prompt"],
        values["negative_prompt"],
        values["model"],
        [list(map(str, each)) for each in loras],
        settings,
    ]
    return hashlib.sha256(to_json(data)).hexdigest()


async def create_recipe(connection: AsyncConnection, owner: str, values: Mapping[str, Any]) -> Recipe:
    """Store a recipe of `FIELDS`, raising `RecipeTaken`."""
    row = _row(values) | {"id": uuid7(), "owner": owner}
    return await _written(connection, _CREATE, row)


async def change_recipe(
    connection: AsyncConnection, owner: str | None, recipe: UUID, changes: Mapping[str, Any]
) -> Recipe | None:
    """Change a recipe of this owner (None: of anyone) and return it, None where there is none; raises `RecipeTaken`."""
    async with connection.transaction():
        row = await (await connection.execute(_LOCK, {"id": recipe, "owner": owner})).fetchone()
        if row is None:
            return None
        found = Recipe.model_validate(row)
        values = {field: getattr(found, field) for field in FIELDS} | dict(changes)
        return await _written(connection, _CHANGE, _row(values) | {"id": recipe, "owner": found.owner})


async def read_recipe(connection: AsyncConnection, owner: str | None, recipe: UUID) -> Recipe | None:
    """Return a recipe that this owner (None: an admin) may see, or None."""
    row = await (await connection.execute(_READ, {"id": recipe, "owner": owner})).fetchone()
    return None if row is None else Recipe.model_validate(row)


async def find_recipe(connection: AsyncConnection, owner: str, name: str) -> Recipe | None:
    """Return the owner's recipe of this name, else a public one, or None."""
    row = await (await connection.execute(_NAMED, {"own": owner, "name": name})).fetchone()
    return None if row is None else Recipe.model_validate(row)


async def list_recipes(
    connection: AsyncConnection, owner: str | None, caller: str, wanted: RecipeSearch, *, after: UUID | None, limit: int
) -> list[Recipe]:
    """Return recipes that may be seen, newest first, from behind `after`."""
    values = {
        "owner": owner, "caller": caller, "own": wanted.own, "tag": wanted.tag, "text": wanted.text, "after": after, "limit": limit,
    }  # fmt: skip
    rows = await (await connection.execute(_LIST, values)).fetchall()
    return [Recipe.model_validate(row) for row in rows]


async def delete_recipe(connection: AsyncConnection, owner: str | None, recipe: UUID) -> bool:
    """Delete a recipe of this owner (None: of anyone) and return whether there was one."""
    return await (await connection.execute(_DELETE, {"id": recipe, "owner": owner})).fetchone() is not None


async def abandon_preview(connection: AsyncConnection, sha256: str) -> None:
    """Leave the bytes of a preview whose row was not written to the keeper, who looks before it removes them."""
    await connection.execute(_ABANDON, ([preview_key(sha256)],))


async def _written(connection: AsyncConnection, statement: str, row: Mapping[str, Any]) -> Recipe:
    try:
        async with connection.transaction():
            written = await (await connection.execute(statement, row)).fetchone()
            if row["preview"] is not None:
                # What the keeper was about to remove is wanted again.
                await connection.execute(_KEPT, ([preview_key(row["preview"].obj["sha256"])],))
    except psycopg.errors.UniqueViolation as problem:
        field: Literal["name", "content"] = "name" if problem.diag.constraint_name == "recipes_name" else "content"
        same = "lower(name) = lower(%(name)s)" if field == "name" else "content = %(content)s"
        other = await (await connection.execute(_SAME.format(same), row)).fetchone()
        raise RecipeTaken(field, row["name"] if other is None else other["name"]) from None
    return Recipe.model_validate(written)


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    preview: Preview | None = values["preview"]
    loras: Sequence[RecipeLora] = values["loras"]
    return {
        **{field: values[field] for field in FIELDS},
        "content": content_of(values),
        "loras": Jsonb([lora.model_dump() for lora in loras]),
        "settings": Jsonb(values["settings"]),
        "preview": None if preview is None else Jsonb(preview.model_dump()),
    }
