"""Migrations run once, one at a time, inside their budgets."""

import importlib
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from infra import database
from infra.database import migrate, migration_config, open_engine

REVISION = """
import time
from alembic import op
revision, down_revision, branch_labels, depends_on = "{number}", {before!r}, None, None

def upgrade():
    op.execute("create table if not exists runs (revision text, lock_timeout text)")
    op.execute("insert into runs values ('{number}', current_setting('lock_timeout'))")
    time.sleep(0.2)
    with op.get_context().autocommit_block():
        op.execute("create index concurrently runs_{number} on runs (revision)")
"""

MIGRATE = """
import sys
from alembic import command
from infra.database import migration_config
config = migration_config(sys.argv[1])
config.set_main_option("script_location", sys.argv[2])
command.upgrade(config, "head")
"""


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a history of two revisions in the place of the product's."""
    real = migration_config("postgresql://unused")
    source = Path(str(real.get_main_option("script_location")))
    for name in ("env.py", "script.py.mako"):
        (tmp_path / name).write_text((source / name).read_text(encoding="utf-8"), encoding="utf-8")
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "r1.py").write_text(REVISION.format(number="r1", before=None))
    (versions / "r2.py").write_text(REVISION.format(number="r2", before="r1"))

    def config(url: str) -> Config:
        made = migration_config(url)
        made.set_main_option("script_location", str(tmp_path))
        return made

    monkeypatch.setattr(database, "migration_config", config)
    return tmp_path


@pytest.fixture
def empty_database(database_url: str) -> str:
    """Give a database in which nothing was migrated."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop schema public cascade")
        connection.execute("create schema public")
    return database_url


def test_migrate_can_be_repeated(database_url: str) -> None:
    """A second migration finds nothing to do."""
    migrate(database_url)


def test_migrate_applies_each_revision_once_with_a_lock_budget(empty_database: str, history: Path) -> None:
    """Revisions run in order, once, and none may wait long for a lock."""
    migrate(empty_database)
    migrate(empty_database)
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select * from runs order by 1").fetchall() == [("r1", "4s"), ("r2", "4s")]
    assert history.is_dir()


def test_migrations_take_turns(empty_database: str, history: Path) -> None:
    """Processes that start at once migrate once; an index built without locks does not hang on those that wait."""
    command_line = [sys.executable, "-c", MIGRATE, empty_database, str(history)]
    processes = [subprocess.Popen(command_line) for _ in range(3)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select revision from runs order by 1").fetchall() == [("r1",), ("r2",)]


def test_new_migrations_carry_the_rules(empty_database: str, history: Path) -> None:
    """A migration made from the template says what production asks of it, and is valid Python."""
    config = database.migration_config(empty_database)
    migrate(empty_database)
    command.revision(config, message="Add something", rev_id="r3")
    (made,) = (history / "versions").glob("r3*.py")
    text = made.read_text(encoding="utf-8")
    assert "Rules of production" in text
    compile(text, str(made), "exec")
    migrate(empty_database)


def test_engine_reads_rows(database_url: str) -> None:
    """The engine speaks psycopg 3 and survives a session that the server ended."""
    engine = open_engine(database_url, application_name="test")
    with engine.connect() as connection:
        pid = connection.exec_driver_sql("select pg_backend_pid()").scalar_one()
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    with engine.connect() as connection:
        assert (
            connection.exec_driver_sql("select current_setting('application_name')").scalar_one() == "imagefleet test"
        )
    engine.dispose()


def test_migrated_schema_is_the_one_the_code_declares(database_url: str) -> None:
    """Alembic finds nothing that a migration would have to add."""
    for name in (
        "broker_api.tables",
        "jobs.tables",
        "models_registry.archives.tables",
        "models_registry.pulls.tables",
        "models_registry.recipes.tables",
        "models_registry.tables",
        "jobs.history.usage_tables",
        "models_registry.likeness.tables",
    ):
        importlib.import_module(name)
    engine = open_engine(database_url, application_name="test")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), database.metadata) == []
    engine.dispose()
