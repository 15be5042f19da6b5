"""Pictures that show recipes: made small when they are taken in, kept as content under `previews/<sha256>`."""

import asyncio
import hashlib
import io
from typing import Final, Literal

from PIL import Image

from broker_api.pictures.thumbnails import make_thumbnail
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import StorageUnavailable
from broker_api.services import Services
from infra.storage import ObjectMissing, StorageError
from jobs.contract import Request
from jobs.errors import PictureRefused, RequestRefused
from jobs.parts import PictureText
from jobs.uploads import upload_key
from models_registry.preview_bytes import preview_key
from models_registry.recipes.store import Preview

#: Longer side, pixels.
SIZE: Final = 512


class _Named(Request):
    task: Literal["preprocess"] = "preprocess"
    image: PictureText


async def read_picture_file(services: Services, owner: str, text: str, field: str) -> bytes:
    """Return the file that a picture field names, raising a `RequestRefused` that names the field."""
    try:
        pictures = await services.pictures.take(owner, _Named(image=text))
        sha256 = pictures.by_field["image"].sha256
        if sha256 in pictures.new:
            return pictures.new[sha256][1]
        return await services.storage.get_async(upload_key(sha256))
    except RequestRefused as refused:
        refused.field = field
        raise
    except ObjectMissing:
        raise PictureRefused("The picture's file is gone from storage.", field=field) from None
    except StorageError as problem:
        raise _unavailable(problem) from None


async def make_preview(services: Services, file: bytes) -> tuple[Preview, bytes]:
    """Return a small copy of a picture, and what a row says of it; nothing is stored."""
    async with services.making_thumbnails:
        data = await asyncio.to_thread(make_thumbnail, file, SIZE)
    with Image.open(io.BytesIO(data), formats=["WEBP"]) as picture:
        width, height = picture.size
    preview = Preview(
        sha256=hashlib.sha256(data).hexdigest(), mime="image/webp", width=width, height=height, bytes=len(data)
    )
    return preview, data


async def store_preview(services: Services, preview: Preview, data: bytes) -> None:
    """Store a preview's bytes; call it before the row is written, and once more after it: the keeper may have been in between."""
    try:
        await services.storage.put_async(preview_key(preview.sha256), data)
    except StorageError as problem:
        raise _unavailable(problem) from None


def _unavailable(problem: StorageError) -> StorageUnavailable:
    return StorageUnavailable(f"The storage does not answer: {problem}.", headers={"retry-after": str(RETRY_SECONDS)})
