"""Look through the storage for pictures that no row refers to and for half-written files of killed writers.

A few in each round: the open listings are the cursors.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import psycopg

from infra.logging import get_logger
from infra.storage import ObjectInfo, Storage, StorageError
from jobs.strays import PICTURES, leave_strays

log = get_logger(__name__)

STRAYS_FOUND: Final = "strays_found"
DRAFTS_REMOVED: Final = "drafts_removed"
STORAGE_AWAY: Final = "storage_away"
#: Objects, and folders, that one round looks at, at most.
BATCH: Final = 1000
#: What was stored so recently may be about to be recorded.
SETTLED: Final = timedelta(days=1)
#: From the end of one look through all of them to the next.
REST_SECONDS: Final = 3600.0


class Strays:
    """Where the look through the pictures stands; a new leader begins anew."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._listing: Iterator[ObjectInfo] | None = None
        self._drafts: Iterator[int] = iter(())
        self._next = 0.0

    def sweep(self, connection: "psycopg.Connection[Any]") -> None:
        """Leave what is found among the next objects to `garbage`, and remove the drafts of the next folders."""
        settled = datetime.now(UTC) - SETTLED
        if self._listing is None:
            if time.monotonic() < self._next:
                return
            self._listing = self._storage.list(PICTURES)
            self._drafts = self._storage.forget_drafts(settled)
        try:
            batch = list(islice(self._listing, BATCH))
            drafts = list(islice(self._drafts, BATCH))
        except (StorageError, OSError) as problem:
            log.warning(STORAGE_AWAY, problem=str(problem))
            self._rest()
            return
        if not batch and not drafts:
            self._rest()
            return
        if any(drafts):
            log.info(DRAFTS_REMOVED, files=sum(drafts))
        strays = leave_strays(connection, [found.key for found in batch if found.modified < settled])
        if strays:
            log.info(STRAYS_FOUND, objects=len(strays))

    def _rest(self) -> None:
        self._listing = None
        self._next = time.monotonic() + REST_SECONDS
