"""Let one keeper act at a time: leadership is an advisory lock held by the very session that does the work.

The server ends a session that has been silent for too long, so a leader that was frozen has lost its lock, and its
connection with it, before it can do anything again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.rows import tuple_row

from infra.advisory_locks import KEEPER

#: How long a leader may be silent before the server takes its lock, seconds.
SILENCE_SECONDS: Final = 10


@contextmanager
def leadership(connection: "psycopg.Connection[Any]") -> Iterator[bool]:
    """Try to lead with this session; yields whether it leads. What the leader changes, it changes through this connection."""
    # In milliseconds; ends the session, which `idle_in_transaction_session_timeout` alone would not: the leader holds no transaction.
    connection.execute(f"set idle_session_timeout = {SILENCE_SECONDS * 1000}")
    with connection.cursor(row_factory=tuple_row) as cursor:
        row = cursor.execute("select pg_try_advisory_lock(%s)", (KEEPER,)).fetchone()
    held = row is not None and bool(row[0])
    try:
        yield held
    finally:
        if held and not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (KEEPER,))
