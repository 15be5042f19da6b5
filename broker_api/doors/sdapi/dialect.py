"""Speak as A1111 does: HTTP Basic or Bearer, refusals as `{"detail": …}`."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from broker_api.auth.authentication import authenticate_any
from broker_api.auth.keys import Principal
from broker_api.doors.sdapi.refusals import CHALLENGE, refuse
from broker_api.endpoints import Dialect
from broker_api.services import Services


async def _authenticate(request: Request, services: Services) -> Principal:
    return await authenticate_any(
        request, services.keys, services.sessions, challenge=CHALLENGE, anonymous=services.settings.sdapi_key or None
    )


SDAPI: Final = Dialect(authenticate=_authenticate, refuse=refuse)


def answer(content: Any) -> Response:
    """Render JSON that no cache keeps."""
    return JSONResponse(content, headers={"cache-control": "no-store"})
