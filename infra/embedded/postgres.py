"""Run a PostgreSQL of our own from the binaries of a wheel."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGQUIT

import psycopg
from psycopg import sql

from infra.embedded.binaries import POSTGRES_MAJOR, find_postgres, reachable
from infra.embedded.data import clear_leftovers, keep_access, make_data_folder, own_path, server_user
from infra.embedded.errors import EmbeddedError, HomeUnusable, ServiceFailed
from infra.ports import LOOPBACK
from infra.processes import ChildSpec, RunAs, Supervisor

NAME = "postgres"
#: Role and database, both of this name.
OWNER = "imagefleet"
START_SECONDS = 60.0
#: Nothing of the caller's environment (PGDATA, PGPORT, LD_*, locale) may change the server.
CLEAN_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

CONFIGURATION = """\
# Written at each start. Keep changes of your own with ALTER SYSTEM.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = scram-sha-256
max_connections = 200
shared_buffers = 128MB
dynamic_shared_memory_type = posix
max_wal_size = 2GB

# A job accepted is a job kept: commits wait for the disk.
fsync = {durable}
synchronous_commit = on
full_page_writes = {durable}

# Short statements over a hot table: no plan pays for compilation or parallel workers, and small containers have
# too little shared memory for the latter.
jit = off
max_parallel_workers_per_gather = 0

# Dead index entries, old statistics and long snapshots slow the claim: vacuum often, end idle transactions.
autovacuum_naptime = 15s
autovacuum_vacuum_cost_delay = 1ms
idle_in_transaction_session_timeout = 60s

# Notice clients that vanished.
tcp_keepalives_idle = 30
tcp_keepalives_interval = 10
tcp_keepalives_count = 3
client_connection_check_interval = 5s

timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %a '
log_lock_waits = on
log_min_duration_statement = 5s
log_checkpoints = off
"""


@dataclass(frozen=True)
class _Cluster:
    """Hold where one server's parts are."""

    data: Path
    log: Path
    binary: Path
    user: RunAs | None
    port: int
    password: str
    durable: bool

    @property
    def url(self) -> str:
        return f"postgresql://{OWNER}:{self.password}@{LOOPBACK}:{self.port}/{OWNER}"


def start_postgres(home: Path, supervisor: Supervisor, *, durable: bool = True) -> str:
    """Start PostgreSQL on data in `<home>/postgres` and return its URL once it answers.

    The caller holds the home's lock. `durable=False` may lose everything on a power cut, for tests. Raises EmbeddedError.
    """
    data = home / "postgres"
    user = server_user(data)
    program = reachable(find_postgres(), user)
    clear_leftovers(data, NAME)
    access = keep_access(home / "postgres.json")
    log = home / "logs" / "postgres.log"
    cluster = _Cluster(data, log, program.path, user, access.port, access.password, durable)
    if not data.exists():
        _create(cluster, home)
    _check_version(data)
    configuration = CONFIGURATION.format(port=access.port, durable="on" if durable else "off")
    supervisor.start(
        ChildSpec(
            name=NAME,
            argv=(str(program.path), "-D", own_path(data, user)),
            env=CLEAN_ENV,
            cwd=data,
            log=log,
            run_as=user,
            # Fast shutdown: clients are cut, all is written.
            stop_signal=SIGINT,
            # Without a supervisor nobody waits for a checkpoint: end at once, recover from the log at the next start.
            orphan_signal=SIGQUIT,
            grace=30.0,
            before_start=lambda: _prepare(cluster, configuration),
        )
    )
    _wait(cluster, supervisor)
    return cluster.url


def _create(cluster: _Cluster, home: Path) -> None:
    """Make the data folder under another name first, so that a half-made one is never taken for whole."""
    draft = home / "postgres.new"
    for program in ("initdb", NAME):
        clear_leftovers(draft, program)
    shutil.rmtree(draft, ignore_errors=True)
    make_data_folder(draft, cluster.user)
    secret = home / "postgres.secret"
    descriptor = os.open(secret, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, cluster.password.encode("ascii"))
        os.lseek(descriptor, 0, os.SEEK_SET)
        if cluster.user is not None:
            os.fchown(descriptor, cluster.user.uid, cluster.user.gid)
        _initdb(cluster, draft, descriptor)
    finally:
        os.close(descriptor)
        secret.unlink()
    draft.rename(cluster.data)


def _initdb(cluster: _Cluster, draft: Path, secret: int) -> None:
    options = (
        f"--username={OWNER}",
        "--auth=scram-sha-256",
        # A descriptor: the path may be out of reach for the server's user.
        f"--pwfile=/dev/fd/{secret}",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        *(() if cluster.durable else ("--no-sync",)),
    )
    user = cluster.user
    done = subprocess.run(  # noqa: S603 - our own binary and options
        [str(cluster.binary.with_name("initdb")), "-D", own_path(draft, user), *options],
        cwd=draft,
        env=CLEAN_ENV,
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
        pass_fds=(secret,),
        capture_output=True,
        check=False,
    )
    cluster.log.write_bytes(done.stdout + done.stderr)
    if done.returncode:
        raise ServiceFailed("PostgreSQL", "its data folder could not be made", cluster.log)


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if found != str(POSTGRES_MAJOR):
        raise HomeUnusable(
            f"{data} was written by PostgreSQL {found} and this release brings {POSTGRES_MAJOR}: "
            "dump it with the older release and load the dump here"
        )


def _prepare(cluster: _Cluster, configuration: str) -> None:
    """Leave nothing that stops a start; the home's lock makes sure no other instance is alive here."""
    clear_leftovers(cluster.data, NAME)
    # What it names is dead, a zombie, or by now some other program's process: PostgreSQL would take it for alive.
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    file = cluster.data / "postgresql.conf"
    file.write_text(configuration, encoding="utf-8")
    file.chmod(0o600)
    if cluster.user is not None:
        os.chown(file, cluster.user.uid, cluster.user.gid)


def _wait(cluster: _Cluster, supervisor: Supervisor) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _ensure_database(cluster)
        except psycopg.OperationalError as problem:
            if supervisor.state(NAME).restarts > 1:
                raise ServiceFailed("PostgreSQL", "it ends again and again", cluster.log) from None
            if time.monotonic() > deadline:
                raise ServiceFailed("PostgreSQL", str(problem), cluster.log) from None
            time.sleep(0.05)
        except psycopg.Error as problem:
            raise EmbeddedError(f"PostgreSQL answers, but its database cannot be made: {problem}") from problem
        else:
            return


def _ensure_database(cluster: _Cluster) -> None:
    maintenance = cluster.url.rsplit("/", 1)[0] + "/postgres"
    with psycopg.connect(maintenance, autocommit=True, connect_timeout=5) as connection:
        row = connection.execute("select 1 from pg_database where datname = %s", (OWNER,)).fetchone()
        if row is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(OWNER)))
