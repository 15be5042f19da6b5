"""Look through the stored pictures for such as no row refers to, a few in each round: the open listing is the cursor."""

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
STORAGE_AWAY: Final = "storage_away"
#: Objects one round looks at, at most.
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
        self._next = 0.0

    def sweep(self, connection: "psycopg.Connection[Any]") -> None:
        """Leave what is found among the next objects to `garbage`."""
        if self._listing is None:
            if time.monotonic() < self._next:
                return
            self._listing = self._storage.list(PICTURES)
        try:
            batch = list(islice(self._listing, BATCH))
        except StorageError as problem:
            log.warning(STORAGE_AWAY, problem=str(problem))
            self._rest()
            return
        if not batch:
            self._rest()
            return
        settled = datetime.now(UTC) - SETTLED
        strays = leave_strays(connection, [found.key for found in batch if found.modified < settled])
        if strays:
            log.info(STRAYS_FOUND, objects=len(strays))

    def _rest(self) -> None:
        self._listing = None
        self._next = time.monotonic() + REST_SECONDS
