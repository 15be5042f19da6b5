"""Read the recipes of an archive, and write them, inside the transaction of the import."""

from collections.abc import Collection, Sequence
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import ValidationError
from uuid_utils.compat import uuid7

from infra.database import Connection
from models_registry.archives.manifest import RECIPES
from models_registry.archives.planning import Options
from models_registry.archives.reading import Archive
from models_registry.archives.refusals import ArchiveRefused, RowInvalid
from models_registry.archives.report import ImportedRecipe
from models_registry.recipes.store import FIELDS, Recipe, content_of

_LONGEST_NAME: Final = 200
_MOST_LISTED: Final = 50
_MOST_RENAMES: Final = 1000
_SAME: Final = "select id, name from recipes where owner = %(owner)s and content = %(content)s"
_NAMED: Final = "select id, name from recipes where owner = %(owner)s and lower(name) = lower(%(name)s)"
_DELETE: Final = "delete from recipes where id = %s"
_CREATE: Final = f"""
insert into recipes (id, owner, content, {", ".join(FIELDS)})
values (%(id)s, %(owner)s, %(content)s, {", ".join(f"%({field})s" for field in FIELDS)})
"""


def read_recipes(archive: Archive) -> list[Recipe]:
    """Return the archive's recipes, raising `RowInvalid`."""
    found: list[Recipe] = []
    for row in archive.rows(RECIPES):
        try:
            recipe = Recipe.model_validate(row)
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RowInvalid(f"Recipe {len(found)} cannot be understood: {where}: {first['msg']}", RECIPES) from None
        if not 0 < len(recipe.name) <= _LONGEST_NAME or max(len(recipe.tags), len(recipe.loras)) > _MOST_LISTED:
            raise RowInvalid(f"Recipe {len(found)} has no name, or more tags or LoRAs than a recipe has", RECIPES)
        found.append(recipe)
    return found


def import_recipes(
    connection: Connection, recipes: Sequence[Recipe], options: Options, previews: Collection[str]
) -> list[ImportedRecipe]:
    """Write recipes, or with a dry run only say what would become of them; only an admin's archive says whose they are."""
    return [_import(connection, recipe, options, previews) for recipe in recipes]


def _import(connection: Connection, recipe: Recipe, options: Options, previews: Collection[str]) -> ImportedRecipe:
    owner = recipe.owner if options.reader.is_admin else options.reader.owner
    values: dict[str, Any] = {field: getattr(recipe, field) for field in FIELDS}
    row = {"owner": owner, "name": recipe.name, "content": content_of(values)}
    same = connection.execute(_SAME, row).fetchone()
    if same is not None:
        told = "The owner has a recipe that draws the same."
        return ImportedRecipe(name=recipe.name, action="skipped", as_name=same["name"], id=same["id"], message=told)
    named = connection.execute(_NAMED, row).fetchone()
    outcome = ImportedRecipe(name=recipe.name, action="created", as_name=recipe.name)
    if named is not None and options.conflict == "skip":
        told = "The owner has another recipe of this name."
        return ImportedRecipe(name=recipe.name, action="skipped", as_name=named["name"], id=named["id"], message=told)
    if named is not None and options.conflict == "rename":
        outcome = outcome.model_copy(
            update={"action": "renamed", "as_name": _free_name(connection, owner, recipe.name)}
        )
    elif named is not None:
        outcome = outcome.model_copy(update={"action": "replaced"})
    if options.dry_run:
        return outcome
    if outcome.action == "replaced" and named is not None:
        connection.execute(_DELETE, (named["id"],))
    identity: UUID = uuid7()
    shown = recipe.preview if recipe.preview is not None and recipe.preview.sha256 in previews else None
    connection.execute(
        _CREATE,
        values
        | row
        | {
            "id": identity,
            "name": outcome.as_name,
            "loras": Jsonb([lora.model_dump() for lora in recipe.loras]),
            "settings": Jsonb(recipe.settings),
            "preview": None if shown is None else Jsonb(shown.model_dump()),
        },
    )
    return outcome.model_copy(update={"id": identity})


def _free_name(connection: Connection, owner: str, name: str) -> str:
    for number in range(2, _MOST_RENAMES):
        other = f"{name[: _LONGEST_NAME - 5]} {number}"
        if connection.execute(_NAMED, {"owner": owner, "name": other}).fetchone() is None:
            return other
    raise ArchiveRefused(f"No name like {name} is free")
