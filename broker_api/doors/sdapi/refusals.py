"""Refuse in A1111's form: `{"detail": …}`, a sentence or FastAPI's list of fields."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, TypedDict

from pydantic import ValidationError
from starlette.responses import Response

from broker_api.problems import MOST_ERRORS, problem_of
from broker_api.refusals import HttpRefused, Unauthorized

CHALLENGE: Final[Mapping[str, str]] = {
    "www-authenticate": 'Basic realm="Imagefleet: any name, and an API key as password", charset="UTF-8"'
}


class Detail(TypedDict):
    """One entry of FastAPI's list."""

    loc: list[str | int]
    msg: str
    type: str


class SamplerNotFound(HttpRefused):
    """No sampler has this name."""

    code = "scheduler_unknown"


class ThingNotFound(HttpRefused):
    """What the request names is not there."""

    code = "not_found"
    status = 404


class ScriptRefused(HttpRefused):
    """The script is not there, or not one of this kind."""

    code = "script_unknown"
    status = 422


class FieldsRefused(HttpRefused):
    """Fields of the request have values that cannot be drawn from."""

    code = "invalid_request"
    status = 422

    def __init__(self, details: Sequence[Detail]) -> None:
        super().__init__(details[0]["msg"])
        self.details = list(details)


class JobFailed(HttpRefused):
    """The job failed; its own code is in `error`."""

    code = "job_failed"
    status = 500

    def __init__(self, message: str, *, error: str) -> None:
        super().__init__(message)
        #: The job's code.
        self.error = error


def field_refused(field: str, message: str, kind: str = "value_error") -> FieldsRefused:
    """Return the refusal of one field, named by its dotted path."""
    return FieldsRefused([{"loc": ["body", *_parts(field)], "msg": message, "type": kind}])


def refuse(error: Exception) -> Response:
    """Render any error as A1111 does."""
    answer = problem_of(error)
    content: dict[str, Any] = {"detail": answer.problem.detail, "code": answer.problem.code}
    headers = dict(answer.headers)
    if isinstance(error, ValidationError):
        content["detail"] = details_of(error)
    elif isinstance(error, FieldsRefused):
        content["detail"] = error.details
    elif isinstance(error, JobFailed):
        content |= {"error": error.error, "errors": error.message, "body": ""}
    elif answer.problem.status == HTTPStatus.UNAUTHORIZED:
        # Clients compare this text.
        content["detail"] = "Not authenticated" if isinstance(error, Unauthorized) else "Incorrect username or password"
    return Response(
        json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace"),
        status_code=answer.problem.status,
        headers={"cache-control": "no-store", **headers},
        media_type="application/json",
    )


def details_of(error: ValidationError, rename: Mapping[str, str] | None = None) -> list[Detail]:
    """Return a validation error as FastAPI's list; `rename` gives the sender's names for ours."""
    return [
        {"loc": ["body", *_renamed(found["loc"], rename or {})], "msg": found["msg"], "type": found["type"]}
        for found in error.errors(include_url=False, include_context=False, include_input=False)[:MOST_ERRORS]
    ]


def _renamed(path: tuple[str | int, ...], rename: Mapping[str, str]) -> list[str | int]:
    # The longest known beginning is replaced: `hires.scale` has another name than `hires`.
    for length in range(len(path), 0, -1):
        name = rename.get(".".join(str(part) for part in path[:length]))
        if name is not None:
            return [*_parts(name), *path[length:]]
    return list(path)


def _parts(field: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in field.split(".")]
