"""Lead a request to its endpoint: method, key, scope, query, body; and every error to a problem document."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from broker_api.auth.authentication import authenticate, authenticate_browser, require_scope
from broker_api.auth.keys import Principal
from broker_api.endpoints import Call, Endpoint
from broker_api.http.bodies import read_json
from broker_api.problems import problem_of, problem_response
from broker_api.refusals import MethodNotAllowed
from broker_api.services import Services, services_of
from infra.logging import get_logger

log = get_logger(__name__)

HANDLER_FAILED: Final = "handler_failed"
#: As nginx calls it: the client closed the connection before it had an answer.
CLIENT_LEFT: Final = 499


class PathDoor:
    """Answer every method of one path."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._by_method: Mapping[str, Endpoint] = {endpoint.method: endpoint for endpoint in endpoints}
        methods = set(self._by_method) | {"OPTIONS"} | ({"HEAD"} if "GET" in self._by_method else set())
        self._allow = ", ".join(sorted(methods))
        #: What the access log and the metrics call this path.
        self.path = endpoints[0].path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["route_path"] = self.path
        response = await self._respond(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = self._by_method.get(method)
        try:
            if endpoint is not None:
                return await self._call(endpoint, request)
            if method == "OPTIONS":
                return Response(status_code=204, headers={"allow": self._allow})
            return _problem(self._not_allowed(), request, None)
        except Exception as error:  # noqa: BLE001 - the one place where every error becomes an answer
            return _problem(error, request, endpoint)

    def _not_allowed(self) -> MethodNotAllowed:
        return MethodNotAllowed(f"This path answers {self._allow}.", headers={"allow": self._allow})

    async def _call(self, endpoint: Endpoint, request: Request) -> Response:
        services = services_of(request.scope)
        caller = None
        if endpoint.access != "public":
            caller = await _authenticated(endpoint, request, services)
            request.scope["key_id"] = caller.key_id
            require_scope(caller, endpoint.access)
        query = None if endpoint.query is None else _query(endpoint.query, request)
        body = None if endpoint.body is None else endpoint.body.parse(await read_json(request))
        return await endpoint.handler(Call(request, services, caller, query, body))


async def _authenticated(endpoint: Endpoint, request: Request, services: Services) -> Principal:
    if endpoint.dialect is not None:
        return await endpoint.dialect.authenticate(request, services)
    return await (authenticate_browser if endpoint.basic else authenticate)(request, services.keys, services.sessions)


def _query(model: type[BaseModel], request: Request) -> BaseModel:
    return model.model_validate(dict(request.query_params))


def _problem(error: Exception, request: Request, endpoint: Endpoint | None) -> Response:
    if isinstance(error, ClientDisconnect):
        # Nobody reads this; the access log does.
        return Response(status_code=CLIENT_LEFT)
    answer = problem_of(error)
    if answer.problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error(HANDLER_FAILED, path=request.url.path, exc_info=error)
    if endpoint is not None and endpoint.dialect is not None:
        return endpoint.dialect.refuse(error)
    if endpoint is not None:
        problem = answer.problem
        status = endpoint.statuses.get(problem.status, problem.status)
        answer = replace(answer, problem=problem.model_copy(update={"status": status}))
    return problem_response(answer, request_id=request.scope.get("request_id"), path=request.url.path)


def routes_of(endpoints: Sequence[Endpoint]) -> list[Route]:
    """Return one Starlette route per path of the table."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    # `/v1/adapters/tags` is no adapter that is called tags.
    ordered = sorted(by_path.items(), key=lambda item: "{" in item[0])
    return [Route(path, PathDoor(group), methods=None, name=path) for path, group in ordered]
