"""Render answers."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from pydantic import BaseModel
from starlette.responses import Response

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def json_answer(content: BaseModel, status: int = HTTPStatus.OK, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Render a model as JSON that no cache keeps."""
    return Response(
        content.model_dump_json(),
        status_code=status,
        headers={"cache-control": "no-store", **headers},
        media_type="application/json",
    )
