"""Signed URLs: whoever has one may read one picture until it expires, without a key.

The signature covers the picture and the time; the secret lies in the database, so that every API process of a fleet accepts what another
one signed. A picture that is deleted takes its URLs with it.
"""

import base64
import hashlib
import hmac
import time
from typing import Final
from uuid import UUID

from broker_api.auth.shared_secrets import SharedSecret
from broker_api.refusals import SignatureInvalid, UrlExpired
from infra.database import AsyncPool

_NAME: Final = "picture_urls"


class Signer:
    """Sign pictures and check what was signed."""

    def __init__(self, pool: AsyncPool) -> None:
        self._secret = SharedSecret(pool, _NAME)

    async def sign(self, job: UUID, index: int, thumbnail: int | None, expires: int) -> str:
        """Return the signature of a picture until a time, seconds since 1970."""
        return _signature(await self._secret.read(), job, index, thumbnail, expires)

    async def check(self, job: UUID, index: int, thumbnail: int | None, expires: int, signature: str) -> None:
        """Raise `SignatureInvalid` or `UrlExpired` unless this process or another one signed it and its time has not come."""
        expected = _signature(await self._secret.read(), job, index, thumbnail, expires)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise SignatureInvalid("The URL was not made by this fleet, or was changed since.", field="signature")
        if time.time() >= expires:
            raise UrlExpired("The URL has expired: ask for another one.", field="expires")


def _signature(secret: bytes, job: UUID, index: int, thumbnail: int | None, expires: int) -> str:
    said = f"{job}/{index}/{thumbnail or ''}/{expires}".encode()
    return base64.urlsafe_b64encode(hmac.digest(secret, said, hashlib.sha256)).decode().rstrip("=")
