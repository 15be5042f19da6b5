"""What watchers are told, with a writer that writes down, waits or fails as told."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import redis

from jobs.events import Event, EventType
from workers.engines.interface import Previewed, Stepped
from workers.progress import Narrator


class Writer:
    """Keep what was published; fail while told so, wait at a gate while it is shut."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failing = False
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def publish(self, events: Sequence[Event]) -> int:
        """Take events."""
        self.entered.set()
        self.gate.wait(5)
        if self.failing:
            raise redis.ConnectionError("away")
        self.events.extend(events)
        return len(events)

    def kinds(self) -> list[str]:
        """Return the types of what was published."""
        return [event.type for event in self.events]


def until(condition: object, seconds: float = 5.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.005)


def event(job: UUID, kind: EventType, seq: int, epoch: int = 1) -> Event:
    """Return an event."""
    return Event(job=job, epoch=epoch, seq=seq, type=kind, at=datetime.now(UTC), data={})


def previewed(job: UUID, step: int) -> Previewed:
    """Return a small preview."""
    return Previewed(job, 1, step, 0, 8, 8, bytes([step]) * 192)


@pytest.fixture
def writer() -> Writer:
    """Return a writer that works."""
    return Writer()


@pytest.fixture
def woken() -> list[str]:
    """Return the list of queues that were woken."""
    return []


@pytest.fixture
def narrator(writer: Writer, woken: list[str]) -> Narrator:
    """Return a narrator at work."""
    made = Narrator(writer, woken.append)  # type: ignore[arg-type]
    made.start()
    return made


def test_narrator_numbers_without_gaps(narrator: Narrator, writer: Writer) -> None:
    """Progress, previews and the end carry consecutive numbers in the order they were published."""
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "queued", 1, 0), event(job, "started", 1)])
    for step in range(1, 30):
        feed.stepped(Stepped(job, 1, step, 30, 0))
        feed.previewed(previewed(job, step))
        time.sleep(0.002)
    first = feed.close(images=2)
    narrator.announce([event(job, "image", first), event(job, "image", first + 1), event(job, "succeeded", first + 2)])
    narrator.close(5)
    own = [told for told in writer.events if told.epoch == 1]
    assert [told.seq for told in own] == list(range(1, len(own) + 1))
    assert writer.kinds()[-3:] == ["image", "image", "succeeded"]


def test_narrator_shows_the_newest_preview_only(narrator: Narrator, writer: Writer) -> None:
    """Previews that come faster than they may be sent are left out; the last one is shown in the end."""
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "started", 1)])
    for step in range(1, 101):
        feed.previewed(previewed(job, step))
        time.sleep(0.001)
    feed.close()
    narrator.close(5)
    shown = [told.data["step"] for told in writer.events if told.type == "preview"]
    assert 1 <= len(shown) <= 8
    assert shown[-1] == 100
    assert shown == sorted(shown)


def test_narrator_lets_a_short_job_show_several_previews(narrator: Narrator, writer: Writer) -> None:
    """The limit is a rate: a job of a moment still shows how its picture forms."""
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "started", 1)])
    for step in (1, 2, 3, 4):
        feed.previewed(previewed(job, step))
        until(lambda step=step: any(told.data.get("step") == step for told in writer.events))
    narrator.close(5)


def test_narrator_keeps_states_and_drops_progress_when_redis_is_away(narrator: Narrator, writer: Writer) -> None:
    """After an outage the states are told in order, and the lost progress is not."""
    writer.failing = True
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "queued", 1, 0), event(job, "started", 1)])
    feed.stepped(Stepped(job, 1, 1, 2, 0))
    until(writer.entered.is_set)
    narrator.announce([event(job, "succeeded", feed.close())])
    writer.failing = False
    narrator.close(5)
    assert [kind for kind in writer.kinds() if kind != "progress"] == ["queued", "started", "succeeded"]


def test_narrator_never_holds_up_who_speaks(narrator: Narrator, writer: Writer) -> None:
    """While Redis does not answer, a thousand steps and previews are reported in no time, and not without bound."""
    writer.gate.clear()
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "started", 1)])
    until(writer.entered.is_set)
    for step in range(5000):
        feed.stepped(Stepped(job, 1, step, 5000, 0))
        feed.previewed(previewed(job, step % 200))
    assert len(writer.events) == 0
    writer.gate.set()
    narrator.close(5)
    assert len(writer.events) < 3000


def test_narrator_says_nothing_for_a_closed_feed(narrator: Narrator, writer: Writer) -> None:
    """A step reported after the end is not told: its number belongs to the end."""
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "started", 1)])
    feed.close()
    feed.stepped(Stepped(job, 1, 1, 2, 0))
    feed.previewed(previewed(job, 1))
    narrator.close(5)
    assert writer.kinds() == ["started"]


def test_narrator_survives_a_preview_that_is_no_picture(narrator: Narrator, writer: Writer, woken: list[str]) -> None:
    """A preview that cannot be encoded is left out; events and wake-ups that come after it are sent."""
    job = uuid4()
    feed = narrator.open(job, 1, [event(job, "started", 1)])
    broken = Previewed(job, 1, 1, 0, 8, 8, b"too short")
    feed.previewed(broken)
    until(lambda: feed.pending is None)
    feed.stepped(Stepped(job, 1, 1, 2, 0))
    narrator.wake("txt2img.cpu")
    until(lambda: writer.kinds() == ["started", "progress"] and woken)
    narrator.close(5)


def test_narrator_closes_a_feed_whose_last_preview_is_no_picture(writer: Writer) -> None:
    """A last preview that cannot be encoded takes no number, and keeps no outcome from being recorded."""
    job = uuid4()
    # It is not at work yet, so the preview still waits when the feed is closed.
    feed = Narrator(writer, print).open(job, 1, [event(job, "started", 1)])  # type: ignore[arg-type]
    feed.previewed(Previewed(job, 1, 1, 0, 8, 8, b"too short"))
    assert feed.close() == 2


def test_narrator_wakes_queues(narrator: Narrator, woken: list[str]) -> None:
    """A queue into which a job came back is woken."""
    narrator.wake("txt2img.cpu")
    narrator.close(5)
    assert woken == ["txt2img.cpu"]
