"""Why the HTTP door itself turns a request away; what a job's content does wrong stands in `jobs.errors`.

RequestRefused (jobs.errors)
└── HttpRefused             carries headers of the answer
    └── …                   one class per code below
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from jobs.errors import RequestRefused

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class HttpRefused(RequestRefused):
    """The request cannot be answered as it was sent."""

    status: ClassVar[int] = 400

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
        each: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        super().__init__(message, field=field)
        #: Headers the answer must have.
        self.headers = headers
        #: Field, code and message of everything that is wrong, where that is more than one thing.
        self.each = each


class JsonInvalid(HttpRefused):
    """The body is not JSON."""

    code = "invalid_json"


class HeaderInvalid(HttpRefused):
    """A header has a value that cannot be used."""

    code = "invalid_header"


class OriginForeign(HttpRefused):
    """Another web site sent this request through the visitor's browser."""

    code = "origin_foreign"
    status = 403


class Unauthorized(HttpRefused):
    """The request carries no API key."""

    code = "unauthorized"
    status = 401


class KeyInvalid(HttpRefused):
    """The API key is unknown or revoked."""

    code = "key_invalid"
    status = 401


class Forbidden(HttpRefused):
    """The API key lacks the scope this needs."""

    code = "forbidden"
    status = 403


class SignatureInvalid(HttpRefused):
    """The URL's signature is not this fleet's."""

    code = "signature_invalid"
    status = 403


class UrlExpired(HttpRefused):
    """The URL has expired."""

    code = "url_expired"
    status = 410


class NotFound(HttpRefused):
    """There is nothing here."""

    code = "not_found"
    status = 404


class MethodNotAllowed(HttpRefused):
    """The path does not answer this method."""

    code = "method_not_allowed"
    status = 405


class BodyTimeout(HttpRefused):
    """The body did not arrive in time."""

    code = "body_timeout"
    status = 408


class PictureMissing(HttpRefused):
    """The picture's file is gone from storage."""

    code = "picture_missing"
    status = 410


class MetadataMissing(HttpRefused):
    """The picture's file does not say how it was made."""

    code = "metadata_missing"
    status = 422


class BodyTooLarge(HttpRefused):
    """The body is larger than this server takes."""

    code = "body_too_large"
    status = 413


class HostUnknown(HttpRefused):
    """The server does not answer under this host name."""

    code = "host_unknown"
    status = 421


class MediaTypeUnsupported(HttpRefused):
    """The body is of a media type this path does not read."""

    code = "media_type_unsupported"
    status = 415


class UpgradeRequired(HttpRefused):
    """The path speaks WebSocket alone."""

    code = "upgrade_required"
    status = 426


class PictureDamaged(HttpRefused):
    """The stored picture is not the one that was recorded."""

    code = "picture_damaged"
    status = 502


class DatabaseUnavailable(HttpRefused):
    """The database cannot be reached at the moment."""

    code = "database_unavailable"
    status = 503


class StorageUnavailable(HttpRefused):
    """The picture storage cannot be reached at the moment."""

    code = "storage_unavailable"
    status = 503


class FlowerUnavailable(HttpRefused):
    """Flower cannot be reached at the moment."""

    code = "flower_unavailable"
    status = 503


class JobUnfinished(HttpRefused):
    """The server stopped before the job had ended."""

    code = "stopping"
    status = 503


class Starting(HttpRefused):
    """The server has not read its catalogue yet."""

    code = "starting"
    status = 503
