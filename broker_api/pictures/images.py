"""GET /v1/jobs/{id}/images/{n}: a picture's bytes, which are those that were recorded or none at all."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from uuid import UUID

from pydantic import BaseModel, Field
from starlette.responses import Response

from broker_api.endpoints import Call, Query, not_found
from broker_api.http.answers import json_answer
from broker_api.pictures.thumbnails import Size, thumbnail_of
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import PictureDamaged, PictureMissing, StorageUnavailable
from broker_api.services import Services
from infra.logging import get_logger
from infra.storage import ObjectMissing, Storage, StorageError
from jobs.contract import JobView
from jobs.history.usage import note
from jobs.parts import Strict, Text
from jobs.reading import StoredImage, read_image

log = get_logger(__name__)

#: What is smaller is hashed at once; more is hashed beside the event loop.
HASHED_AT_ONCE: Final = 256 * 1024
_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_LONGEST_INDEX: Final = 5
#: A picture never changes; only its owner may keep it.
OWN: Final = "private, max-age=31536000, immutable"
LONGEST_SIGNED_SECONDS: Final = 7 * 86400

PICTURE_DAMAGED: Final = "picture_damaged"
PICTURE_MISSING: Final = "picture_missing"


class ImageQuery(Query):
    """Which form of a picture to read."""

    thumbnail: Size | None = Field(default=None, description="Longer side of a smaller copy, pixels; made once, WebP.")
    download: bool = Field(default=False, description="As a file to keep, which counts in the use of what drew it.")


class SignedQuery(Query):
    """What a signed URL carries."""

    thumbnail: Size | None = Field(default=None, description="Longer side of a smaller copy, pixels; made once, WebP.")
    expires: int = Field(ge=0, le=2**40, description="Seconds since 1970.")
    signature: Text = Field(min_length=1, max_length=100)


class SignUrl(Strict):
    """How long a URL shall be good, and for what."""

    expires_in_s: int = Field(default=3600, ge=1, le=LONGEST_SIGNED_SECONDS)
    thumbnail: Size | None = None


class SignedUrl(BaseModel):
    """A URL that needs no key."""

    url: str
    expires_at: datetime


async def read_picture(call: Call) -> Response:
    """Return a picture's bytes once they have been found to be the recorded ones."""
    query = call.query(ImageQuery)
    answer = await _picture(call, call.principal.sees, query.thumbnail, OWN)
    if query.download and call.request.method == "GET":
        answer.headers["content-disposition"] = answer.headers["content-disposition"].replace("inline", "attachment", 1)
        async with call.services.pool.connection() as connection:
            await note(connection, call.principal.sees, call.job(), "downloaded")
    return answer


async def read_signed_picture(call: Call) -> Response:
    """Return a picture to whoever has a URL that was signed and has not expired."""
    query = call.query(SignedQuery)
    job, index = call.job(), picture_index(call)
    await call.services.signer.check(job, index, query.thumbnail, query.expires, query.signature)
    left = max(0, query.expires - int(time.time()))
    return await _picture(call, None, query.thumbnail, f"private, max-age={left}")


async def sign_url(call: Call) -> Response:
    """Make a URL that reads a picture without a key until it expires."""
    wanted = call.body(SignUrl)
    job, index = call.job(), picture_index(call)
    async with call.services.pool.connection() as connection:
        if await read_image(connection, call.principal.sees, job, index) is None:
            raise not_found()
    signed = await signed_url(call.services, job, index, wanted.expires_in_s, wanted.thumbnail)
    return json_answer(signed, HTTPStatus.CREATED)


async def signed_url(
    services: Services, job: UUID, index: int, seconds: int, thumbnail: int | None = None
) -> SignedUrl:
    """Return the path that reads a picture without a key for so long."""
    expires = int(time.time()) + seconds
    signature = await services.signer.sign(job, index, thumbnail, expires)
    small = "" if thumbnail is None else f"thumbnail={thumbnail}&"
    url = f"/v1/signed/{job}/{index}?{small}expires={expires}&signature={signature}"
    return SignedUrl(url=url, expires_at=datetime.fromtimestamp(expires, UTC))


async def pictures_of(services: Services, owner: str, view: JobView) -> list[bytes] | None:
    """Return the bytes of all pictures of an owner's job, raising what `verified` raises; None when the job was deleted meanwhile."""
    found = []
    for image in view.images:
        async with services.pool.connection() as connection:
            stored = await read_image(connection, owner, view.id, image.index)
        if stored is None:
            return None
        found.append(await verified(services.storage, stored))
    return found


async def _picture(call: Call, owner: str | None, thumbnail: int | None, keeping: str) -> Response:
    job, index = call.job(), picture_index(call)
    storage = call.services.storage
    async with call.services.pool.connection() as connection:
        original = await read_image(connection, owner, job, index)
    if original is None:
        raise not_found()
    stored, data = original, None
    if thumbnail is not None:

        async def picture() -> tuple[StoredImage, bytes]:
            return original, await verified(storage, original)

        found = await thumbnail_of(call.services, job, index, thumbnail, picture)
        if found is None:
            raise not_found()
        stored, data = found
    headers = picture_headers(f"{str(job)[-12:]}-{index}", stored.mime, stored.sha256) | {"cache-control": keeping}
    if is_known(call.request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if call.request.method == "HEAD":
        return Response(headers={**headers, "content-length": str(stored.bytes)})
    return Response(await verified(storage, stored) if data is None else data, headers=headers)


def picture_index(call: Call) -> int:
    """Return the picture's index of the path; one that is no index is as unknown as any other."""
    return _index(call.request.path_params["n"])


def _index(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > _LONGEST_INDEX or (text != "0" and text.startswith("0")):
        raise not_found()
    return int(text)


def picture_headers(name: str, mime: str, sha256: str) -> dict[str, str]:
    """Return the headers of an answer that is a picture; `name` becomes part of its file's name."""
    return {
        "etag": f'"{sha256}"',
        # A picture never changes; only its owner may keep it.
        "cache-control": "private, max-age=31536000, immutable",
        "content-type": mime,
        "content-disposition": f'inline; filename="imagefleet-{name}.{_ENDINGS.get(mime, "bin")}"',
        "x-content-type-options": "nosniff",
        "content-security-policy": "default-src 'none'; sandbox",
    }


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Tell whether a client's `If-None-Match` says that it has the picture."""
    if if_none_match is None:
        return False
    return any(given.strip().removeprefix("W/") in {etag, "*"} for given in if_none_match.split(","))


async def verified(storage: Storage, stored: StoredImage) -> bytes:
    """Return bytes that are those that were recorded, raising `PictureMissing`, `PictureDamaged` or `StorageUnavailable`."""
    try:
        data = await storage.get_async(stored.key)
    except ObjectMissing:
        log.warning(PICTURE_MISSING, key=stored.key)
        raise PictureMissing("The picture's file is gone from storage.") from None
    except StorageError as error:
        raise StorageUnavailable(
            f"The storage does not answer: {error}.", headers={"retry-after": str(RETRY_SECONDS)}
        ) from None
    small = len(data) <= HASHED_AT_ONCE
    digest = _digest(data) if small else await asyncio.to_thread(_digest, data)
    if digest != stored.sha256:
        log.error(PICTURE_DAMAGED, key=stored.key, recorded=stored.sha256, found=digest)
        raise PictureDamaged("The stored picture is not the one that was recorded, so it is not served.")
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
