"""Find the database and the message store that a command of this machine should use."""

import typer

from infra.embedded.errors import EmbeddedError
from infra.embedded.services import ServiceUrls, discover
from infra.settings import Settings


def find_services(settings: Settings) -> ServiceUrls:
    """Return the servers that the settings name, or those that `imagefleet up` runs in the home folder.

    Ends the command with one sentence when there are none.
    """
    try:
        found = discover(settings.home)
    except EmbeddedError as problem:
        typer.secho(str(problem), err=True, fg="red")
        raise typer.Exit(1) from None
    database_url = settings.database_url or (found and found.database_url)
    redis_url = settings.redis_url or (found and found.redis_url)
    if database_url and redis_url:
        return ServiceUrls(database_url, redis_url)
    typer.secho(
        f"No fleet is running in {settings.home.absolute()}. Start one with `imagefleet up`, or set IMAGEFLEET_DATABASE_URL and "
        "IMAGEFLEET_REDIS_URL.",
        err=True,
        fg="red",
    )
    raise typer.Exit(1)
