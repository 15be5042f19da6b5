"""A change of a job's state that has been committed, ready to be announced; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.events import Event, EventType
from jobs.states import State


@dataclass(frozen=True)
class Change:
    """What the database has just recorded about a job."""

    job: UUID
    epoch: int
    seq: int
    type: EventType
    at: datetime
    data: Mapping[str, Any]
    queue: str

    @property
    def event(self) -> Event:
        """Return the event that announces the change."""
        return Event(job=self.job, epoch=self.epoch, seq=self.seq, type=self.type, at=self.at, data=dict(self.data))


def present(row: Mapping[str, Any]) -> Change:
    """Return the change that led to a row's present state, as its event would have said it.

    The row has the columns of `PRESENT_COLUMNS`.
    """
    state = State(row["state"])
    at: datetime = row["finished_at"] or row["created_at"]
    kind: EventType
    data: dict[str, Any]
    if state is State.QUEUED and row["epoch"] == 0:
        kind, data = "queued", {"queue": row["queue"]}
    elif state is State.QUEUED:
        kind, data, at = "requeued", {"reason": row["requeue_reason"], "queue": row["queue"]}, row["available_at"]
    elif state is State.RUNNING:
        kind, data, at = "started", {"worker": row["worker"]}, row["started_at"]
    elif state is State.SUCCEEDED:
        kind, data = "succeeded", {"images": row["image_count"], "seconds": row["seconds"]}
    elif state is State.FAILED:
        kind = "failed"
        data = {"code": row["error_code"], "message": row["error_message"], "retryable": row["error_retryable"]}
    else:
        kind, data = "cancelled", {}
    return Change(row["id"], row["epoch"], row["state_seq"], kind, at, data, row["queue"])


#: What `present` reads, from `jobs`; `image_count` comes from the request, so that no other table is touched.
PRESENT_COLUMNS = """jobs.id, jobs.state, jobs.epoch, jobs.state_seq, jobs.queue, jobs.requeue_reason, jobs.worker, jobs.available_at,
    jobs.created_at, jobs.started_at, jobs.finished_at, jobs.seconds, jobs.error_code, jobs.error_message, jobs.error_retryable,
    (jobs.request ->> 'num_images')::int as image_count"""
