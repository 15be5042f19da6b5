"""Smaller copies of pictures, made when they are first asked for and kept beside the picture."""

import asyncio
import contextlib
import hashlib
import io
from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from uuid import UUID

from PIL import Image
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import PictureDamaged, StorageUnavailable
from broker_api.services import Services
from infra.storage import StorageError
from jobs.reading import StoredImage
from jobs.thumbnails import NewThumbnail, find_thumbnail, record_thumbnail

#: Longest sides there are, pixels: few, so that a client cannot fill the storage with sizes.
SIZES: Final = (64, 128, 256, 512, 1024)
#: A picture of more pixels is not opened for its thumbnail.
MOST_PIXELS: Final = 16_384 * 16_384
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_QUALITY: Final = 82


def _known(size: int) -> int:
    if size not in SIZES:
        raise PydanticCustomError(
            "size_unknown", "Must be one of {sizes}", {"sizes": ", ".join(str(each) for each in SIZES)}
        )
    return size


Size = Annotated[int, AfterValidator(_known), Field(json_schema_extra={"enum": list(SIZES)})]


async def thumbnail_of(
    services: Services, job: UUID, index: int, size: int, picture: Callable[[], Awaitable[tuple[StoredImage, bytes]]]
) -> tuple[StoredImage, bytes | None] | None:
    """Return a thumbnail, with its bytes when it was made just now; None when its picture is gone."""
    async with services.pool.connection() as connection:
        found = await find_thumbnail(connection, job, index, size)
    if found is not None:
        return found, None
    async with services.making_thumbnails:
        stored, original = await picture()
        data = await asyncio.to_thread(make_thumbnail, original, size)
        digest = hashlib.sha256(data).hexdigest()
        # Beside the picture, and under its writer's epoch, as all files of a job are.
        key = f"{stored.key.rpartition('.')[0]}.t{size}.{digest[:16]}.webp"
        try:
            await services.storage.put_async(key, data)
        except StorageError as error:
            raise StorageUnavailable(
                f"The storage does not take the thumbnail: {error}.", headers={"retry-after": str(RETRY_SECONDS)}
            ) from None
        async with services.pool.connection() as connection:
            recorded = await record_thumbnail(connection, NewThumbnail(job, index, size, len(data), digest, key))
        if recorded is None or recorded.key != key:
            with contextlib.suppress(StorageError):
                await services.storage.delete_async(key)
    if recorded is None:
        return None
    return recorded, data if recorded.key == key else None


def make_thumbnail(data: bytes, size: int) -> bytes:
    """Return a WebP of the picture whose longer side is `size` pixels, or the picture's own where that is less."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise PictureDamaged("The picture has more pixels than this server opens.")
            # JPEG can be decoded small at once.
            opened.draft("RGB", (size, size))
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureDamaged(f"The stored picture cannot be opened: {error}.") from None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_QUALITY, method=2)
    return file.getvalue()
