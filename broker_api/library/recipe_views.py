"""Show recipes: what they are, and which of their files are here."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from broker_api.endpoints import Call
from broker_api.library.recipe_forms import PreviewView, RecipeLoraView, RecipeView
from infra.database import AsyncConnection
from models_registry.entries import Kind
from models_registry.recipes.stacks import Here, find_here
from models_registry.recipes.store import Recipe, RecipeLora
from models_registry.records import Reader


def reader_of(call: Call) -> Reader:
    """Return who asks, as the registry's statements take it."""
    return call.principal.reader


async def show_recipes(connection: AsyncConnection, reader: Reader, recipes: Sequence[Recipe]) -> list[RecipeView]:
    """Return the views of recipes, with two statements however many they are."""
    loras = await loras_here(connection, reader, [lora for recipe in recipes for lora in recipe.loras])
    models = {recipe.model for recipe in recipes if recipe.model is not None}
    known = await find_here(connection, Kind.CHECKPOINT, models, [], reader) if models else []
    names = {each.name.lower() for each in known}
    return [_view(recipe, loras, names) for recipe in recipes]


async def show_recipe(connection: AsyncConnection, reader: Reader, recipe: Recipe) -> RecipeView:
    """Return the view of one recipe."""
    return (await show_recipes(connection, reader, [recipe]))[0]


async def loras_here(
    connection: AsyncConnection, reader: Reader, loras: Iterable[RecipeLora]
) -> Mapping[str, Mapping[str, Here]]:
    """Return which LoRAs are here, by `name` in small letters and by `sha256`."""
    wanted = list(loras)
    digests = {lora.sha256 for lora in wanted if lora.sha256 is not None}
    found = await find_here(connection, Kind.LORA, {lora.name for lora in wanted}, digests, reader) if wanted else []
    return {
        "name": {each.name.lower(): each for each in found},
        "sha256": {each.sha256: each for each in found if each.sha256 is not None},
    }


def lora_here(lora: RecipeLora, here: Mapping[str, Mapping[str, Here]]) -> Here | None:
    """Return the entry that a recipe's LoRA means: the same file under any name, else one of the same name."""
    same = here["sha256"].get(lora.sha256 or "")
    return same if same is not None else here["name"].get(lora.name.lower())


def lora_view(lora: RecipeLora, here: Mapping[str, Mapping[str, Here]]) -> RecipeLoraView:
    """Show one LoRA of a recipe."""
    found = lora_here(lora, here)
    return RecipeLoraView(
        **lora.model_dump(),
        entry=None if found is None else found.id,
        ref=None if found is None else found.name,
        missing=found is None,
    )


def _view(recipe: Recipe, here: Mapping[str, Mapping[str, Here]], models: Iterable[str]) -> RecipeView:
    values: dict[str, Any] = recipe.model_dump(exclude={"loras", "preview"})
    preview = None
    if recipe.preview is not None:
        url = f"/v1/recipes/{recipe.id}/preview"
        preview = PreviewView(url=url, **recipe.preview.model_dump(exclude={"sha256"}))
    return RecipeView(
        **values,
        model_missing=recipe.model is not None and recipe.model.lower() not in models,
        loras=[lora_view(lora, here) for lora in recipe.loras],
        preview=preview,
    )
