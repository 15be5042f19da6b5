"""Open the fleet's database for the commands that work on it directly."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from cli.failure import CommandFailed
from cli.running.services import find_database
from infra.database import Connection, DatabaseUrlInvalid, connect
from infra.settings import Settings


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
