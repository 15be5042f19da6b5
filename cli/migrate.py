"""`imagefleet migrate`: bring the database's tables to this version."""

import psycopg
import sqlalchemy.exc
import typer

from cli.failure import CommandFailed
from cli.running.services import find_database
from infra.database import DatabaseUrlInvalid
from infra.database import migrate as migrate_database
from infra.settings import Settings


def migrate() -> None:
    """Bring the database's tables to this version; several at once take turns."""
    url = find_database(Settings())
    try:
        migrate_database(url)
    except DatabaseUrlInvalid as problem:
        raise CommandFailed(f"IMAGEFLEET_DATABASE_URL cannot be used: {problem}.") from None
    except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as problem:
        reason = str(getattr(problem, "orig", None) or problem).strip()
        raise CommandFailed(f"The database does not answer: {reason}.") from None
    typer.echo("The tables are those of this version.")
