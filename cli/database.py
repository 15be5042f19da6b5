"""Open the fleet's database for the commands that work on it directly."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from cli.failure import CommandFailed
from infra.database import Connection, DatabaseUrlInvalid, connect
from infra.embedded.errors import EmbeddedError
from infra.embedded.services import discover
from infra.settings import Settings


def find_database(settings: Settings) -> str:
    """Return the URL of the database that the settings name, or that `imagefleet up` runs; raises CommandFailed."""
    if settings.database_url:
        return settings.database_url
    try:
        found = discover(settings.home)
    except EmbeddedError as problem:
        raise CommandFailed(f"{problem}.") from None
    if found is None:
        raise CommandFailed(
            f"No fleet is running in {settings.home.absolute()}. Start one with `imagefleet up`, or set IMAGEFLEET_DATABASE_URL."
        )
    return found.database_url


@contextmanager
def open_database(settings: Settings) -> Iterator[Connection]:
    """Connect to the fleet's database; a database that is away or not migrated ends the command with a sentence."""
    url = find_database(settings)
    try:
        with connect(url, application_name="command") as connection:
            yield connection
    except DatabaseUrlInvalid as problem:
        raise CommandFailed(f"IMAGEFLEET_DATABASE_URL cannot be used: {problem}.") from None
    except psycopg.errors.UndefinedTable:
        raise CommandFailed("The database has no tables yet, or old ones. Run `imagefleet migrate`.") from None
    except psycopg.OperationalError as problem:
        raise CommandFailed(f"The database does not answer: {str(problem).strip()}.") from None
