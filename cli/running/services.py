"""Find the database and the message store that a command of this machine should use."""

from cli.failure import CommandFailed
from infra.embedded.errors import EmbeddedError
from infra.embedded.services import ServiceUrls, discover
from infra.settings import Settings


def find_services(settings: Settings) -> ServiceUrls:
    """Return the servers that the settings name, or those `imagefleet up` runs in the home folder; raises CommandFailed."""
    if settings.database_url and settings.redis_url:
        return ServiceUrls(settings.database_url, settings.redis_url)
    found = _running(settings, "IMAGEFLEET_DATABASE_URL and IMAGEFLEET_REDIS_URL")
    return ServiceUrls(settings.database_url or found.database_url, settings.redis_url or found.redis_url)


def find_database(settings: Settings) -> str:
    """Return the database that the settings name, or that `imagefleet up` runs; raises CommandFailed."""
    return settings.database_url or _running(settings, "IMAGEFLEET_DATABASE_URL").database_url


def _running(settings: Settings, instead: str) -> ServiceUrls:
    try:
        found = discover(settings.home)
    except EmbeddedError as problem:
        raise CommandFailed(f"{problem}.") from None
    if found is None:
        raise CommandFailed(
            f"No fleet is running in {settings.home.absolute()}. Start one with `imagefleet up`, or set {instead}."
        )
    return found
