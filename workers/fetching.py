"""Fetch what jobs need and this host lacks, beside the drawing: the drain loop never waits for a storage."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from infra.logging import get_logger
from infra.storage import ObjectMissing, Storage, StorageError, StorageUnavailable
from jobs.errors import JobFailure, PictureUnreadable
from jobs.inputs import Inputs
from jobs.pictures import upload_ref, uploads_of
from jobs.uploads import upload_key
from workers.held import Held
from workers.model_fetching import Abandoned, ModelFetcher

#: Pictures kept for the jobs to come, bytes: people redraw the same one again and again.
REMEMBERED_BYTES: Final = 128 * 1024 * 1024

INPUTS_NOT_FETCHED: Final = "inputs_not_fetched"

log = get_logger(__name__)


class Waiting(Protocol):
    """Who hears what came of it; nothing here waits."""

    def still_fetching(self, held: Held) -> None:
        """Hear that more of a job's models is here."""

    def fetched(self, held: Held, inputs: Inputs) -> None:
        """Take everything a job needs."""

    def unfetched(self, held: Held, failure: JobFailure | None) -> None:
        """Hear that there are none: the job is at fault, or with None the storage."""


class PictureCache:
    """Remember the pictures used last, by their SHA-256; of one thread alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, sha256: str) -> bytes | None:
        """Return a picture that is remembered."""
        found = self._held.get(sha256)
        if found is not None:
            self._held.move_to_end(sha256)
        return found

    def put(self, sha256: str, data: bytes) -> None:
        """Remember a picture, and forget those used longest ago."""
        if len(data) > self._limit or sha256 in self._held:
            return
        self._held[sha256] = data
        self._bytes += len(data)
        while self._bytes > self._limit:
            _, oldest = self._held.popitem(last=False)
            self._bytes -= len(oldest)


class Fetcher:
    """Fetch in one thread, job after job."""

    def __init__(
        self,
        storage: Storage,
        models: ModelFetcher,
        waiting: Waiting,
        storage_lost: Callable[[StorageUnavailable], None],
    ) -> None:
        self._models = models
        self._storage = storage
        self._waiting = waiting
        self._storage_lost = storage_lost
        self._cache = PictureCache(REMEMBERED_BYTES)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fetcher")

    def fetch(self, held: Held) -> None:
        """Begin to fetch what a job lacks."""
        self._thread.submit(self._run, held)

    def close(self) -> None:
        """Fetch nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, held: Held) -> None:
        try:
            pictures = {upload_ref(sha256): self._one(sha256) for sha256 in uploads_of(held.job.parameters)}
            here, held.holds = self._models.fetch(held, lambda: self._waiting.still_fetching(held))
        except Abandoned:
            # It has ended already.
            return
        except JobFailure as failure:
            self._waiting.unfetched(held, failure)
        except StorageUnavailable as problem:
            self._storage_lost(problem)
            self._waiting.unfetched(held, None)
        except Exception:
            log.exception(INPUTS_NOT_FETCHED, job=str(held.job.id))
            self._waiting.unfetched(held, JobFailure("What the job needs could not be fetched."))
        else:
            self._waiting.fetched(held, Inputs({**held.inputs.models, **here}, pictures))

    def _one(self, sha256: str) -> bytes:
        """Return a picture whose bytes are those that were recorded."""
        known = self._cache.get(sha256)
        if known is not None:
            return known
        try:
            data = self._storage.get(upload_key(sha256))
        except ObjectMissing:
            raise PictureUnreadable("A picture this job starts from is gone from storage.") from None
        except StorageUnavailable:
            raise
        except StorageError as problem:
            raise PictureUnreadable(f"A picture this job starts from cannot be read: {problem}.") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PictureUnreadable("A picture this job starts from is not the one that was recorded.")
        self._cache.put(sha256, data)
        return data
