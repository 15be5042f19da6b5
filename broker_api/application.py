"""Make the ASGI application from its table of routes."""

import contextlib
import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from broker_api.dispatch import routes_of
from broker_api.docs import docs_page, landing_page
from broker_api.http.access_log import AccessMiddleware
from broker_api.http.limits import Limits, LimitsMiddleware, accepted_hosts
from broker_api.openapi import openapi_document, problems_of
from broker_api.pages import Pages
from broker_api.problems import problem_of, problem_response
from broker_api.routes import ENDPOINTS
from broker_api.services import OpenServices
from broker_api.streaming.sockets import PATH, progress_socket
from broker_api.version import version
from broker_api.web_app import load_web_app
from infra.settings import Settings


def create_application(settings: Settings, open_services: OpenServices) -> Starlette:
    """Return the application; its lifespan opens the services and closes them."""

    @contextlib.asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        async with open_services() as services:
            application.state.services = services
            application.state.metrics = services.metrics
            yield

    application = Starlette(
        routes=[WebSocketRoute(PATH, progress_socket), *routes_of(ENDPOINTS)],
        middleware=[
            Middleware(AccessMiddleware),
            Middleware(LimitsMiddleware, _limits(settings)),
        ],
        # Nothing matches (404), and what escaped every other net (500).
        exception_handlers={404: _as_problem, 405: _as_problem, Exception: _as_problem},
        lifespan=lifespan,
    )
    application.router.redirect_slashes = False
    application.state.pages = _render(settings)
    application.state.web_app = load_web_app()
    return application


def _limits(settings: Settings) -> Limits:
    # A path's parameters come last in those that take whole files.
    large = tuple(each.path.partition("{")[0] for each in ENDPOINTS if each.file is not None and each.file.is_large)
    hosts = accepted_hosts(settings.hosts, settings.host)
    # A form is a little larger than the file in it.
    most = settings.max_model_bytes + settings.max_body_bytes
    return Limits(settings.max_body_bytes, settings.body_pause_seconds, hosts, large, most)


def base_url(settings: Settings) -> str:
    """Return where clients find this server."""
    return settings.url or f"http://{settings.host}:{settings.port}"


def _render(settings: Settings) -> Pages:
    document = openapi_document(ENDPOINTS, version=version())
    problems = {error for endpoint in ENDPOINTS for error in problems_of(endpoint)}
    return Pages(
        landing=landing_page(version=version(), url=base_url(settings)),
        docs=docs_page(document, problems),
        openapi=json.dumps(document, ensure_ascii=False).encode(),
    )


async def _as_problem(request: Request, error: Exception) -> Response:
    return problem_response(problem_of(error), request_id=request.scope.get("request_id"), path=request.url.path)
