"""Find out who calls: a Bearer key, or HTTP Basic with the key as password where browsers must ask for it."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from broker_api.keys import KeyRing, Principal
from broker_api.refusals import Forbidden, KeyInvalid, OriginForeign, Unauthorized

BASIC_CHALLENGE: Final = 'Basic realm="Imagefleet: any name, and an admin API key as password", charset="UTF-8"'
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


async def authenticate(request: Request, keys: KeyRing) -> Principal:
    """Return who sends this request with a Bearer key, raising `Unauthorized` or `KeyInvalid`."""
    scheme, credentials = _authorization(request)
    if scheme != "bearer" or not credentials:
        raise Unauthorized(
            "Send your API key as `Authorization: Bearer <key>`.", headers={"www-authenticate": "Bearer"}
        )
    return await keys.find(credentials)


async def authenticate_browser(request: Request, keys: KeyRing) -> Principal:
    """Return who sends this request with a Bearer key or HTTP Basic; refusals make a browser ask for a password."""
    challenge = {"www-authenticate": BASIC_CHALLENGE}
    scheme, credentials = _authorization(request)
    if scheme == "basic":
        # A browser repeats a password by itself, also for a request that another site made it send.
        _refuse_foreign_origin(request)
        credentials = _basic_password(credentials)
    elif scheme != "bearer":
        raise Unauthorized("Send an admin API key as Bearer token or as HTTP Basic password.", headers=challenge)
    try:
        return await keys.find(credentials)
    except KeyInvalid as error:
        raise KeyInvalid(error.message, headers=challenge) from None


async def authenticate_any(
    request: Request, keys: KeyRing, *, challenge: Mapping[str, str], anonymous: str | None
) -> Principal:
    """Return who sends a Bearer key, or HTTP Basic with the key as password; who sends neither acts under the key `anonymous`.

    Raises `Unauthorized` or `KeyInvalid` with the challenge among its headers.
    """
    scheme, credentials = _authorization(request)
    if scheme != "bearer":
        # What a browser sends by itself, it sends for any site that asks it to.
        _refuse_foreign_origin(request)
        credentials = _basic_password(credentials) if scheme == "basic" else ""
    text = credentials or (anonymous if not scheme else None)
    if not text:
        raise Unauthorized("Send an API key as HTTP Basic password, or as Bearer token.", headers=challenge)
    try:
        return await keys.find(text)
    except KeyInvalid as error:
        raise KeyInvalid(error.message, headers=challenge) from None


def require_scope(principal: Principal, scope: str) -> None:
    """Raise `Forbidden` unless the caller has the scope; admins have every scope."""
    if scope not in principal.scopes and not principal.is_admin:
        raise Forbidden(f"This needs an API key with the scope `{scope}`.")


def _authorization(request: Request) -> tuple[str, str]:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return scheme.lower(), credentials.strip()


def _basic_password(credentials: str) -> str:
    try:
        text = base64.b64decode(credentials.encode("ascii"), validate=True).decode("utf-8")
    except (ValueError, binascii.Error):
        return ""
    return text.partition(":")[2]


def _refuse_foreign_origin(request: Request) -> None:
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    if site not in {"same-origin", "none"} or (origin and urlsplit(origin).netloc != request.headers.get("host")):
        raise OriginForeign("Another web site sent this request.", field="Origin")
