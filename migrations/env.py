"""Run migrations under one lock, each in a transaction of its own.

What to copy when a migration is written stands in `script.py.mako`.
"""

import time

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from infra.advisory_locks import MIGRATIONS
from infra.database import metadata, sqlalchemy_url

LOCK_POLL_SECONDS = 0.2
#: A statement that cannot have its table lock so soon gives up: all traffic queues behind a waiting ALTER TABLE.
LOCK_BUDGET = "4s"
STATEMENT_BUDGET = "60s"


def _take_turns(connection: Connection) -> None:
    # Waiting inside pg_advisory_lock() would hold a snapshot, which CREATE INDEX CONCURRENTLY of the holder waits for.
    while not connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": MIGRATIONS}):
        connection.commit()
        time.sleep(LOCK_POLL_SECONDS)
    connection.execute(text(f"set lock_timeout = '{LOCK_BUDGET}'"))
    connection.execute(text(f"set statement_timeout = '{STATEMENT_BUDGET}'"))
    connection.commit()


def run() -> None:
    """Apply what the command asked for; the lock goes with the connection."""
    engine = create_engine(sqlalchemy_url(context.config.attributes["url"]), poolclass=pool.NullPool)
    try:
        with engine.connect() as connection:
            _take_turns(connection)
            context.configure(
                connection=connection,
                target_metadata=metadata,
                transaction_per_migration=True,
                compare_server_default=True,
            )
            with context.begin_transaction():
                context.run_migrations()
    finally:
        engine.dispose()


run()
