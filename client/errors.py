"""What can go wrong between a program and a fleet.

ClientError
├── RequestUnusable         what was asked for cannot be asked
├── FleetUnreachable        nobody answers there
├── AnswerUnusable          somebody answers, but not a fleet
├── PictureDamaged          the bytes received are not the picture that was recorded
└── Problem                 the fleet's own problem document
    ├── Unauthorized        401
    ├── Forbidden           403
    ├── NotFound            404
    ├── Conflict            409
    ├── Invalid             400, 413, 415, 422
    ├── TooMany             429
    └── Unavailable         5xx
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class ClientError(Exception):
    """Something between the program and the fleet went wrong."""


class RequestUnusable(ClientError, ValueError):
    """What was asked for cannot be asked."""


class FleetUnreachable(ClientError):
    """Nobody answers at the fleet's address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no fleet answers at {url}: {reason}")
        self.url = url


class AnswerUnusable(ClientError):
    """What answers does not speak as a fleet does."""


class PictureDamaged(ClientError):
    """The bytes received are not the picture that was recorded."""


class Problem(ClientError):
    """The fleet refused, and said why."""

    def __init__(self, status: int, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        #: Stable: what programs look at.
        self.code = str(document.get("code", f"http_{status}"))
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail") or self.title or f"the server answered {status}")
        #: Dotted path of the field at fault, where one is.
        self.field = None if document.get("field") is None else str(document["field"])
        #: Seconds after which the server asks to be tried again.
        self.retry_after = retry_after
        self.document = MappingProxyType(dict(document))
        super().__init__(self.detail)


class Unauthorized(Problem):
    """The key is missing, unknown or revoked."""


class Forbidden(Problem):
    """The key may not do this."""


class NotFound(Problem):
    """There is no such thing, or it is someone else's."""


class Conflict(Problem):
    """The thing is not in the state this needs."""


class Invalid(Problem):
    """The request cannot be accepted as it stands."""


class TooMany(Problem):
    """The fleet takes no more for now."""


class Unavailable(Problem):
    """A part of the fleet is away for now."""


_BY_STATUS: Mapping[int, type[Problem]] = MappingProxyType(
    {
        400: Invalid,
        401: Unauthorized,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        413: Invalid,
        415: Invalid,
        422: Invalid,
        429: TooMany,
    }
)
_SERVER_FAULT = 500


def problem_of(status: int, document: Mapping[str, Any], retry_after: float | None = None) -> Problem:
    """Return the error of a problem document, by its status."""
    kind = Unavailable if status >= _SERVER_FAULT else _BY_STATUS.get(status, Problem)
    return kind(status, document, retry_after)
