"""Sessions of browsers: an API key, shown once, is exchanged for a signed cookie that no script can read.

The cookie names the key and a time, and never holds the key itself. A session ends with its time, with its key, or when the browser
forgets the cookie; every API process of a fleet accepts what another one signed.
"""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

from broker_api.auth.keys import KeyRing, Principal
from broker_api.auth.shared_secrets import SharedSecret
from broker_api.refusals import KeyInvalid
from infra.database import AsyncPool

COOKIE: Final = "imagefleet_session"
SESSION_SECONDS: Final = 30 * 86400
#: Longer than any cookie of ours.
_LONGEST: Final = 200
_NAME: Final = "browser_sessions"


@dataclass(frozen=True)
class Session:
    """Who is signed in, and until when, seconds since 1970."""

    principal: Principal
    expires: int


class Sessions:
    """Sign cookies and read what was signed."""

    def __init__(self, pool: AsyncPool, keys: KeyRing) -> None:
        self._secret = SharedSecret(pool, _NAME)
        self._keys = keys

    async def sign(self, principal: Principal) -> tuple[str, int]:
        """Return a cookie's value for the owner of a key, and when it expires, seconds since 1970."""
        expires = int(time.time()) + SESSION_SECONDS
        said = f"{principal.key_id}.{expires}"
        return f"{said}.{_signature(await self._secret.read(), said)}", expires

    async def find(self, cookie: str) -> Session:
        """Return the session of a cookie, raising `KeyInvalid` for one that is forged, over, or of a revoked key."""
        said, _, signature = cookie.rpartition(".")
        if len(cookie) > _LONGEST or not cookie.isascii():
            raise _over()
        if not hmac.compare_digest(_signature(await self._secret.read(), said), signature):
            raise _over()
        key_id, _, expires = said.partition(".")
        if time.time() >= int(expires):
            raise _over()
        return Session(await self._keys.find_by_id(key_id), int(expires))


def cookie_of(connection: HTTPConnection) -> str | None:
    """Return the session's cookie that a browser sent, if any."""
    return connection.cookies.get(COOKIE) or None


def _over() -> KeyInvalid:
    return KeyInvalid("The session is over: sign in again.", headers={"www-authenticate": "Bearer"})


def _signature(secret: bytes, said: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(secret, said.encode(), hashlib.sha256)).decode().rstrip("=")
