"""Create, read, list, change and delete recipes; draw one."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from broker_api.library.recipe_forms import (
    ChangeRecipe,
    CreateRecipe,
    RecipeDraft,
    RecipeFromPicture,
    RecipePage,
    RecipeQuery,
)
from broker_api.library.recipe_previews import make_preview, read_picture_file, store_preview
from broker_api.library.recipe_sources import Content, content_of_job, content_of_picture, content_of_request
from broker_api.library.recipe_views import lora_view, loras_here, reader_of, show_recipe, show_recipes
from broker_api.library.refusals import NameTaken, RecipeExists
from broker_api.pictures.images import is_known, picture_headers, verified
from infra.database import AsyncConnection
from jobs.cursors import decode_cursor, encode_cursor
from jobs.parts import Lora
from jobs.pictures import JOB
from jobs.reading import StoredImage, read_image, read_job
from models_registry.entries import Kind
from models_registry.preview_bytes import preview_key
from models_registry.recipes.stacks import find_by_digest, find_here
from models_registry.recipes.store import (
    Preview,
    Recipe,
    RecipeLora,
    RecipeSearch,
    RecipeTaken,
    abandon_preview,
    change_recipe,
    create_recipe,
    delete_recipe,
    list_recipes,
    read_recipe,
)
from models_registry.records import Reader

FROM_PICTURE: Final = "picture"


async def create_one_recipe(call: Call) -> Response:
    """Store a recipe made by hand, or of what a job drew."""
    wanted = call.body(CreateRecipe)
    content, source, file = await _source(call, wanted)
    if wanted.preview is not None:
        file = await read_picture_file(call.services, call.principal.owner, wanted.preview, "preview")
    values = {
        "name": wanted.name or content.title, "description": wanted.description, "tags": wanted.tags, "source": source,
        "visibility": wanted.visibility,
    }  # fmt: skip
    return await _store(call, content, values, file)


async def create_from_picture(call: Call) -> Response:
    """Store what a picture's file says as a recipe, or only say it."""
    wanted = call.body(RecipeFromPicture)
    file = await read_picture_file(call.services, call.principal.owner, wanted.image, "image")
    content = content_of_picture(file)
    name = wanted.name or content.title
    if wanted.dry_run:
        return json_answer(await _draft(call, content, name))
    values = {
        "name": name, "description": "", "tags": wanted.tags, "source": FROM_PICTURE, "visibility": wanted.visibility,
    }  # fmt: skip
    return await _store(call, content, values, file)


async def read_one_recipe(call: Call) -> Response:
    """Return a recipe."""
    async with call.services.pool.connection() as connection:
        found = await read_recipe(connection, call.principal.sees, call.job())
        if found is None:
            raise not_found()
        return json_answer(await show_recipe(connection, reader_of(call), found))


async def list_all_recipes(call: Call) -> Response:
    """Return a page of recipes."""
    query = call.query(RecipeQuery)
    after = None if query.cursor is None else decode_cursor(query.cursor)
    wanted = RecipeSearch(text=query.q, tag=query.tag, own=query.own)
    caller = call.principal
    async with call.services.pool.connection() as connection:
        found = await list_recipes(connection, caller.sees, caller.owner, wanted, after=after, limit=query.limit + 1)
        items = await show_recipes(connection, reader_of(call), found[: query.limit])
    following = encode_cursor(items[-1].id) if len(found) > query.limit else None
    return json_answer(RecipePage(items=items, next_cursor=following))


async def change_one_recipe(call: Call) -> Response:
    """Change one's own recipe."""
    wanted = call.body(ChangeRecipe)
    changes: dict[str, Any] = {name: getattr(wanted, name) for name in wanted.model_fields_set}
    made: tuple[Preview, bytes] | None = None
    if wanted.preview is not None:
        file = await read_picture_file(call.services, call.principal.owner, wanted.preview, "preview")
        made = await make_preview(call.services, file)
        await store_preview(call.services, *made)
        changes["preview"] = made[0]
    if wanted.settings is not None:
        changes["settings"] = wanted.settings.given()
    async with call.services.pool.connection() as connection:
        if "loras" in changes or "prompt" in changes:
            changes |= await _rewritten(call, connection, wanted)
        try:
            changed = await change_recipe(connection, call.principal.sees, call.job(), changes)
        except RecipeTaken as taken:
            raise await _taken(connection, taken, made) from None
        if changed is None:
            raise not_found()
        view = await show_recipe(connection, reader_of(call), changed)
    if made is not None:
        await store_preview(call.services, *made)
    return json_answer(view)


async def delete_one_recipe(call: Call) -> Response:
    """Delete one's own recipe."""
    async with call.services.pool.connection() as connection:
        if not await delete_recipe(connection, call.principal.sees, call.job()):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def read_recipe_preview(call: Call) -> Response:
    """Return the picture that shows a recipe."""
    async with call.services.pool.connection() as connection:
        found = await read_recipe(connection, call.principal.sees, call.job())
    if found is None or found.preview is None:
        raise not_found()
    preview = found.preview
    headers = picture_headers(f"recipe-{str(found.id)[-12:]}", preview.mime, preview.sha256)
    # Another picture may take its place.
    headers["cache-control"] = "private, no-cache"
    if is_known(call.request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    stored = StoredImage(preview_key(preview.sha256), preview.sha256, preview.mime, preview.bytes)
    return Response(await verified(call.services.storage, stored), headers=headers)


async def with_hashes(
    connection: AsyncConnection, reader: Reader, loras: tuple[Lora, ...], digests: Mapping[str, str]
) -> list[RecipeLora]:
    """Return a recipe's LoRAs under the names they have here, each with its file's hash where that is known."""
    named = {name.casefold(): digest for name, digest in digests.items() if name}
    by_digest = await find_by_digest(connection, Kind.LORA, list(named.values()), reader)
    names = {lora.name: by_digest.get(named.get(lora.name.casefold(), ""), lora.name) for lora in loras}
    here = {each.name.lower(): each for each in await find_here(connection, Kind.LORA, names.values(), [], reader)}
    found = []
    for lora in loras:
        entry = here.get(names[lora.name].lower())
        digest = named.get(lora.name.casefold())
        values = lora.model_dump() | {"sha256": digest}
        if entry is not None:
            values |= {"name": entry.name, "sha256": entry.sha256 or digest}
        found.append(RecipeLora(**values))
    return found


async def _source(call: Call, wanted: CreateRecipe) -> tuple[Content, str, bytes | None]:
    """Return what a new recipe draws, where that comes from, and a picture that shows it."""
    request: dict[str, Any] = {}
    source, file = "", None
    if wanted.from_job is not None:
        async with call.services.pool.connection() as connection:
            job = await read_job(connection, call.principal.sees, wanted.from_job)
            stored = await read_image(connection, call.principal.sees, wanted.from_job, wanted.picture)
        if job is None:
            raise not_found()
        content = content_of_job(job.request)
        request = {
            "prompt": content.prompt, "negative_prompt": content.negative_prompt, "model": content.model, "loras": content.loras,
            **content.settings,
        }  # fmt: skip
        source = f"{JOB}{wanted.from_job}/{wanted.picture}"
        file = None if stored is None else await verified(call.services.storage, stored)
    for name in ("prompt", "negative_prompt", "model", "loras"):
        if getattr(wanted, name) is not None:
            request[name] = getattr(wanted, name)
    if wanted.settings is not None:
        request |= wanted.settings.given()
    return content_of_request(request), source, file


async def _rewritten(call: Call, connection: AsyncConnection, wanted: ChangeRecipe) -> dict[str, Any]:
    """Return prompt and LoRAs as they are stored, of a change to either."""
    loras: list[RecipeLora] | None = None
    if wanted.loras is None:
        # Tags in the new prompt join those that are there.
        before = await read_recipe(connection, call.principal.sees, call.job())
        loras = [] if before is None else before.loras
    given = [Lora(**lora.model_dump(exclude={"sha256"})) for lora in loras] if loras is not None else wanted.loras
    content = content_of_request({"prompt": wanted.prompt or "", "loras": given})
    found: dict[str, Any] = {"loras": await with_hashes(connection, reader_of(call), content.loras, {})}
    known = {lora.name: lora.sha256 for lora in loras or []}
    for lora in found["loras"]:
        lora.sha256 = lora.sha256 or known.get(lora.name)
    return found | ({"prompt": content.prompt} if wanted.prompt is not None else {})


async def _store(call: Call, content: Content, values: Mapping[str, Any], file: bytes | None) -> Response:
    made = None if file is None else await make_preview(call.services, file)
    if made is not None:
        await store_preview(call.services, *made)
    reader = reader_of(call)
    async with call.services.pool.connection() as connection:
        row = {
            **values,
            "prompt": content.prompt,
            "negative_prompt": content.negative_prompt,
            "model": await _model(connection, reader, content),
            "loras": await with_hashes(connection, reader, content.loras, content.digests),
            "settings": dict(content.settings),
            "preview": None if made is None else made[0],
        }
        try:
            created = await create_recipe(connection, call.principal.owner, row)
        except RecipeTaken as taken:
            raise await _taken(connection, taken, made) from None
        view = await show_recipe(connection, reader, created)
    if made is not None:
        await store_preview(call.services, *made)
    return json_answer(view, HTTPStatus.CREATED, {"location": f"/v1/recipes/{created.id}"})


async def _model(connection: AsyncConnection, reader: Reader, content: Content) -> str | None:
    """Return the checkpoint's name here: that of the file whose hash the picture names, else as it was written."""
    digest = content.digests.get("")
    if digest is None:
        return content.model
    return (await find_by_digest(connection, Kind.CHECKPOINT, [digest], reader)).get(digest, content.model)


async def _draft(call: Call, content: Content, name: str) -> RecipeDraft:
    reader = reader_of(call)
    async with call.services.pool.connection() as connection:
        loras = await with_hashes(connection, reader, content.loras, content.digests)
        here = await loras_here(connection, reader, loras)
        model = await _model(connection, reader, content)
        known = [] if model is None else await find_here(connection, Kind.CHECKPOINT, [model], [], reader)
    return RecipeDraft(
        name=name,
        prompt=content.prompt,
        negative_prompt=content.negative_prompt,
        model=model,
        model_missing=model is not None and not known,
        loras=[lora_view(lora, here) for lora in loras],
        settings=dict(content.settings),
    )


async def _taken(
    connection: AsyncConnection, taken: RecipeTaken, made: tuple[Preview, bytes] | None
) -> NameTaken | RecipeExists:
    if made is not None:
        await abandon_preview(connection, made[0].sha256)
    if taken.field == "name":
        return NameTaken(f"There is a recipe named {taken.other!r} already.", field="name")
    return RecipeExists(f"The recipe {taken.other!r} draws the same already.")


def request_of_recipe(recipe: Recipe, loras: list[Lora]) -> dict[str, Any]:
    """Return the request that draws a recipe."""
    request: dict[str, Any] = {
        "task": "txt2img", "prompt": recipe.prompt, "negative_prompt": recipe.negative_prompt, "model": recipe.model,
        "loras": [lora.model_dump() for lora in loras], **recipe.settings,
    }  # fmt: skip
    return {name: value for name, value in request.items() if value is not None}
