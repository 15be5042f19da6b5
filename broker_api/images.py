"""GET /v1/jobs/{id}/images/{n}: a picture's bytes, which are those that were recorded or none at all."""

import asyncio
import hashlib
from http import HTTPStatus
from typing import Final

from starlette.responses import Response

from broker_api.endpoints import Call, not_found
from broker_api.problems import RETRY_SECONDS
from broker_api.refusals import PictureDamaged, PictureMissing, StorageUnavailable
from infra.logging import get_logger
from infra.storage import ObjectMissing, Storage, StorageError
from jobs.reading import StoredImage, read_image

log = get_logger(__name__)

#: What is smaller is hashed at once; more is hashed beside the event loop.
HASHED_AT_ONCE: Final = 256 * 1024
_ENDINGS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_LONGEST_INDEX: Final = 5

PICTURE_DAMAGED: Final = "picture_damaged"
PICTURE_MISSING: Final = "picture_missing"


async def read_picture(call: Call) -> Response:
    """Return a picture's bytes once they have been found to be the recorded ones."""
    job, index = call.job(), _index(call.request.path_params["n"])
    async with call.services.pool.connection() as connection:
        stored = await read_image(connection, call.principal.sees, job, index)
    if stored is None:
        raise not_found()
    headers = picture_headers(f"{str(job)[-12:]}-{index}", stored.mime, stored.sha256)
    if is_known(call.request.headers.get("if-none-match"), headers["etag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if call.request.method == "HEAD":
        return Response(headers={**headers, "content-length": str(stored.bytes)})
    return Response(await verified(call.services.storage, stored), headers=headers)


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
