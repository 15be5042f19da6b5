"""`imagefleet api`: serve HTTP."""

from broker_api.server import serve
from cli.running.services import find_services
from infra.logging import configure_logging
from infra.settings import Settings


def api() -> None:
    """Serve the API; several may run beside each other on the same servers."""
    settings = Settings()
    configure_logging(process="api", level=settings.log_level, form=settings.log_format)
    serve(settings, find_services(settings))
