"""Turn whatever a request names as pictures into uploads of its owner: sent inline, uploaded before, or drawn by an earlier job."""

import asyncio
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from broker_api.pictures.files import decode_text, inspect
from broker_api.problems import DATABASE_ERRORS, RETRY_SECONDS
from broker_api.refusals import StorageUnavailable
from infra.database import AsyncPool
from infra.logging import get_logger
from infra.storage import ObjectMissing, Storage, StorageError
from jobs.contract import Request
from jobs.errors import PictureRefused, UploadUnknown
from jobs.pictures import JOB, UPLOAD, job_picture_of, pictures_of, upload_of
from jobs.uploads import (
    JobPicture,
    Upload,
    abandon_uploads,
    find_job_pictures,
    keep_uploads,
    upload_key,
    use_uploads,
)

#: Pictures that are decoded at the same time: each may take some hundred megabytes.
DECODED_AT_ONCE: Final = 2
#: A smallint holds no more.
_LAST_INDEX: Final = 2**15 - 1

UPLOAD_RESTORED: Final = "upload_restored"

log = get_logger(__name__)


@dataclass(frozen=True)
class Pictures:
    """The pictures of one request."""

    #: By the dotted path of the field that names it.
    by_field: Mapping[str, Upload] = field(default_factory=dict)
    #: Files that are not uploads of the owner yet, by their SHA-256.
    new: Mapping[str, tuple[Upload, bytes]] = field(default_factory=dict, repr=False)


class PictureDoor:
    """Take pictures in."""

    def __init__(self, pool: AsyncPool, storage: Storage, max_pixels: int) -> None:
        self._pool = pool
        self._storage = storage
        self._max_pixels = max_pixels
        self._turns = asyncio.Semaphore(DECODED_AT_ONCE)

    async def take(self, owner: str, request: Request) -> Pictures:
        """Look at every picture a request names, storing nothing; raise a `RequestRefused` that names the field."""
        texts = pictures_of(request)
        if not texts:
            return Pictures()
        # One look at each, however often it is named; the first field that names it is the one at fault.
        first = {text: place for place, text in reversed(list(texts.items()))}
        uploads = {text: place for text, place in first.items() if text.startswith(UPLOAD)}
        drawn = {text: place for text, place in first.items() if text.startswith(JOB)}
        known = await self._uploads(owner, uploads)
        files = {text: place for text, place in first.items() if text not in uploads and text not in drawn}
        new: dict[str, tuple[Upload, bytes]] = {}
        for text, place in files.items():
            known[text], data = await self._look(text, place)
            new[known[text].sha256] = known[text], data
        for text, picture in (await self._job_pictures(owner, drawn)).items():
            data = await self._drawn(picture, drawn[text])
            known[text], _ = await self._look(data, drawn[text])
            new[known[text].sha256] = known[text], data
        return Pictures({place: known[text] for place, text in texts.items()}, new)

    async def take_file(self, data: bytes, place: str) -> Pictures:
        """Look at a picture file that was sent as it is."""
        upload, _ = await self._look(data, place)
        return Pictures({place: upload}, {upload.sha256: (upload, data)})

    async def keep(self, owner: str, pictures: Pictures) -> frozenset[str]:
        """Store new pictures, bytes before rows; return the SHA-256 of those the owner did not have before.

        Raises `StorageUnavailable`, and then the keeper removes what was stored of them.
        """
        if not pictures.new:
            return frozenset()
        try:
            for sha256, (_, data) in pictures.new.items():
                await self._storage.put_async(upload_key(sha256), data)
            async with self._pool.connection() as connection:
                kept = await keep_uploads(connection, owner, [upload for upload, _ in pictures.new.values()])
            for sha256, (_, data) in pictures.new.items():
                await self._restore(sha256, data)
        except StorageError as problem:
            await self._abandon(pictures)
            raise _unavailable(problem) from None
        return kept

    async def _restore(self, sha256: str, data: bytes) -> None:
        """Store bytes again that the keeper has removed between the first time and the row."""
        try:
            await self._storage.head_async(upload_key(sha256))
        except ObjectMissing:
            await self._storage.put_async(upload_key(sha256), data)
            log.info(UPLOAD_RESTORED, sha256=sha256)

    async def _abandon(self, pictures: Pictures) -> None:
        with contextlib.suppress(*DATABASE_ERRORS):
            async with self._pool.connection() as connection:
                await abandon_uploads(connection, list(pictures.new))

    async def _uploads(self, owner: str, texts: Mapping[str, str]) -> dict[str, Upload]:
        if not texts:
            return {}
        digests = {text: upload_of(text) for text in texts}
        async with self._pool.connection() as connection:
            found = await use_uploads(connection, owner, [sha256 for sha256 in digests.values() if sha256 is not None])
        missing = [place for text, place in texts.items() if digests[text] not in found]
        _refuse_unknown(missing)
        return {text: found[sha256] for text, sha256 in digests.items() if sha256 is not None}

    async def _job_pictures(self, owner: str, texts: Mapping[str, str]) -> dict[str, JobPicture]:
        if not texts:
            return {}
        wanted: dict[str, tuple[UUID, int] | None] = {text: job_picture_of(text) for text in texts}
        asked = [each for each in wanted.values() if each is not None and each[1] <= _LAST_INDEX]
        async with self._pool.connection() as connection:
            found = await find_job_pictures(connection, owner, asked)
        _refuse_unknown([place for text, place in texts.items() if wanted[text] not in found])
        return {text: found[each] for text, each in wanted.items() if each is not None}

    async def _drawn(self, picture: JobPicture, place: str) -> bytes:
        try:
            data = await self._fetch(picture.key)
        except ObjectMissing:
            raise PictureRefused("The picture's file is gone from storage.", field=place) from None
        if await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest()) != picture.sha256:
            raise PictureRefused("The stored picture is not the one that was recorded.", field=place)
        return data

    async def _fetch(self, key: str) -> bytes:
        try:
            return await self._storage.get_async(key)
        except ObjectMissing:
            raise
        except StorageError as problem:
            raise _unavailable(problem) from None

    async def _look(self, sent: str | bytes, place: str) -> tuple[Upload, bytes]:
        def look() -> tuple[Upload, bytes]:
            data = sent if isinstance(sent, bytes) else decode_text(sent, place)
            return inspect(data, place, self._max_pixels), data

        async with self._turns:
            return await asyncio.to_thread(look)


def _refuse_unknown(places: Sequence[str]) -> None:
    if places:
        raise UploadUnknown("There is no such upload or picture, or it is not yours.", field=places[0])


def _unavailable(problem: StorageError) -> StorageUnavailable:
    return StorageUnavailable(
        f"The storage does not answer: {problem}. Nothing was accepted; try again shortly.",
        headers={"retry-after": str(RETRY_SECONDS)},
    )
