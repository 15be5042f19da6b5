"""`imagefleet node`: one worker per device of this machine."""

import os
import signal
import threading
from typing import Annotated

import typer
from rich.console import Console

from cli.running.live_state import show_until
from cli.running.parts import Parts, choose_devices
from cli.running.services import find_services
from infra.files import make_private_folder
from infra.processes import Supervisor, set_title
from infra.settings import Settings


def node(
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers to start; by default one per GPU, or one on the CPU.")
    ] = None,
) -> None:
    """Run a worker on each device of this machine and keep them running, until SIGTERM or Ctrl-C."""
    settings = Settings()
    services = find_services(settings)
    set_title("node")
    make_private_folder(settings.home.absolute() / "logs")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    devices = choose_devices(settings, workers)
    parts = Parts(settings, services, os.environ, devices)
    console = Console()
    with Supervisor() as supervisor:
        for device in devices:
            supervisor.start(parts.worker(device))
        console.print(f"Workers on {', '.join(devices)}; logs in {settings.home.absolute() / 'logs'}", highlight=False)
        show_until(stop, supervisor.states, None, console)
