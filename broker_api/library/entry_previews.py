"""The preview pictures of an entry: added from uploads or one's own jobs' pictures, kept small, read, removed."""

from http import HTTPStatus

from pydantic import BaseModel
from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.http.answers import json_answer
from broker_api.library.entry_finding import changeable_entry, entry_of_path
from broker_api.library.entry_refusals import PreviewsFull
from broker_api.library.entry_views import EntryPreviewView, door_of
from broker_api.library.recipe_previews import make_preview, read_picture_file, store_preview
from broker_api.pictures.images import is_known, picture_headers, picture_index, verified
from jobs.parts import PictureText, Strict
from jobs.reading import StoredImage
from models_registry.preview_bytes import preview_key
from models_registry.previews import MOST_PREVIEWS, add_preview, remove_preview
from models_registry.records import Entry, Preview


class AddPreview(Strict):
    """A picture that shows what the entry does."""

    image: PictureText


class PreviewPage(BaseModel):
    """The previews of an entry."""

    items: list[EntryPreviewView]
    next_cursor: str | None = None


async def list_previews(call: Call) -> Response:
    """Return what previews an entry has."""
    async with call.services.pool.connection() as connection:
        entry = await entry_of_path(call, connection)
    return json_answer(PreviewPage(items=[_view(entry, each) for each in entry.previews]))


async def add_one_preview(call: Call) -> Response:
    """Add a picture, small, behind the others."""
    services = call.services
    async with services.pool.connection() as connection:
        entry = await changeable_entry(call, connection)
    if len(entry.previews) >= MOST_PREVIEWS:
        raise _full()
    file = await read_picture_file(services, call.principal.owner, call.body(AddPreview).image, "image")
    made, data = await make_preview(services, file)
    await store_preview(services, made, data)
    preview = Preview(index=0, **made.model_dump())
    async with services.pool.connection() as connection:
        index = await add_preview(connection, entry.id, preview)
    if index is None:
        raise _full()
    # What the keeper was about to remove is gone now.
    await store_preview(services, made, data)
    view = _view(entry, preview.model_copy(update={"index": index}))
    return json_answer(view, HTTPStatus.CREATED, {"location": view.url})


async def read_one_preview(call: Call) -> Response:
    """Return a preview's bytes."""
    index = picture_index(call)
    async with call.services.pool.connection() as connection:
        entry = await entry_of_path(call, connection)
    found = next((each for each in entry.previews if each.index == index), None)
    if found is None:
        raise not_found()
    headers = picture_headers(f"preview-{found.sha256[:12]}", found.mime, found.sha256)
    # Another picture may take its place.
    headers["cache-control"] = "private, no-cache"
    if is_known(call.request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    stored = StoredImage(preview_key(found.sha256), found.sha256, found.mime, found.bytes)
    return Response(await verified(call.services.storage, stored), headers=headers)


async def remove_one_preview(call: Call) -> Response:
    """Remove a preview."""
    index = picture_index(call)
    async with call.services.pool.connection() as connection:
        entry = await changeable_entry(call, connection)
        if index >= 2**15 or not await remove_preview(connection, entry.id, index):
            raise not_found()
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _view(entry: Entry, preview: Preview) -> EntryPreviewView:
    return EntryPreviewView(
        n=preview.index, url=f"{door_of(entry)}/previews/{preview.index}", width=preview.width, height=preview.height,
        mime=preview.mime, bytes=preview.bytes,
    )  # fmt: skip


def _full() -> PreviewsFull:
    return PreviewsFull(f"An entry has {MOST_PREVIEWS} previews at most: remove one first.", field="image")
