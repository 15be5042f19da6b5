"""Turn every error into an RFC 9457 problem document with a stable code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import psycopg
import psycopg_pool
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from broker_api.refusals import DatabaseUnavailable, HttpRefused, MethodNotAllowed, NotFound
from jobs.errors import RequestRefused

MEDIA_TYPE: Final = "application/problem+json"
#: When a part of the server is away, clients are asked to come back after so many seconds.
RETRY_SECONDS: Final = 2
#: A name that a client made up is repeated to it, but not at any length.
LONGEST_FIELD: Final = 200
MOST_ERRORS: Final = 50
#: Below these paths problems also have the member `error` that OpenAI's clients read.
_OPENAI_PATHS: Final = ("/v1/images/", "/v1/models/")

DATABASE_ERRORS: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg_pool.PoolTimeout,
    psycopg_pool.PoolClosed,
    psycopg_pool.TooManyRequests,
)

#: Plainer codes for two of pydantic's; the others of its stable names are used as they are.
_FIELD_CODES: Final[Mapping[str, str]] = {"extra_forbidden": "unknown_field", "missing": "missing_field"}


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Dotted path of the field; empty for the whole document.")
    code: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str = Field(description="Where this code is explained.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable: what programs should look at.")
    field: str | None = Field(default=None, description="Dotted path of the first field at fault.")
    errors: list[FieldError] | None = Field(default=None, description="Everything wrong with the request's fields.")
    request_id: str | None = Field(default=None, description="Name this when you report the problem.")


@dataclass(frozen=True)
class ProblemAnswer:
    """A problem and the headers that belong to it."""

    problem: Problem
    headers: Mapping[str, str] = field(default_factory=dict)


def title_of(error: type[BaseException]) -> str:
    """Return the sentence that explains an error class: the first of its docstring."""
    return (error.__doc__ or error.__name__).strip().splitlines()[0].rstrip(".")


def type_of(code: str) -> str:
    """Return where a code is explained, relative to the server's root."""
    return f"/docs#problem-{code}"


def problem_of(error: BaseException) -> ProblemAnswer:
    """Describe any exception; what nobody foresaw becomes `internal_error`."""
    if isinstance(error, ValidationError):
        return _invalid_fields(error)
    if isinstance(error, RequestRefused):
        return _refused(error)
    if isinstance(error, DATABASE_ERRORS):
        return _refused(
            DatabaseUnavailable(
                "The database cannot be reached at the moment. Try again shortly; with an Idempotency-Key nothing is done twice.",
                headers={"retry-after": str(RETRY_SECONDS)},
            )
        )
    if isinstance(error, HTTPException):
        return _from_starlette(error)
    return ProblemAnswer(
        Problem(
            type=type_of("internal_error"),
            title="The server failed",
            status=HTTPStatus.INTERNAL_SERVER_ERROR,
            detail="The server failed while it answered. The request id finds the reason in its log.",
            code="internal_error",
        )
    )


def openai_error(problem: Problem) -> dict[str, Any]:
    """Return the member `error` that OpenAI's clients read."""
    kind = "server_error" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return {"message": problem.detail, "type": kind, "param": problem.field, "code": problem.code}


def problem_response(answer: ProblemAnswer, *, request_id: str | None = None, path: str = "") -> Response:
    """Render a problem as the clients of a path read it."""
    problem = answer.problem.model_copy(update={"request_id": request_id})
    content: dict[str, Any] = problem.model_dump(mode="json", exclude_none=True)
    if f"{path}/".startswith(_OPENAI_PATHS):
        content["error"] = openai_error(problem)
    return Response(
        json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace"),
        status_code=problem.status,
        headers={"cache-control": "no-store", **answer.headers},
        media_type=MEDIA_TYPE,
    )


def _refused(error: RequestRefused) -> ProblemAnswer:
    problem = Problem(
        type=type_of(error.code),
        title=title_of(type(error)),
        status=error.status,
        detail=error.message,
        code=error.code,
        field=None if error.field is None else error.field[:LONGEST_FIELD],
        errors=_each(error),
    )
    return ProblemAnswer(problem, error.headers if isinstance(error, HttpRefused) else {})


def _each(error: RequestRefused) -> list[FieldError] | None:
    if not isinstance(error, HttpRefused) or not error.each:
        return None
    return [
        FieldError(field=field[:LONGEST_FIELD], code=code, message=message)
        for field, code, message in error.each[:MOST_ERRORS]
    ]


def _from_starlette(error: HTTPException) -> ProblemAnswer:
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _refused(NotFound("There is nothing at this path.", headers=headers))
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return _refused(MethodNotAllowed("This path does not answer that method.", headers=headers))
    status = HTTPStatus(error.status_code)
    code = status.phrase.lower().replace(" ", "_").replace("-", "_")
    problem = Problem(type=type_of(code), title=status.phrase, status=status, detail=error.detail, code=code)
    return ProblemAnswer(problem, headers)


def _invalid_fields(error: ValidationError) -> ProblemAnswer:
    details = error.errors(include_url=False, include_context=False, include_input=False)
    errors = [
        FieldError(
            field=".".join(str(part) for part in detail["loc"])[:LONGEST_FIELD],
            code=_FIELD_CODES.get(detail["type"], detail["type"]),
            message=detail["msg"],
        )
        for detail in details[:MOST_ERRORS]
    ]
    first = errors[0]
    more = f" ({len(details) - 1} more)" if len(details) > 1 else ""
    where = f"{first.field}: " if first.field else ""
    problem = Problem(
        type=type_of(RequestRefused.code),
        title=title_of(RequestRefused),
        status=RequestRefused.status,
        detail=f"{where}{first.message}.{more}".replace("..", "."),
        code=RequestRefused.code,
        field=first.field or None,
        errors=errors,
    )
    return ProblemAnswer(problem)
