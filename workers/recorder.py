"""Store pictures and record outcomes, beside the engine's next job.

Everything here is guarded by the job's epoch in the database: a worker that lost the job changes nothing and removes what it stored.
When the database is out of reach a finished job is kept and recorded as soon as it is back, if it is still this worker's. When the
storage is, the job goes back into its queue, and nothing is claimed until the storage is back.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

import psycopg
import stamina

from infra.database import Connection, Pool
from infra.logging import get_logger
from infra.storage import Storage, StorageError, StorageUnavailable
from jobs import store
from jobs.analysing.analyses import complete_analysis
from jobs.changes import Change
from jobs.errors import JobFailure, PictureInvalid
from jobs.events import Event
from jobs.geometry import picture_count
from jobs.reading import image_url
from jobs.store import StoredPicture
from workers.engines.interface import Pictured
from workers.held import Held
from workers.progress import Narrator
from workers.storage_watch import STORAGE_AWAY, StorageWatch
from workers.storing import FIRST_PAUSE, LONGEST_PAUSE, epoch_of, picture_folder, store_picture

#: One encodes while the other waits for storage or database.
THREADS: Final = 2

OUTCOME_NOT_RECORDED: Final = "outcome_not_recorded"
JOB_ENDED: Final = "job_ended"
RESULT_REFUSED: Final = "result_refused"

log = get_logger(__name__)


class TaskEvents(Protocol):
    """Who shows jobs as tasks to Celery's monitors."""

    def ended(self, held: Held, change: Change) -> None:
        """Show how a task ended."""


class Recorder:
    """The keeper of outcomes; every public method queues its work and returns at once."""

    def __init__(self, storage: Storage, pool: Pool, narrator: Narrator, tasks: TaskEvents, limit: float) -> None:
        self._storage = storage
        self._pool = pool
        self._narrator = narrator
        self._tasks = tasks
        #: How long storing and recording are tried, seconds each.
        self._limit = limit
        self._leaving = threading.Event()
        self._storage_watch = StorageWatch(storage)
        self._release: Callable[[Held], None]
        # First in, first out: a task that waits for earlier ones only waits for what has begun.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="recorder")

    def report_to(self, release: Callable[[Held], None], can_store_again: Callable[[], None]) -> None:
        """Say who hears that a job has been dealt with, and that the storage is back; done once, before anything else."""
        self._release = release
        self._storage_watch.report_to(can_store_again)

    def can_store(self) -> bool:
        """Tell whether there is a storage to draw for."""
        return not self._storage_watch.away

    def storage_lost(self, problem: StorageUnavailable) -> None:
        """Hear from others that the storage is away: nothing is claimed until it is back."""
        self._storage_watch.lost(problem)

    def picture(self, held: Held, report: Pictured) -> None:
        """Begin to encode and store a picture."""
        held.pictures.append(self._threads.submit(self._store, held, report))

    def complete(self, held: Held, seconds: float) -> None:
        """Record success once the pictures are stored."""
        self._do(held, lambda: self._complete(held, seconds))

    def fail(self, held: Held, failure: JobFailure) -> None:
        """Record a failure."""
        self._do(held, lambda: self._fail(held, failure))

    def stopped(self, held: Held) -> None:
        """Record that a cancelled job has really stopped."""
        self._do(held, lambda: self._give_up(held, lambda line, seq: store.stopped(line, *held.key, seq)))

    def hand_back(self, held: Held, reason: str) -> None:
        """Put the job back into its queue."""
        self._do(held, lambda: self._give_up(held, lambda line, _: store.hand_back(line, *held.key, reason)))

    def discard(self, held: Held) -> None:
        """Forget a job that is another writer's, and what was stored for it."""
        self._do(held, lambda: self._forget_pictures(held))

    def hurry(self) -> None:
        """Try nothing again from now on: the worker leaves."""
        self._leaving.set()

    def close(self) -> None:
        """Take no more work; what is queued is still done."""
        self._threads.shutdown(wait=False)
        self._storage_watch.close()

    def _do(self, held: Held, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except psycopg.Error as problem:
                # The lease runs out and the keeper takes the job back; objects stay, since the row may refer to them.
                log.warning(OUTCOME_NOT_RECORDED, job=str(held.job.id), problem=str(problem))
            except Exception:
                log.exception(OUTCOME_NOT_RECORDED, job=str(held.job.id))
            finally:
                self._release(held)

        self._threads.submit(run)

    def _store(self, held: Held, report: Pictured) -> StoredPicture:
        def in_vain() -> bool:
            # What was drawn before the storage was known to be away is tried once: a queue of full waits would outlast the leases.
            return self._leaving.is_set() or self._storage_watch.away

        try:
            return store_picture(self._storage, held, report, self._limit, in_vain)
        except StorageUnavailable as problem:
            self._storage_watch.lost(problem)
            raise

    def _complete(self, held: Held, seconds: float) -> None:
        try:
            pictures = [picture.result() for picture in held.pictures]
        except StorageUnavailable:
            # An outage is no fault of the job: it is charged nothing, however long it lasts.
            self._give_up(held, lambda line, _: store.hand_back(line, *held.key, STORAGE_AWAY))
            return
        except Exception as problem:  # noqa: BLE001 - whatever an encoder raises ends this job alone
            self._fail(held, PictureInvalid(f"The picture could not be encoded: {problem}"))
            return
        wanted = picture_count(held.job.parameters)
        if len(pictures) != wanted:
            self._fail(held, PictureInvalid(f"The engine drew {len(pictures)} of {wanted} pictures."))
            return
        first = held.feed.close(len(pictures))
        seq = first + len(pictures)
        change = self._record(lambda line: _write_success(line, held, seq, pictures, seconds))
        if change is None:
            log.warning(RESULT_REFUSED, job=str(held.job.id), epoch=held.job.epoch)
            self._forget_pictures(held)
            return
        shown = [_image_event(change, first + place, picture) for place, picture in enumerate(pictures)]
        self._announce(held, change, shown)

    def _fail(self, held: Held, failure: JobFailure) -> None:
        self._give_up(held, lambda line, seq: store.fail(line, *held.key, seq, failure))

    def _give_up(self, held: Held, write: "Callable[[Connection, int], Change | None]") -> None:
        """Record an outcome without pictures."""
        seq = held.feed.close()
        change = self._record(lambda line: write(line, seq))
        self._forget_pictures(held)
        if change is not None:
            self._announce(held, change, [])

    def _announce(self, held: Held, change: Change, before: list[Event]) -> None:
        log.info(JOB_ENDED, job=str(change.job), epoch=held.job.epoch, outcome=change.type)
        self._narrator.announce([*before, change.event])
        if change.type == "requeued":
            self._narrator.wake(change.queue)
        self._tasks.ended(held, change)
        if change.type != "requeued" and held.job.epoch > 1:
            self._sweep_after_others(held)

    def _record(self, write: "Callable[[Connection], Change | None]") -> Change | None:
        """Run one guarded write until the database has answered; repeating it is harmless."""

        def worth_another_try(problem: Exception) -> bool:
            return isinstance(problem, psycopg.OperationalError) and not self._leaving.is_set()

        for attempt in stamina.retry_context(
            on=worth_another_try, attempts=None, timeout=self._limit, wait_initial=FIRST_PAUSE, wait_max=LONGEST_PAUSE
        ):
            with attempt, self._pool.connection() as line:
                return write(line)
        raise AssertionError("unreachable: the last attempt raises")

    def _sweep_after_others(self, held: Held) -> None:
        """Remove what earlier writers of the job stored and could not remove: nobody can ever record it any more."""
        with contextlib.suppress(StorageError):
            for found in self._storage.list(picture_folder(held.job.id)):
                if epoch_of(found.key) < held.job.epoch:
                    self._storage.delete(found.key)

    def _forget_pictures(self, held: Held) -> None:
        """Remove what was stored for an outcome that shows no pictures."""
        for picture in held.pictures:
            with contextlib.suppress(Exception):
                self._storage.delete(picture.result().key)


def _write_success(
    line: Connection, held: Held, seq: int, pictures: Sequence[StoredPicture], seconds: float
) -> Change | None:
    if held.findings is not None:
        return complete_analysis(line, *held.key, seq, held.findings, seconds)
    return store.complete(line, *held.key, seq, pictures, seconds)


def _image_event(change: Change, seq: int, picture: StoredPicture) -> Event:
    data = {
        "index": picture.index,
        "seed": picture.seed,
        "width": picture.width,
        "height": picture.height,
        "mime": picture.mime,
        "bytes": picture.bytes,
        "sha256": picture.sha256,
        "url": image_url(change.job, picture.index),
    }
    return Event(job=change.job, epoch=change.epoch, seq=seq, type="image", at=change.at, data=data)
