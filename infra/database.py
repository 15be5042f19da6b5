"""Connect to Postgres: pools for the hot statements, an engine for everything else, migrations."""

import functools
import importlib.util
import select
import threading
from typing import Any, TypeAlias

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import URL, Engine, MetaData, create_engine, make_url

#: Every table of the product hangs here; the naming lets migrations address constraints alike on every server.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Connection: TypeAlias = psycopg.Connection[DictRow]
AsyncConnection: TypeAlias = psycopg.AsyncConnection[DictRow]
Pool: TypeAlias = ConnectionPool[Connection]
AsyncPool: TypeAlias = AsyncConnectionPool[AsyncConnection]

#: A connection attempt is retried after 1 and 2 s and then anew: longer pauses would outlast the outage.
RECONNECT_SECONDS = 5.0

#: libpq notices a vanished server within about a minute, and unsent data after 30 s.
KEEPALIVE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class DatabaseUrlInvalid(ValueError):
    """The database URL names no PostgreSQL server."""


def normalise_url(url: str) -> str:
    """Return the `postgresql://` form of a URL in any spelling users have; raises DatabaseUrlInvalid."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.partition("+")[0] not in {"postgres", "postgresql"}:
        # The rest may hold a password: it is not repeated.
        raise DatabaseUrlInvalid(f"a database URL begins with postgresql://, not {scheme if separator else '…'}")
    return f"postgresql://{rest}"


def sqlalchemy_url(url: str) -> URL:
    """Return the URL as SQLAlchemy wants it, with the psycopg 3 driver."""
    return make_url(normalise_url(url)).set(drivername="postgresql+psycopg")


def connection_string(
    url: str, *, application_name: str, statement_seconds: float = 30.0, generic_plans: bool = False
) -> str:
    """Return libpq's form of a URL with keepalives, limits and a name for `pg_stat_activity`.

    `generic_plans` plans each prepared statement once: for claims, whose LIMIT parameters would be planned every time.
    """
    given = conninfo_to_dict(normalise_url(url))
    session = {
        "statement_timeout": f"{round(statement_seconds * 1000)}ms",
        "lock_timeout": f"{round(min(statement_seconds, 10.0) * 1000)}ms",
        "idle_in_transaction_session_timeout": "60s",
        "timezone": "UTC",
    }
    if generic_plans:
        session["plan_cache_mode"] = "force_generic_plan"
    options = " ".join(
        [str(given.pop("options", None) or ""), *(f"-c {name}={value}" for name, value in session.items())]
    )
    parameters = KEEPALIVE | given | {"application_name": f"imagefleet {application_name}", "options": options.strip()}
    return make_conninfo("", **parameters)


#: Statements are prepared at first use, commit by themselves, and yield mappings.
CONNECT: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}


def connect(
    url: str, *, application_name: str, statement_seconds: float = 30.0, generic_plans: bool = False
) -> Connection:
    """Open one connection outside of any pool, for a listener or a lock holder."""
    string = connection_string(
        url, application_name=application_name, statement_seconds=statement_seconds, generic_plans=generic_plans
    )
    return psycopg.connect(string, **CONNECT)


def open_pool(
    url: str,
    *,
    application_name: str,
    size: int = 4,
    statement_seconds: float = 30.0,
    generic_plans: bool = False,
    wait_seconds: float = 10.0,
) -> Pool:
    """Open a pool for threads; it opens even while the server is down and recovers by itself.

    `size` is the most connections; `wait_seconds` how long a caller waits for one before PoolTimeout.
    """

    def check(connection: Connection) -> None:
        if not _has_news(connection):
            return
        try:
            connection.execute("")
        except psycopg.OperationalError:
            # All others died with it: drop them at once, else callers find them one by one with growing pauses.
            pool.check()
            raise

    pool: Pool = ConnectionPool(
        connection_string(
            url, application_name=application_name, statement_seconds=statement_seconds, generic_plans=generic_plans
        ),
        kwargs=CONNECT,
        min_size=1,
        max_size=size,
        timeout=wait_seconds,
        check=check,
        reconnect_timeout=RECONNECT_SECONDS,
        reconnect_failed=_try_again,
        open=False,
        name=f"imagefleet {application_name}",
    )
    pool.open()
    return pool


def make_async_pool(
    url: str,
    *,
    application_name: str,
    size: int = 8,
    statement_seconds: float = 30.0,
    generic_plans: bool = False,
    wait_seconds: float = 10.0,
) -> AsyncPool:
    """Make a pool for one event loop; `await pool.open()` or `async with` it there. Recovers as the other does."""

    async def check(connection: AsyncConnection) -> None:
        if not _has_news(connection):
            return
        try:
            await connection.execute("")
        except psycopg.OperationalError:
            await pool.check()
            raise

    pool: AsyncPool = AsyncConnectionPool(
        connection_string(
            url, application_name=application_name, statement_seconds=statement_seconds, generic_plans=generic_plans
        ),
        kwargs=CONNECT,
        min_size=1,
        max_size=size,
        timeout=wait_seconds,
        check=check,
        reconnect_timeout=RECONNECT_SECONDS,
        reconnect_failed=_try_again_async,
        open=False,
        name=f"imagefleet {application_name}",
    )
    return pool


def _has_news(connection: Connection | AsyncConnection) -> bool:
    """Tell whether an idle connection should be tested before it is used; costs no round trip.

    A server that stops, or ends a session, sends a last message or closes: either makes the socket readable.
    """
    if connection.closed:
        return True
    poller = select.poll()
    poller.register(connection.pgconn.socket, select.POLLIN)
    return bool(poller.poll(0))


def _try_again(pool: Pool) -> None:
    # A check lets the pool grow again: callers already waiting get their connection as soon as the server is back.
    pool.check()


async def _try_again_async(pool: AsyncPool) -> None:
    await pool.check()


def open_engine(url: str, *, application_name: str, size: int = 4) -> Engine:
    """Open a SQLAlchemy engine for what is not hot; connections are tested when they are taken."""
    string = connection_string(url, application_name=application_name)
    return create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(string),
        pool_size=size,
        max_overflow=0,
        pool_pre_ping=True,
    )


def migration_config(url: str) -> Config:
    """Return Alembic's configuration for the migrations of this installation."""
    spec = importlib.util.find_spec("migrations")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the package `migrations` is not installed")
    config = Config()
    # Values go through the config parser's interpolation.
    config.set_main_option("script_location", next(iter(spec.submodule_search_locations)).replace("%", "%%"))
    config.attributes["url"] = normalise_url(url)
    return config


#: Alembic keeps its context in module globals.
_migrating = threading.Lock()


@functools.cache
def newest_migration() -> str:
    """Return the newest revision this installation knows."""
    return str(ScriptDirectory.from_config(migration_config("postgresql://unused")).get_current_head())


def migrate(url: str) -> None:
    """Bring the schema to the newest version; several callers, on any machine, take turns by an advisory lock."""
    with _migrating:
        command.upgrade(migration_config(url), "head")
