"""All that one connection watches: a position in each of many topics, and one wake-up for them together.

A feed holds no event: one that is not read costs its positions and the message that is on its way, whatever happens meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from broker_api.streaming.listening import OPEN_SECONDS, Hub
from broker_api.streaming.topics import Frame, Reader, Topic, encode, opening
from jobs.changes import Change

#: Jobs one connection may watch at once, those it has not been told the end of among them.
MOST_JOBS: Final = 4000
#: The end of a job is told once, however often it is found within this time, seconds.
TOLD_SECONDS: Final = 120.0


class Overflow(Exception):
    """The reader takes so little that more waits for it than a connection may hold."""


@dataclass(frozen=True)
class Gone:
    """A job that was watched does not exist any more."""

    job: UUID


class _Watch(Reader):
    """One watched job; wakes its feed and says which job it is."""

    def __init__(self, topic: Topic, feed: "Feed", present: Change, seen: tuple[int, int] | None) -> None:
        super().__init__(topic)
        self._feed = feed
        self.present = present
        self.seen = seen
        self.open = False
        self.opens_at = 0.0

    def wake(self) -> None:
        """Let the feed look at this job."""
        self._feed.look_at(self.topic.job)


class Feed:
    """Watch many jobs for one reader."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._watches: dict[UUID, _Watch] = {}
        #: Jobs that may have something new, in the order in which it came.
        self._woken: dict[UUID, None] = {}
        #: Ends of jobs that were over before they were watched.
        self._ends: deque[Frame | Gone] = deque()
        self._told: dict[UUID, float] = {}
        #: More was to be watched than a connection may hold.
        self.overflowed = False
        self._news = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    @property
    def held(self) -> int:
        """Return how many jobs are watched or wait to be told."""
        return len(self._watches) + len(self._ends)

    @property
    def jobs(self) -> frozenset[UUID]:
        """Return the jobs that are watched and have not ended."""
        return frozenset(self._watches)

    def wake(self) -> None:
        """Let the reader look again."""
        self._news.set()

    def look_at(self, job: UUID) -> None:
        """Let the reader look at one job."""
        self._woken[job] = None
        self._news.set()

    def watch(self, present: Change, seen: tuple[int, int] | None = None) -> None:
        """Add a job by its present state and the last event the reader had of it; raise `Overflow`."""
        if present.job in self._watches:
            return
        if self.held >= MOST_JOBS:
            self.overflowed = True
            raise Overflow
        frame = encode(present.event)
        if frame.final and seen is None:
            self._tell_end(present.job, frame)
            return
        topic = self._hub.topic(present.job)
        watch = self._watches[present.job] = _Watch(topic, self, present, seen)
        self._hub.join(watch)
        watch.opens_at = self._clock() + OPEN_SECONDS
        if not topic.ready.is_set():
            asyncio.get_running_loop().call_later(OPEN_SECONDS, watch.wake)
        watch.wake()

    def watch_new(self, changes: Iterable[Change]) -> None:
        """Add those jobs whose end the reader has not been told; raise `Overflow`."""
        now = self._clock()
        self._told = {job: at for job, at in self._told.items() if now - at < TOLD_SECONDS}
        for change in changes:
            if change.job not in self._told:
                self.watch(change)

    def leave_out(self, jobs: Iterable[UUID]) -> None:
        """Count these as told: they ended before the reader came."""
        self._told.update(dict.fromkeys(jobs, self._clock()))

    def forget(self, job: UUID) -> bool:
        """Stop watching a job and tell whether it was watched."""
        watch = self._watches.pop(job, None)
        self._woken.pop(job, None)
        if watch is not None:
            self._hub.leave(watch)
        return watch is not None

    def close(self) -> None:
        """Watch nothing any more."""
        for job in list(self._watches):
            self.forget(job)

    async def wait(self, seconds: float) -> None:
        """Wait until there may be something new, but not longer than this."""
        if self._woken or self._ends:
            return
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def take(self) -> list[Frame | Gone]:
        """Return what is new of one job, of its previews the newest alone; nothing when nothing is new anywhere."""
        if self._ends:
            return [self._ends.popleft()]
        while self._woken:
            job = next(iter(self._woken))
            del self._woken[job]
            watch = self._watches.get(job)
            news = [] if watch is None else self._news_of(watch)
            if news:
                return news
        return []

    def _news_of(self, watch: _Watch) -> list[Frame | Gone]:
        topic = watch.topic
        frames: list[Frame] = []
        over = False
        if watch.open:
            frames = watch.take()
        elif topic.ready.is_set() or self._clock() >= watch.opens_at:
            first = opening(topic, encode(watch.present.event), watch.seen)
            watch.open, watch.position, frames, over = True, first.position, first.frames, first.over
            if first.end_expected:
                self._hub.expect(watch.present)
        news: list[Frame | Gone] = [*_with_one_preview(frames)]
        if over or (frames and frames[-1].final):
            self._end(topic.job)
        elif topic.closed:
            self._end(topic.job)
            news.append(Gone(topic.job))
        return news

    def _end(self, job: UUID) -> None:
        self.forget(job)
        self._told[job] = self._clock()

    def _tell_end(self, job: UUID, frame: Frame) -> None:
        self._told[job] = self._clock()
        self._ends.append(frame)
        self._news.set()


def _with_one_preview(frames: list[Frame]) -> list[Frame]:
    newest = max((frame.order for frame in frames if frame.type == "preview"), default=None)
    return [frame for frame in frames if frame.type != "preview" or frame.order == newest]
