"""Run the API under uvicorn, and stop it without cutting anyone off in the middle of a word."""

import contextlib
import signal
import socket
from contextlib import AbstractAsyncContextManager
from typing import Final

import uvicorn

from broker_api.application import create_application
from broker_api.services import Services, open_services
from broker_api.streaming.events import STALL_SECONDS
from infra.embedded.services import ServiceUrls
from infra.processes import set_title
from infra.settings import Settings

TITLE: Final = "api"
#: Requests in the middle of their answer have so long to end when the server stops.
GRACE_SECONDS: Final = 10
#: Connections the kernel holds while the event loop is busy.
BACKLOG: Final = 2048
KEEP_ALIVE_SECONDS: Final = 75
#: A WebSocket message of a client, bytes: a thousand ids, each with an event's id.
LONGEST_MESSAGE: Final = 128 * 1024


class Server(uvicorn.Server):
    """A uvicorn server that ends event streams first when it stops: they resume elsewhere by themselves."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop taking connections, end the streams, let requests finish."""
        services: Services | None = getattr(self.config.app.state, "services", None)  # type: ignore[union-attr]
        if services is not None:
            services.hub.stop_readers()
        await super().shutdown(sockets)


def make_server(settings: Settings, urls: ServiceUrls) -> Server:
    """Return a server that is ready to run."""

    def services() -> AbstractAsyncContextManager[Services]:
        return open_services(settings, urls)

    return Server(
        uvicorn.Config(
            create_application(settings, services),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            ws="websockets-sansio",
            ws_max_size=LONGEST_MESSAGE,
            # A compressor would hold 40 KB for each reader, and previews are compressed already.
            ws_per_message_deflate=False,
            lifespan="on",
            # Our own middleware logs requests, and our own logging formats everything.
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket whose connections are cut when their client takes nothing for a while."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.create_server((host, port), family=family, backlog=BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Accepted connections inherit it. The kernel then drops what a stalled reader never fetched, which closing alone would keep.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALL_SECONDS * 1000))
    return found


def serve(settings: Settings, urls: ServiceUrls) -> None:
    """Serve until SIGINT or SIGTERM, on the main thread of a process of its own; logging is the caller's to configure."""
    set_title(TITLE)
    for stop in (signal.SIGINT, signal.SIGTERM):
        # uvicorn sends itself the signal once more when it has stopped; by then all is done.
        signal.signal(stop, _done)
    with contextlib.closing(bind(settings.host, settings.port)) as listener:
        make_server(settings, urls).run(sockets=[listener])


def _done(signum: int, frame: object) -> None:
    """Do nothing: the server has stopped."""
