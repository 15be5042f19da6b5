"""What the database plumbing promises, on a real server."""

import psycopg

from infra.database import migrate


def test_migrate_can_be_repeated(database_url: str) -> None:
    """A second migration finds nothing to do."""
    migrate(database_url)


def test_database_is_fresh(database_url: str) -> None:
    """Each test gets a database without another test's rows."""
    with psycopg.connect(database_url) as connection:
        connection.execute("create table seen (id int)")


def test_database_is_fresh_again(database_url: str) -> None:
    """The table of the test before is not there."""
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select to_regclass('seen')").fetchone() == (None,)
