"""Let an operator cancel a job from Flower or `celery control revoke`: a task's id there is a job's id here."""

import queue
import threading
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import psycopg
from celery.worker.control import Panel

from infra.database import Pool
from infra.logging import get_logger
from jobs.control import cancel_now
from workers.progress import Narrator

JOB_REVOKED: Final = "job_revoked"
JOB_NOT_REVOKED: Final = "job_not_revoked"

log = get_logger(__name__)


class Revocations:
    """Cancel jobs from a thread of their own: remote control is answered by the worker's event loop, which must not wait."""

    def __init__(self, pool: Pool, narrator: Narrator) -> None:
        self._pool = pool
        self._narrator = narrator
        self._queue: queue.SimpleQueue[UUID | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="revocations", daemon=True)

    def start(self) -> None:
        """Begin to cancel, and answer Celery's command `revoke`."""
        self._thread.start()
        Panel.register(
            name="revoke",
            type="control",
            variadic="task_id",
            signature="[id1 [id2 [... [idN]]]]",
            help="Cancel jobs by their ids.",
        )(self._revoke)

    def close(self) -> None:
        """Cancel no more."""
        self._queue.put(None)

    def _revoke(self, state: Any, task_id: str | Sequence[str], **kwargs: Any) -> dict[str, str]:
        del state, kwargs  # whether to terminate is not asked: a cancelled job always stops
        wanted = [task_id] if isinstance(task_id, str) else list(task_id)
        jobs = [job for text in wanted if (job := _uuid(text)) is not None]
        for job in jobs:
            self._queue.put(job)
        # The words Celery's own command answers with.
        return {"ok": f"tasks {', '.join(map(str, jobs))} flagged as revoked"}

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                with self._pool.connection() as line:
                    change = cancel_now(line, job)
            except psycopg.Error as problem:
                log.warning(JOB_NOT_REVOKED, job=str(job), problem=str(problem))
                continue
            log.info(JOB_REVOKED, job=str(job))
            if change is not None:
                self._narrator.announce([change.event])


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
