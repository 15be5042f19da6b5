"""Find out who calls: a Bearer key, a browser's session, or HTTP Basic with the key as password where browsers must ask for it."""

import base64
import binascii
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request

from broker_api.auth.keys import KeyRing, Principal
from broker_api.auth.sessions import Sessions, cookie_of
from broker_api.refusals import Forbidden, KeyInvalid, OriginForeign, Unauthorized

BASIC_CHALLENGE: Final = 'Basic realm="Imagefleet: any name, and an admin API key as password", charset="UTF-8"'
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


async def authenticate(request: Request, keys: KeyRing, sessions: Sessions) -> Principal:
    """Return who sends this request with a Bearer key or from a signed-in browser, raising `Unauthorized` or `KeyInvalid`."""
    scheme, credentials = _authorization(request)
    if not scheme and (found := await _signed_in(request, sessions)) is not None:
        return found
    if scheme != "bearer" or not credentials:
        raise Unauthorized(
            "Send your API key as `Authorization: Bearer <key>`.", headers={"www-authenticate": "Bearer"}
        )
    return await keys.find(credentials)


async def authenticate_browser(request: Request, keys: KeyRing, sessions: Sessions) -> Principal:
    """Return who sends this request with a Bearer key, a session or HTTP Basic; refusals make a browser ask for a password."""
    challenge = {"www-authenticate": BASIC_CHALLENGE}
    scheme, credentials = _authorization(request)
    try:
        if not scheme and (found := await _signed_in(request, sessions)) is not None:
            return found
        if scheme == "basic":
            # A browser repeats a password by itself, also for a request that another site made it send.
            refuse_foreign_origin(request)
            credentials = _basic_password(credentials)
        elif scheme != "bearer":
            raise Unauthorized("Send an admin API key as Bearer token or as HTTP Basic password.", headers=challenge)
        return await keys.find(credentials)
    except KeyInvalid as error:
        raise KeyInvalid(error.message, headers=challenge) from None


async def authenticate_any(
    request: Request, keys: KeyRing, sessions: Sessions, *, challenge: Mapping[str, str], anonymous: str | None
) -> Principal:
    """Return who sends a Bearer key, HTTP Basic with the key as password, or a session; who sends none acts under the key `anonymous`.

    Raises `Unauthorized` or `KeyInvalid` with the challenge among its headers.
    """
    scheme, credentials = _authorization(request)
    if scheme != "bearer":
        # What a browser sends by itself, it sends for any site that asks it to.
        refuse_foreign_origin(request)
        credentials = _basic_password(credentials) if scheme == "basic" else ""
    try:
        if not scheme and (found := await _signed_in(request, sessions)) is not None:
            return found
        text = credentials or (anonymous if not scheme else None)
        if not text:
            raise Unauthorized("Send an API key as HTTP Basic password, or as Bearer token.", headers=challenge)
        return await keys.find(text)
    except KeyInvalid as error:
        raise KeyInvalid(error.message, headers=challenge) from None


def require_scope(principal: Principal, scope: str) -> None:
    """Raise `Forbidden` unless the caller has the scope; admins have every scope."""
    if scope not in principal.scopes and not principal.is_admin:
        raise Forbidden(f"This needs an API key with the scope `{scope}`.")


def refuse_foreign_origin(request: Request) -> None:
    """Raise `OriginForeign` for a request that changes something and comes from a page of another site."""
    if request.method in _SAFE_METHODS:
        return
    if request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"} or not is_own_origin(request):
        raise OriginForeign("Another web site sent this request.", field="Origin")


def is_own_origin(connection: HTTPConnection) -> bool:
    """Tell whether the page that sent this is this server's own; programs, which name no page, count as such."""
    origin = connection.headers.get("origin")
    return not origin or urlsplit(origin).netloc.lower() == connection.headers.get("host", "").lower()


async def _signed_in(request: Request, sessions: Sessions) -> Principal | None:
    cookie = cookie_of(request)
    if cookie is None:
        return None
    refuse_foreign_origin(request)
    return (await sessions.find(cookie)).principal


def _authorization(request: Request) -> tuple[str, str]:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return scheme.lower(), credentials.strip()


def _basic_password(credentials: str) -> str:
    try:
        text = base64.b64decode(credentials.encode("ascii"), validate=True).decode("utf-8")
    except (ValueError, binascii.Error):
        return ""
    return text.partition(":")[2]
