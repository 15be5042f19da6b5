"""Connections for work that takes longer than a request may hold one of the pool's, in threads of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from broker_api.services import Services
from infra.database import CONNECT, Connection

#: What archives ask for looks at every row.
_STATEMENT: Final = "set statement_timeout = '10min'"


@contextmanager
def own_connection(services: Services) -> Iterator[Connection]:
    """Open a connection to the database that the pool speaks to, for one thread."""
    conninfo = services.pool.conninfo
    if not isinstance(conninfo, str):
        raise TypeError("the pool was made of one string")
    with psycopg.connect(conninfo, **CONNECT) as connection:
        connection.execute(_STATEMENT)
        yield connection
