"""Show jobs, not wake-ups, to whoever watches Celery: one task per job, its id the job's, its name the task's.

The worker's own dispatcher belongs to its consumer and ends with it; this one has a connection of its own, and a thread, because a
publish on a dead connection waits.
"""

import queue
import threading
import time
from typing import Any, Final, NamedTuple

import celery

from infra.logging import get_logger
from jobs.changes import Change
from jobs.geometry import picture_count
from workers.held import Held

#: Of a prompt so many characters are shown.
SHOWN_PROMPT: Final = 100
#: Events that wait for a broker that is away; further ones are not queued.
QUEUE_LIMIT: Final = 1000
RECONNECT_SECONDS: Final = 1.0
END: Final = "end"

TASK_EVENT_DROPPED: Final = "task_event_dropped"
TASK_EVENT_NOT_SENT: Final = "task_event_not_sent"

log = get_logger(__name__)


class _Told(NamedTuple):
    kind: str
    fields: dict[str, Any]


class JobsAsTasks:
    """Send Celery's task events for jobs, from one thread; every method returns at once."""

    def __init__(self, application: "celery.Celery", nodename: str) -> None:
        self._application = application
        self._nodename = nodename
        self._queue: queue.Queue[_Told] = queue.Queue(QUEUE_LIMIT)
        self._thread = threading.Thread(target=self._run, name="task-events", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def began(self, held: Held) -> None:
        """Show that a job was received and started."""
        parameters = held.job.parameters
        shown = {
            "model": parameters.model,
            "steps": held.steps,
            "size": f"{parameters.width}x{parameters.height}",
            "images": picture_count(parameters),
            "prompt": getattr(parameters, "prompt", "")[:SHOWN_PROMPT],
        }
        tries = held.job.attempts + held.job.losses
        told = {"name": parameters.task, "args": "()", "kwargs": repr(shown), "retries": tries}
        self._put("task-received", held, {**told, "eta": None, "expires": None, "routing_key": held.job.queue})
        self._put("task-started", held, {})

    def ended(self, held: Held, change: Change) -> None:
        """Show how a task ended, by the change that was recorded."""
        if change.type == "succeeded":
            self._put(
                "task-succeeded", held, {"result": f"{change.data['images']} images", "runtime": change.data["seconds"]}
            )
        elif change.type == "cancelled":
            self._put("task-revoked", held, {"terminated": True, "signum": None, "expired": False})
        elif change.type == "requeued":
            self._put("task-retried", held, {"exception": str(change.data["reason"]), "traceback": ""})
        else:
            said = f"{change.data['code']}: {change.data['message']}"
            self._put("task-failed", held, {"exception": said, "traceback": ""})

    def close(self, seconds: float) -> None:
        """Send what is queued, within so many seconds, and end."""
        try:
            self._queue.put_nowait(_Told(END, {}))
        except queue.Full:
            return
        self._thread.join(seconds)

    def _put(self, kind: str, held: Held, fields: dict[str, Any]) -> None:
        # A job's time is when it happened, not when the broker could be told.
        try:
            self._queue.put_nowait(_Told(kind, {"uuid": str(held.job.id), "timestamp": time.time(), **fields}))
        except queue.Full:
            log.warning(TASK_EVENT_DROPPED, kind=kind)

    def _run(self) -> None:
        unsent: _Told | None = None
        while True:
            try:
                with (
                    self._application.connection_for_write() as connection,
                    self._application.events.Dispatcher(
                        connection, hostname=self._nodename, buffer_while_offline=False
                    ) as dispatcher,
                ):
                    while True:
                        unsent = unsent or self._queue.get()
                        if unsent.kind == END:
                            return
                        dispatcher.send(unsent.kind, **unsent.fields)
                        unsent = None
            except Exception as problem:  # noqa: BLE001 - a monitor that cannot be told must not cost a picture
                log.warning(TASK_EVENT_NOT_SENT, problem=str(problem))
                time.sleep(RECONNECT_SECONDS)
