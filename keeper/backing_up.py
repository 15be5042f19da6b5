"""Make the backups that are due, beside the rounds of duties: one takes minutes where the models' files are included."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from infra.database import connect
from infra.logging import get_logger
from infra.storage import Storage, StorageError
from models_registry.archives.backups import BackupRunning
from models_registry.archives.schedule import make_what_is_due
from models_registry.archives.writing import SourceChanged

log = get_logger(__name__)

BACKUP_MADE: Final = "backup_made"
BACKUP_FAILED: Final = "backup_failed"

#: How often is looked whether one is due.
PAUSE_SECONDS: Final = 30.0
#: What is backed up is read in one statement a table.
_STATEMENT_SECONDS: Final = 600.0


@contextmanager
def backing_up(
    database_url: str, storage: Storage, stop: threading.Event, pause_seconds: float = PAUSE_SECONDS
) -> Iterator[None]:
    """Make what is due in a thread, until told to stop; of several keepers one makes each backup."""
    thread = threading.Thread(target=_run, args=(database_url, storage, stop, pause_seconds), name="backups")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _run(database_url: str, storage: Storage, stop: threading.Event, pause_seconds: float) -> None:
    while not stop.wait(pause_seconds):
        try:
            with connect(database_url, application_name="backups", statement_seconds=_STATEMENT_SECONDS) as connection:
                made = make_what_is_due(connection, storage)
        except (psycopg.Error, StorageError, SourceChanged, BackupRunning, OSError) as problem:
            log.warning(BACKUP_FAILED, problem=f"{type(problem).__name__}: {problem}")
        else:
            if made is not None:
                log.info(BACKUP_MADE, backup=str(made.id), bytes=made.bytes)
