"""Read a request's body as JSON, refusing everything that is not."""

from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request

from broker_api.refusals import JsonInvalid, MediaTypeUnsupported

_CURE: Final = "send JSON with the header `Content-Type: application/json`"


def require_json(request: Request) -> None:
    """Refuse a body whose content type says that it is something else; none at all counts as JSON."""
    given = request.headers.get("content-type")
    if given is None:
        return
    media_type = given.partition(";")[0].strip().lower()
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        return
    raise MediaTypeUnsupported(f"This path does not read {media_type[:100]!r}: {_CURE}.", field="Content-Type")


async def read_json(request: Request) -> Any:
    """Return the decoded body, raising `JsonInvalid`, `MediaTypeUnsupported`, `BodyTooLarge` or `BodyTimeout`."""
    require_json(request)
    if "content-encoding" in request.headers:
        raise MediaTypeUnsupported("Compressed bodies are not read: send the JSON as it is.", field="Content-Encoding")
    body = await request.body()
    if not body:
        raise JsonInvalid(f"The body is empty: {_CURE}.")
    try:
        # Refuses NaN and Infinity, invalid UTF-8, lone surrogates, and nesting or integers of absurd size; of equal keys the last one wins.
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise JsonInvalid(f"The body is not JSON: {error}.") from None
