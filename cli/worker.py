"""`imagefleet worker`: own one device and draw on it."""

from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.running.services import find_services
from infra.logging import configure_logging
from infra.settings import Settings
from workers.celery_worker import run_worker
from workers.devices import DeviceUnknown
from workers.enrolment import WorkerNotStarted


def worker(
    device: Annotated[
        str | None,
        typer.Option(help="`auto`, `cpu`, `cpu:1`, `cuda:0`, `rocm:0`, `mps`; by default IMAGEFLEET_DEVICE."),
    ] = None,
    tags: Annotated[str | None, typer.Option(help="Extra tags it serves, separated by commas.")] = None,
) -> None:
    """Run one worker until it is told to end; SIGTERM lets it finish or hand back what it draws."""
    given = {"device": device, "tags": tags}
    settings = Settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    configure_logging(process=f"worker {settings.device}", level=settings.log_level, form=settings.log_format)
    try:
        raise typer.Exit(run_worker(settings, find_services(settings)))
    except (DeviceUnknown, WorkerNotStarted) as problem:
        raise CommandFailed(f"{str(problem).rstrip('.')}.") from None
