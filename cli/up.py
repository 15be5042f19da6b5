"""`imagefleet up`: everything on one machine, until Ctrl-C."""

import os
import secrets
import signal
import threading
from collections.abc import Sequence
from typing import Annotated

import psycopg
import typer
from rich.console import Console

from broker_api.auth.keys import ensure_first_key
from cli.failure import CommandFailed
from cli.running.first_picture import draw_first_picture, wait_until_ready
from cli.running.folders import model_folders
from cli.running.live_state import show_until
from cli.running.parts import Parts, choose_devices
from cli.speaking.fleet import fleet_url, local_url
from client.client import Client
from infra.database import connect, migrate
from infra.embedded.errors import EmbeddedError
from infra.embedded.services import Services, ServiceUrls, start_services
from infra.flower import flower_child, flower_url
from infra.ports import LOOPBACK, free_port, is_free
from infra.processes import Supervisor, set_title
from infra.settings import Settings
from jobs.reading import tally
from models_registry.entries import Kind
from models_registry.scanning.scan import scan


def up(
    workers: Annotated[
        int | None, typer.Option(min=0, help="Workers to start; by default one per GPU, or one on the CPU.")
    ] = None,
    draw: Annotated[
        str | None, typer.Option(help="Draw this prompt once everything runs, to see that it works.")
    ] = None,
) -> None:
    """Start the database, Redis, the API, the keeper, Flower and this machine's workers, and keep them running."""
    settings = Settings()
    console = Console()
    set_title("up")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        devices = choose_devices(settings, workers)
        with console.status("Starting Postgres and Redis …"):
            services = start_services(settings.home, database_url=settings.database_url, redis_url=settings.redis_url)
        with services:
            _check_port(settings)
            _prepare(settings, services.urls, console)
            _serve(settings, services, devices, draw, console, stop)
            console.print("Stopping …")
    except EmbeddedError as problem:
        raise CommandFailed(f"{problem}.") from None
    console.print("Stopped.")


def _check_port(settings: Settings) -> None:
    if settings.host == LOOPBACK and not is_free(settings.port):
        raise CommandFailed(f"Something listens on port {settings.port} already; set IMAGEFLEET_PORT to another one.")


def _prepare(settings: Settings, services: ServiceUrls, console: Console) -> None:
    with console.status("Preparing the database …"):
        migrate(services.database_url)
        (settings.home / "models").mkdir(exist_ok=True)
        with connect(services.database_url, application_name="up") as connection:
            report = scan(connection, model_folders(settings))
            ensure_first_key(connection, settings.home)
    found = ", ".join(ref.name for ref in report.found if ref.kind is Kind.CHECKPOINT)
    others = sum(ref.kind is not Kind.CHECKPOINT for ref in report.found)
    console.print(f"Models: {found or 'none found'}; {others} adapters and upscalers", highlight=False)
    for refusal in report.refused:
        console.print(f"[yellow]Not offered: {refusal.path}: {refusal.reason}[/yellow]", highlight=False)


def _serve(
    settings: Settings,
    services: Services,
    devices: Sequence[str],
    draw: str | None,
    console: Console,
    stop: threading.Event,
) -> None:
    port, password = free_port(), secrets.token_urlsafe(24)
    settings = settings.model_copy(update={"flower_url": flower_url(port), "flower_password": password})
    parts = Parts(settings, services.urls, os.environ, devices)
    key_file = settings.home / "api-key"
    url = fleet_url(settings)
    with Supervisor() as supervisor:
        supervisor.start(parts.keeper())
        supervisor.start(flower_child(services.urls.redis_url, port, password, log=parts.log("flower")))
        supervisor.start(parts.api())
        for device in devices:
            supervisor.start(parts.worker(device))
        with Client(local_url(settings), key_file.read_text(encoding="ascii").strip()) as client:
            with console.status("Starting the API and the workers …"):
                ready = wait_until_ready(client, len(devices), stop)
            if ready and draw is not None:
                drawn = draw_first_picture(client, draw, settings.home / "pictures", console, stop)
                if drawn is not None:
                    console.print(f"First picture: {drawn.absolute()}", highlight=False, soft_wrap=True)
        if ready:
            console.print(
                f"Serving at {url}   (documentation: {url}/docs, workers: {url}/flower/)",
                highlight=False,
                soft_wrap=True,
            )
            console.print(f"Key: {key_file.absolute()}", highlight=False, soft_wrap=True)

        def counts() -> dict[str, int]:
            try:
                with connect(services.urls.database_url, application_name="up", statement_seconds=2) as connection:
                    return tally(connection)
            except psycopg.Error:
                return {}

        show_until(stop, lambda: [*services.states(), *supervisor.states()], counts, console)
