"""Tell a job's watchers how it goes, from a thread of its own: nothing that Redis does can hold up the drawing.

State events keep their order and are tried again for a while when Redis is away; progress is then dropped. Of the previews of a job only
the newest counts, a few each second. A feed numbers its job's events: `seq` counts without gaps, and order in the queue is order of `seq`.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from infra.logging import get_logger
from jobs.events import Event, EventType, EventWriter
from workers.engines.interface import Previewed, Stepped
from workers.previews import MIME, encode_preview

#: Previews a job may send each second, and how many of them at once.
PREVIEWS_PER_SECOND: Final = 5.0
#: With so many events waiting, further progress is not queued.
QUEUE_LIMIT: Final = 2000
#: How long state events wait for Redis to come back, seconds; readers then find the state in Postgres.
STATE_PATIENCE: Final = 30.0
RETRY_PAUSE: Final = 0.5
LAST_PAUSE: Final = 0.1
DROPPABLE: Final = frozenset({"progress", "preview"})

EVENTS_NOT_PUBLISHED: Final = "events_not_published"
PREVIEW_NOT_SHOWN: Final = "preview_not_shown"
WAKE_NOT_SENT: Final = "wake_not_sent"

log = get_logger(__name__)


@dataclass
class _Waiting:
    event: Event
    since: float


class Feed:
    """The events of one job under one epoch; made by `Narrator.open`, guarded by the narrator's lock."""

    def __init__(self, narrator: "Narrator", job: UUID, epoch: int, next_seq: int) -> None:
        self._narrator = narrator
        self.job = job
        self.epoch = epoch
        self.next_seq = next_seq
        self.closed = False
        self.pending: Previewed | None = None
        self._allowance = PREVIEWS_PER_SECOND
        self._refilled = time.monotonic()

    def stepped(self, report: Stepped) -> None:
        """Say how far the job is."""
        fraction = report.step / report.steps if report.steps else 0.0
        data = {"step": report.step, "steps": report.steps, "fraction": round(fraction, 4), "image": report.image}
        self._narrator.say(self, "progress", data)

    def previewed(self, report: Previewed) -> None:
        """Show the forming picture, unless a newer one comes before its turn."""
        self._narrator.show(self, report)

    def close(self, images: int = 0) -> int:
        """Say nothing more of the work itself; return the first `seq` of `images` events and one last state event."""
        return self._narrator.close_feed(self, images)

    def spend(self, now: float) -> bool:
        """Take the right to send one preview, if one is left."""
        self._allowance = min(PREVIEWS_PER_SECOND, self._allowance + (now - self._refilled) * PREVIEWS_PER_SECOND)
        self._refilled = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    def due_in(self, now: float) -> float:
        """Return the seconds until the next preview may be sent."""
        allowance = self._allowance + (now - self._refilled) * PREVIEWS_PER_SECOND
        return max(0.0, (1.0 - allowance) / PREVIEWS_PER_SECOND)


class Narrator:
    """Publish events and send wake-ups, in order, from one thread."""

    def __init__(self, writer: EventWriter, wake: Callable[[str], object]) -> None:
        self._writer = writer
        #: Sends a wake-up to a queue; may raise whatever the broker raises.
        self._wake = wake
        self._changed = threading.Condition()
        self._queue: deque[_Waiting] = deque()
        self._wakes: dict[str, None] = {}
        self._showing: dict[Feed, None] = {}
        #: Monotonic time at which a closing narrator gives up.
        self._close_by = math.inf
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="narrator", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def open(self, job: UUID, epoch: int, first: list[Event]) -> Feed:
        """Announce a claimed job with its first events, the last of which has `seq` 1 of this epoch."""
        self.announce(first)
        return Feed(self, job, epoch, 2)

    def announce(self, events: list[Event]) -> None:
        """Publish state events that have been recorded."""
        now = time.monotonic()
        with self._changed:
            self._queue.extend(_Waiting(event, now) for event in events)
            self._changed.notify()

    def wake(self, queue: str) -> None:
        """Wake a worker of a queue into which a job has come back."""
        with self._changed:
            self._wakes[queue] = None
            self._changed.notify()

    def say(self, feed: Feed, kind: EventType, data: dict[str, Any]) -> None:
        """Queue an event of a feed."""
        with self._changed:
            if feed.closed or len(self._queue) >= QUEUE_LIMIT:
                return
            self._append(feed, kind, data)
            self._changed.notify()

    def show(self, feed: Feed, report: Previewed) -> None:
        """Keep the newest preview of a feed until its turn."""
        with self._changed:
            if not feed.closed:
                feed.pending = report
                self._showing[feed] = None
                self._changed.notify()

    def close_feed(self, feed: Feed, images: int) -> int:
        """End a feed, its last preview first, and reserve the numbers of its last events."""
        with self._changed:
            pending, feed.pending = feed.pending, None
            self._showing.pop(feed, None)
        if pending is not None:
            self._show_now(feed, pending)
        with self._changed:
            feed.closed = True
            first = feed.next_seq
            feed.next_seq += images + 1
        return first

    def close(self, seconds: float) -> None:
        """Publish what is queued, within so many seconds, and end."""
        with self._changed:
            self._closing = True
            self._close_by = time.monotonic() + seconds
            self._changed.notify()
        self._thread.join(seconds)

    def _append(self, feed: Feed, kind: EventType, data: dict[str, Any]) -> None:
        event = Event(job=feed.job, epoch=feed.epoch, seq=feed.next_seq, type=kind, at=datetime.now(UTC), data=data)
        feed.next_seq += 1
        self._queue.append(_Waiting(event, time.monotonic()))

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._wakes or self._due() or self._closing):
                    self._changed.wait(self._next_preview())
                if self._closing and not (self._queue or self._wakes):
                    return
                batch, wakes = list(self._queue), list(self._wakes)
                self._queue.clear()
                self._wakes.clear()
                previews = [(feed, report) for feed in self._due() if (report := self._take(feed)) is not None]
            self._publish(batch)
            for queue in wakes:
                self._send_wake(queue)
            for feed, report in previews:
                self._show_now(feed, report)

    def _due(self) -> list[Feed]:
        now = time.monotonic()
        return [feed for feed in self._showing if feed.due_in(now) <= 0]

    def _next_preview(self) -> float | None:
        now = time.monotonic()
        return min((feed.due_in(now) for feed in self._showing), default=None)

    def _take(self, feed: Feed) -> Previewed | None:
        self._showing.pop(feed, None)
        report, feed.pending = feed.pending, None
        feed.spend(time.monotonic())
        return report

    def _show_now(self, feed: Feed, report: Previewed) -> None:
        try:
            preview = encode_preview(report)
        except Exception as problem:  # noqa: BLE001 - no preview is worth the events and outcomes that follow it
            log.warning(PREVIEW_NOT_SHOWN, job=str(feed.job), step=report.step, problem=str(problem))
            return
        data = {
            "step": report.step,
            "image": report.image,
            "mime": MIME,
            "width": preview.width,
            "height": preview.height,
            "base64": preview.base64,
        }
        self.say(feed, "preview", data)

    def _publish(self, batch: list[_Waiting]) -> None:
        """Publish in order; give up what may be dropped at the first failure, states after a while."""
        while batch:
            try:
                self._writer.publish([waiting.event for waiting in batch])
            except Exception as problem:  # noqa: BLE001 - whatever Redis or its driver does, the drawing goes on
                now = time.monotonic()
                batch = [
                    waiting
                    for waiting in batch
                    if waiting.event.type not in DROPPABLE and now - waiting.since < STATE_PATIENCE
                ]
                log.warning(EVENTS_NOT_PUBLISHED, problem=str(problem), kept=len(batch))
                if batch and self._pause():
                    return
            else:
                return

    def _pause(self) -> bool:
        """Wait a little before the next try; return whether there is none."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, RETRY_PAUSE)
            if self._closing:
                self._changed.wait(LAST_PAUSE)
            return time.monotonic() >= self._close_by

    def _send_wake(self, queue: str) -> None:
        try:
            self._wake(queue)
        except Exception as problem:  # noqa: BLE001 - the keeper wakes the queue again
            log.warning(WAKE_NOT_SENT, queue=queue, problem=str(problem))
