"""Sign a browser in and out: POST, GET and DELETE /v1/session."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Final

from pydantic import BaseModel, Field, StringConstraints
from starlette.requests import Request
from starlette.responses import Response

from broker_api.auth.authentication import refuse_foreign_origin
from broker_api.auth.keys import Principal, Scope
from broker_api.auth.sessions import COOKIE, SESSION_SECONDS, cookie_of
from broker_api.endpoints import Answer, Body, Call, Endpoint
from broker_api.http.answers import json_answer
from broker_api.refusals import DatabaseUnavailable, KeyInvalid, OriginForeign
from jobs.parts import Strict, Text

_NOT_KEPT: Final = {"cache-control": "no-store"}


class SignIn(Strict):
    """An API key, to be exchanged for a cookie."""

    key: Annotated[Text, StringConstraints(min_length=1, max_length=200)]


class SessionView(BaseModel):
    """Who is signed in; everything but `signed_in` is null for nobody."""

    signed_in: bool
    owner: str | None = None
    key_id: str | None = None
    scopes: list[Scope] | None = None
    expires_at: datetime | None = Field(default=None, description="When the browser has to sign in again.")


async def sign_in(call: Call) -> Response:
    """Exchange a key for a cookie that no script can read and no other site can use."""
    refuse_foreign_origin(call.request)
    principal = await call.services.keys.find(call.body(SignIn).key.strip())
    value, expires = await call.services.sessions.sign(principal)
    answer = json_answer(_view(principal, expires), headers=_NOT_KEPT)
    answer.set_cookie(
        COOKIE, value, max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=_is_secure(call.request)
    )
    return answer


async def read_session(call: Call) -> Response:
    """Say who is signed in: nobody is no error, so that a page can ask."""
    cookie = cookie_of(call.request)
    try:
        found = None if cookie is None else await call.services.sessions.find(cookie)
    except KeyInvalid:
        found = None
    view = SessionView(signed_in=False) if found is None else _view(found.principal, found.expires)
    return json_answer(view, headers=_NOT_KEPT)


async def sign_out(call: Call) -> Response:
    """Let the browser forget its cookie."""
    refuse_foreign_origin(call.request)
    answer = Response(status_code=HTTPStatus.NO_CONTENT, headers=_NOT_KEPT)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=_is_secure(call.request))
    return answer


def _view(principal: Principal, expires: int) -> SessionView:
    return SessionView.model_validate(
        {
            "signed_in": True,
            "owner": principal.owner,
            "key_id": principal.key_id,
            "scopes": sorted(principal.scopes),
            "expires_at": datetime.fromtimestamp(expires, UTC),
        }
    )


def _is_secure(request: Request) -> bool:
    # Behind a proxy that speaks TLS this server sees plain HTTP; the browser says in `Origin` what it sees.
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")


SESSION_ENDPOINTS: Final = (
    Endpoint(
        "POST", "/v1/session", "signIn", "Sign a browser in", "keys", sign_in, access="public",
        description=(
            "Exchanges an API key for a cookie (http-only, same-site) that counts as the key on every path, for 30 days or until the key "
            "is revoked. Requests that change something are refused when they come from another web site."
        ),
        body=Body(models=(SignIn,), parse=SignIn.model_validate, example={"key": "if_" + "0" * 12 + "_" + "0" * 49}),
        answers=(Answer(200, "Signed in.", SessionView, headers={"Set-Cookie": "The session."}),),
        errors=(KeyInvalid, OriginForeign, DatabaseUnavailable),
    ),
    Endpoint(
        "GET", "/v1/session", "readSession", "Say who is signed in", "keys", read_session, access="public",
        answers=(Answer(200, "Who is signed in with this cookie, if anyone.", SessionView),), errors=(DatabaseUnavailable,),
    ),
    Endpoint(
        "DELETE", "/v1/session", "signOut", "Sign a browser out", "keys", sign_out, access="public",
        answers=(Answer(204, "The cookie is forgotten."),), errors=(OriginForeign,),
    ),
)  # fmt: skip
