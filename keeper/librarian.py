"""Look after the model folders, in a thread beside the caretaker's round: scan them, hash what was only looked at, store what nodes lack.

Of several keepers the one that holds a lock does it, whether it leads or not; its host must see the folders.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

import psycopg

from infra.advisory_locks import MODEL_FOLDERS
from infra.database import Connection, connect
from infra.logging import get_logger
from infra.storage import Storage, StorageError
from models_registry.contents.storing import hash_next, store_next
from models_registry.scanning.scan import Progress, scan
from models_registry.scanning.scans import LibraryScan, begin_scan, end_scan, restart_scans, tell_scan

#: How often an idle thread looks for work.
IDLE_SECONDS: Final = 1.0
#: How often a scan says how far it is.
TELL_SECONDS: Final = 0.5
#: What could not be hashed or stored is tried again after so long.
RETRY_SECONDS: Final = 300.0
#: It has so long to end when the process stops; what it does then is harmless when cut short.
STOP_SECONDS: Final = 4.0

DATABASE_AWAY: Final = "database_away"
STORAGE_AWAY: Final = "storage_away"
FOLDERS_SCANNED: Final = "folders_scanned"
MODEL_STORED: Final = "model_stored"
LIBRARIAN_FAILED: Final = "librarian_failed"

log = get_logger(__name__)


@contextlib.contextmanager
def librarian(
    database_url: str, storage: Storage, folders: Sequence[Path], watch_seconds: float, stop: threading.Event
) -> Iterator[None]:
    """Look after the folders until the block ends; `stop` is set before. Without `watch_seconds` only what is asked for is scanned."""
    work = Librarian(database_url, storage, folders, watch_seconds, stop)
    thread = threading.Thread(target=work.run, name="librarian", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(STOP_SECONDS)


class Librarian:
    """What looks after the folders needs of the world."""

    def __init__(
        self, database_url: str, storage: Storage, folders: Sequence[Path], watch_seconds: float, stop: threading.Event
    ) -> None:
        self._database_url = database_url
        self._storage = storage
        self._folders = folders
        self._watch_seconds = watch_seconds
        self._stop = stop
        #: Monotonic time of the next scan that nobody asked for; the start of a fleet has just scanned.
        self._next_watch = time.monotonic() + watch_seconds
        #: What was tried, and when it may be tried again should that be needed: hashing it, and storing it.
        self._hashed: dict[UUID, float] = {}
        self._stored: dict[UUID, float] = {}

    def run(self) -> None:
        """Work until told to stop; whatever is unplugged is tried again."""
        while not self._stop.is_set():
            try:
                with connect(self._database_url, application_name="keeper librarian") as connection:
                    self._work(connection)
            except psycopg.Error as problem:
                log.warning(DATABASE_AWAY, problem=str(problem))
            except Exception:
                log.exception(LIBRARIAN_FAILED)
            self._stop.wait(IDLE_SECONDS)

    def _work(self, connection: Connection) -> None:
        while not self._stop.is_set():
            row = connection.execute("select pg_try_advisory_lock(%s) as held", (MODEL_FOLDERS,)).fetchone()
            if row is not None and row["held"]:
                break
            self._stop.wait(IDLE_SECONDS)
        restart_scans(connection)
        while not self._stop.is_set():
            if not self.work_once(connection):
                self._stop.wait(IDLE_SECONDS)

    def work_once(self, connection: Connection) -> bool:
        """Do the most urgent thing there is; return whether there was one."""
        asked = begin_scan(connection)
        if asked is not None:
            self._scan(connection, asked)
            return True
        if self._store(connection):
            return True
        if self._watch_seconds and self._folders and time.monotonic() >= self._next_watch:
            report = scan(connection, self._folders)
            self._next_watch = time.monotonic() + self._watch_seconds
            if report.added or report.changed:
                log.info(FOLDERS_SCANNED, found=len(report.found), added=len(report.added), changed=len(report.changed))
            return True
        hashed = hash_next(connection, _resting(self._hashed))
        if hashed is not None:
            self._hashed[hashed] = time.monotonic() + RETRY_SECONDS
        return hashed is not None

    def _store(self, connection: Connection) -> bool:
        try:
            stored = store_next(connection, self._storage, _resting(self._stored))
        except StorageError as problem:
            log.warning(STORAGE_AWAY, problem=str(problem))
            return False
        if stored is not None:
            # Once it is stored nobody asks for it; until it can be, others come before it.
            self._stored[stored] = time.monotonic() + IDLE_SECONDS
            log.info(MODEL_STORED, model=str(stored))
        return stored is not None

    def _scan(self, connection: Connection, asked: LibraryScan) -> None:
        told, last = 0.0, Progress(0, 0, Path())

        def hear(progress: Progress) -> None:
            nonlocal told, last
            last = progress
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                tell_scan(connection, asked.id, progress)

        try:
            report = scan(connection, self._folders, progress=hear, again=asked.again)
        except psycopg.Error:
            raise
        except Exception as problem:
            log.exception(LIBRARIAN_FAILED)
            end_scan(connection, asked.id, None, str(problem) or type(problem).__name__)
        else:
            tell_scan(connection, asked.id, last)
            end_scan(connection, asked.id, report)


def _resting(tried: dict[UUID, float]) -> list[UUID]:
    """Return what is not to be tried now, and forget what may be again."""
    now = time.monotonic()
    for which in [which for which, until in tried.items() if until <= now]:
        del tried[which]
    return list(tried)
