"""What one route is: the types of the route table, from which come the routing, the checks and the OpenAPI."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from broker_api.auth.keys import Principal
from broker_api.refusals import NotFound
from broker_api.services import Services
from jobs.errors import RequestRefused

#: Who may call: anyone, any key, or a key with the scope `admin`.
Access = Literal["public", "user", "admin"]
Parsed = TypeVar("Parsed", bound=BaseModel)


class Query(BaseModel):
    """Parameters after the question mark: unknown ones are refused, texts are converted."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Call:
    """One request that has passed every check of its endpoint."""

    request: Request
    services: Services
    #: None on public paths.
    caller: Principal | None
    _query: BaseModel | None
    _body: BaseModel | None

    @property
    def principal(self) -> Principal:
        """Return who calls; only for endpoints that are not public."""
        if self.caller is None:
            raise LookupError("a public endpoint has no caller")
        return self.caller

    def query(self, kind: type[Parsed]) -> Parsed:
        """Return the query as the model its endpoint declares."""
        if not isinstance(self._query, kind):
            raise TypeError(f"the endpoint declares no query {kind.__name__}")
        return self._query

    def body(self, kind: type[Parsed]) -> Parsed:
        """Return the body as the model its endpoint declares."""
        if not isinstance(self._body, kind):
            raise TypeError(f"the endpoint declares no body {kind.__name__}")
        return self._body

    def job(self) -> UUID:
        """Return the job id of the path; one that is no id is as unknown as any other."""
        return parse_id(self.request.path_params["id"])


def parse_id(text: str) -> UUID:
    """Read an id in its usual form of 36 characters, raising `NotFound`."""
    try:
        found = UUID(text)
    except ValueError:
        raise not_found() from None
    if str(found) != text.lower():
        raise not_found()
    return found


def not_found() -> NotFound:
    """Return the one answer to an unknown and to a foreign id."""
    return NotFound("There is no such thing, or it is not yours.")


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Body:
    """How a body is read and what it may be."""

    models: tuple[type[BaseModel], ...]
    parse: Callable[[object], BaseModel]
    example: Mapping[str, Any]


def parse_json(model: type[Parsed]) -> Callable[[object], Parsed]:
    """Return a parser of decoded JSON for a strict model with ids or times in it, which JSON writes as text."""

    def parse(data: object) -> Parsed:
        return model.model_validate_json(to_json(data))

    return parse


@dataclass(frozen=True)
class FileBody:
    """A file that the handler reads by itself: as the whole body, or as a field of a form."""

    media_types: tuple[str, ...]
    #: Name of the form's field; None where no form is read.
    field: str | None = "file"
    #: The other fields of the form.
    form: type[BaseModel] | None = None
    #: May be as large as a model: streamed, and never held.
    is_large: bool = False


@dataclass(frozen=True)
class Answer:
    """One successful answer."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    media_type: str = "application/json"
    #: Text in another form, for those who ask for it.
    also: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dialect:
    """What the paths of another program's API do in that program's way."""

    #: Says who calls.
    authenticate: Callable[[Request, Services], Awaitable[Principal]]
    #: Writes a refusal.
    refuse: Callable[[Exception], Response]


@dataclass(frozen=True)
class Endpoint:
    """One method on one path."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    path: str
    name: str
    summary: str
    tag: str
    handler: Handler
    answers: tuple[Answer, ...]
    access: Access = "user"
    description: str = ""
    query: type[BaseModel] | None = None
    body: Body | None = None
    file: FileBody | None = None
    #: Header name to what it is for.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Errors beyond those every endpoint of its kind has.
    errors: tuple[type[RequestRefused], ...] = ()
    #: Status of a refusal to the one that the clients of this path know it by.
    statuses: Mapping[int, int] = field(default_factory=dict)
    #: The key may also come as HTTP Basic password, which browsers ask for.
    basic: bool = False
    #: None speaks as all of `/v1` does.
    dialect: Dialect | None = None
    #: Part of the OpenAPI document.
    listed: bool = True
