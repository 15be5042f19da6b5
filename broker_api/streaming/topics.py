"""What is known of one watched job's events, shared by all its readers; knows neither Redis nor HTTP.

An event is encoded once, and kept once however many read it: a reader is a position in the topic, so one that stalls holds no memory.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from jobs.events import FINAL_EVENTS, KEPT_EVENTS, Event, EventType

Order = tuple[int, int]

BEFORE_ALL: Final[Order] = (-1, 0)
FIRST: Final[Order] = (0, 1)
#: Progress and previews may be left out for a reader that lags; everything else reaches everyone.
_PASSING: Final[frozenset[EventType]] = frozenset({"progress", "preview"})
#: A reader that lags gets only so many bytes of the previews it has not read yet, the newest.
PENDING_PREVIEW_BYTES: Final = 256 * 1024
#: Previews of one job are kept here up to so many bytes, the newest.
PREVIEW_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Frame:
    """One event as it goes over the wire."""

    order: Order
    type: EventType
    body: bytes

    @property
    def final(self) -> bool:
        """Tell whether nothing follows."""
        return self.type in FINAL_EVENTS

    @property
    def message(self) -> bytes:
        """Return the event as the JSON of a WebSocket message: that of the stream, with its id in front."""
        number = b"%d-%d" % self.order
        data = self.body[self.body.index(b"\ndata: ") + 7 : -2]
        return b'{"id":"%b",%b' % (number, data[1:])


def encode(event: Event, data: bytes | None = None) -> Frame:
    """Make the frame of an event; `data` is its JSON where that is at hand."""
    text = event.model_dump_json().encode() if data is None else data
    return Frame(
        event.order, event.type, b"id: %b\nevent: %b\ndata: %b\n\n" % (event.id.encode(), event.type.encode(), text)
    )


def follows(last: Order, order: Order) -> bool:
    """Tell whether nothing can lie between two events of a job."""
    return order in {(last[0], last[1] + 1), (last[0] + 1, 1)}


class Topic:
    """The events of one job, in order, each once."""

    def __init__(self, job: UUID) -> None:
        self.job = job
        self.frames: list[Frame] = []
        self.last = BEFORE_ALL
        #: Every event after this one is in `frames`; None while nothing is known.
        self.floor: Order | None = None
        #: The job is gone: no event will come any more.
        self.closed = False
        #: Set when the kept events have been read, or cannot be.
        self.ready = asyncio.Event()
        #: The kept events are being read; what arrives meanwhile is among them, or makes them be read again.
        self.catching_up = False
        self.missed = False
        self._readers: set[Reader] = set()
        self._preview_bytes = 0

    @property
    def ended(self) -> bool:
        """Tell whether the job's last event is known."""
        return bool(self.frames) and self.frames[-1].final

    @property
    def readers(self) -> int:
        """Return how many watch."""
        return len(self._readers)

    def add(self, frame: Frame) -> bool:
        """Take the next event, and return False for one that is old."""
        if frame.order <= self.last or self.ended:
            return False
        if self.floor is None or not follows(self.last, frame.order):
            self.floor = BEFORE_ALL if frame.order == FIRST else frame.order
        self.frames.append(frame)
        self.last = frame.order
        self._forget_some(frame)
        self.wake()
        return True

    def _forget_some(self, newest: Frame) -> None:
        if newest.type == "preview":
            self._preview_bytes += len(newest.body)
        while self._preview_bytes > PREVIEW_BYTES:
            self._forget({"preview"})
        if len(self.frames) > KEPT_EVENTS:
            self._forget(_PASSING)

    def _forget(self, kinds: AbstractSet[EventType]) -> None:
        for position, frame in enumerate(self.frames):
            if frame.type in kinds:
                del self.frames[position]
                self._preview_bytes -= len(frame.body) if frame.type == "preview" else 0
                self.floor = max(self.floor or frame.order, frame.order)
                return

    def after(self, order: Order) -> list[Frame]:
        """Return the known events after this one."""
        return self.frames[bisect_right(self.frames, order, key=lambda frame: frame.order) :]

    def close(self) -> None:
        """Tell all readers that nothing will come any more."""
        self.closed = True
        self.wake()

    def wake(self) -> None:
        """Let all readers look again."""
        for reader in self._readers:
            reader.wake()

    def become_ready(self) -> None:
        """Say that the kept events have been read, or cannot be."""
        self.ready.set()
        self.wake()

    def join(self, reader: "Reader") -> None:
        """Add a reader."""
        self._readers.add(reader)

    def leave(self, reader: "Reader") -> None:
        """Forget a reader."""
        self._readers.discard(reader)


class Reader:
    """One who watches a topic; woken when there may be something new."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        #: The last event this reader has been given.
        self.position = BEFORE_ALL
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Let the reader look again."""
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        """Wait until there may be something new; False when nothing happened for so long."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def take(self) -> list[Frame]:
        """Return what is new to this reader, leaving out previews that newer ones have replaced."""
        frames = self.topic.after(self.position)
        if not frames and self.topic.ended:
            # Its position was beyond the end, so it was no position at all; nobody is left waiting.
            frames = self.topic.frames[-1:]
        if frames:
            self.position = frames[-1].order
        return coalesce(frames)


def coalesce(frames: Sequence[Frame]) -> list[Frame]:
    """Leave out previews beyond `PENDING_PREVIEW_BYTES`, the oldest; the newest always stays."""
    room = PENDING_PREVIEW_BYTES
    left: list[Frame] = []
    for frame in reversed(frames):
        if frame.type == "preview":
            if len(frame.body) > room and room < PENDING_PREVIEW_BYTES:
                # Nor any older one: an old preview after a gap would be no news.
                room = 0
                continue
            room -= len(frame.body)
        left.append(frame)
    return left[::-1]


@dataclass(frozen=True)
class Opening:
    """How a reader begins."""

    frames: list[Frame]
    #: Where it goes on from.
    position: Order
    #: It has had the last event already.
    over: bool = False
    #: The database knows an end that has not been announced yet: what came before it may still be on its way.
    end_expected: bool = False


def opening(topic: Topic, present: Frame, seen: Order | None) -> Opening:
    """Return what a new reader gets first.

    `present` is the present state as the database tells it, `seen` the last event the reader says it had. Without one it gets the kept
    events from the oldest; where they are trimmed or lost, or the job is over, the present state and what followed it.
    """
    if seen is None or _is_unknown(topic, present, seen):
        return _from_the_start(topic, present)
    if seen == present.order and present.final:
        return Opening([], seen, over=True)
    known = topic.after(seen)
    if topic.floor is not None and seen >= topic.floor:
        # Nothing is missing. An id from beyond the newest counts as the newest.
        position = known[-1].order if known else min(seen, topic.last)
        return Opening(known, position, end_expected=present.final and not topic.ended)
    if present.order > seen and all(frame.order != present.order for frame in known):
        known = sorted([*known, present], key=lambda frame: frame.order)
    return Opening(known, known[-1].order if known else seen)


def _is_unknown(topic: Topic, present: Frame, seen: Order) -> bool:
    if present.final:
        return seen > present.order
    return seen[0] > max(topic.last, present.order)[0]


def _from_the_start(topic: Topic, present: Frame) -> Opening:
    if present.final:
        frames = [present]
    elif topic.floor == BEFORE_ALL:
        frames = list(topic.frames)
    else:
        frames = [present, *topic.after(present.order)]
    return Opening(frames, frames[-1].order)
