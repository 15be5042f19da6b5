"""`imagefleet celery …`: speak to the fleet's workers with Celery's own commands."""

import typer

from cli.running.services import find_services
from infra.celery_app import make_celery
from infra.settings import Settings


def celery(context: typer.Context) -> None:
    """Run a Celery command against this fleet, e.g. `imagefleet celery inspect ping`."""
    application = make_celery(find_services(Settings()).redis_url)
    raise typer.Exit(int(application.start(argv=context.args) or 0))
