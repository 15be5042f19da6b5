"""What readers of a job's events get, whenever they come and wherever they were."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_api.streaming.topics import (
    BEFORE_ALL,
    PENDING_PREVIEW_BYTES,
    PREVIEW_BYTES,
    Frame,
    Order,
    Reader,
    Topic,
    coalesce,
    encode,
    opening,
)
from jobs.events import KEPT_EVENTS, Event, EventType

JOB = UUID("01990000-0000-7000-8000-000000000000")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def frame(epoch: int, seq: int, kind: EventType = "progress", body: bytes = b"x") -> Frame:
    """Make a frame."""
    return Frame((epoch, seq), kind, body)


def orders(frames: list[Frame]) -> list[Order]:
    """Return the ids of frames."""
    return [each.order for each in frames]


def topic_of(*frames: Frame) -> Topic:
    """Make a topic that knows these events."""
    topic = Topic(JOB)
    for each in frames:
        topic.add(each)
    return topic


QUEUED = frame(0, 1, "queued")
STARTED = frame(1, 1, "started")
RUNNING = (QUEUED, STARTED, frame(1, 2), frame(1, 3))
DONE = frame(1, 4, "succeeded")


def test_encode_writes_an_sse_frame() -> None:
    """An event becomes id, event and data lines, and its JSON is taken as it is where it is at hand."""
    event = Event(job=JOB, epoch=1, seq=2, type="progress", at=NOW, data={"step": 1})
    assert encode(event).body == b"id: 1-2\nevent: progress\ndata: " + event.model_dump_json().encode() + b"\n\n"
    assert encode(event, b"{}").body == b"id: 1-2\nevent: progress\ndata: {}\n\n"


def test_topic_takes_each_event_once_in_order() -> None:
    """Old and repeated events, and those of an older epoch, are dropped; nothing follows the end."""
    topic = topic_of(*RUNNING)
    assert not topic.add(frame(1, 3))
    assert not topic.add(frame(0, 9))
    assert topic.add(DONE)
    assert not topic.add(frame(2, 1, "requeued"))
    assert orders(topic.frames) == [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4)]


def test_topic_knows_from_where_on_it_is_complete() -> None:
    """The floor is before all for an unbroken story, and behind the gap for a broken one."""
    assert topic_of(*RUNNING).floor == BEFORE_ALL
    assert topic_of(frame(1, 5), frame(1, 6)).floor == (1, 5)
    assert topic_of(QUEUED, STARTED, frame(1, 7)).floor == (1, 7)
    assert Topic(JOB).floor is None


def test_topic_forgets_progress_but_no_state() -> None:
    """A long job keeps its states and its newest progress."""
    topic = topic_of(QUEUED, STARTED, *(frame(1, seq) for seq in range(2, KEPT_EVENTS + 50)))
    assert len(topic.frames) == KEPT_EVENTS
    assert orders(topic.frames)[:2] == [(0, 1), (1, 1)]
    assert topic.floor == (1, 51)


def test_topic_forgets_old_previews_by_bytes() -> None:
    """Previews take no more than their share of memory."""
    big = b"x" * (PREVIEW_BYTES // 2)
    topic = topic_of(QUEUED, STARTED, *(frame(1, seq, "preview", big) for seq in range(2, 7)))
    assert orders(topic.frames) == [(0, 1), (1, 1), (1, 5), (1, 6)]


@pytest.mark.parametrize(
    ("known", "present", "seen", "expected"),
    [
        pytest.param(RUNNING, STARTED, None, [(0, 1), (1, 1), (1, 2), (1, 3)], id="from-the-oldest"),
        pytest.param((*RUNNING, DONE), DONE, None, [(1, 4)], id="over"),
        pytest.param((*RUNNING, DONE), STARTED, None, [(0, 1), (1, 1), (1, 2), (1, 3), (1, 4)], id="ended-meanwhile"),
        pytest.param((), DONE, None, [(1, 4)], id="over-and-nothing-kept"),
        pytest.param((), STARTED, None, [(1, 1)], id="nothing-kept"),
        pytest.param((frame(1, 7), frame(1, 8)), STARTED, None, [(1, 1), (1, 7), (1, 8)], id="trimmed"),
        pytest.param(RUNNING, STARTED, (1, 2), [(1, 3)], id="resumed"),
        pytest.param(RUNNING, STARTED, (1, 3), [], id="resumed-at-the-newest"),
        pytest.param((*RUNNING, DONE), DONE, (1, 2), [(1, 3), (1, 4)], id="resumed-over"),
        pytest.param((*RUNNING, DONE), DONE, (9, 9), [(1, 4)], id="from-beyond-the-end"),
        pytest.param(RUNNING, STARTED, (7, 1), [(0, 1), (1, 1), (1, 2), (1, 3)], id="unknown-epoch"),
        pytest.param(RUNNING, STARTED, (1, 999), [], id="beyond-the-newest"),
        pytest.param((frame(1, 7),), STARTED, (0, 1), [(1, 1), (1, 7)], id="resumed-behind-a-gap"),
        pytest.param((), STARTED, (0, 1), [(1, 1)], id="resumed-and-nothing-kept"),
        pytest.param((), STARTED, (1, 30), [], id="resumed-beyond-what-was-lost"),
        pytest.param((), DONE, (1, 2), [(1, 4)], id="resumed-over-and-nothing-kept"),
        pytest.param((frame(2, 1, "requeued"),), frame(3, 1, "started"), (1, 4), [(2, 1), (3, 1)], id="next-epochs"),
    ],
)
def test_opening_gives_a_reader_its_first_events(
    known: tuple[Frame, ...], present: Frame, seen: Order | None, expected: list[Order]
) -> None:
    """Each way of coming has one right beginning."""
    assert orders(opening(topic_of(*known), present, seen).frames) == expected


def test_opening_tells_who_has_had_the_end() -> None:
    """One who names the last event needs nothing more."""
    assert opening(topic_of(*RUNNING, DONE), DONE, DONE.order).over


def test_opening_waits_for_what_precedes_an_unannounced_end() -> None:
    """An end that only the database knows may follow events that are still on their way."""
    found = opening(topic_of(*RUNNING), DONE, (1, 2))
    assert (orders(found.frames), found.end_expected) == ([(1, 3)], True)


def test_reader_beyond_the_end_hears_of_it_all_the_same() -> None:
    """Nobody waits for ever because of an id that never was."""
    topic = topic_of(*RUNNING)
    reader = Reader(topic)
    reader.position = (1, 10_000)
    assert reader.take() == []
    topic.add(DONE)
    assert reader.take() == [DONE]


def test_coalesce_leaves_the_newest_previews() -> None:
    """A lagging reader misses old large previews and nothing else; the newest comes however large it is."""
    big = b"x" * (PENDING_PREVIEW_BYTES // 2)
    frames = [frame(1, seq, "preview" if seq % 2 else "progress", big) for seq in range(1, 11)]
    left = coalesce(frames)
    assert orders(left) == [(1, 2), (1, 4), (1, 6), (1, 7), (1, 8), (1, 9), (1, 10)]
    huge = [frame(1, 1, "preview", big), frame(1, 2, "preview", big * 3)]
    assert coalesce(huge) == huge[1:]
    small = [frame(1, seq, "preview") for seq in range(1, 100)]
    assert coalesce(small) == small


def test_reader_is_woken_by_news() -> None:
    """A reader waits until something comes, and says when nothing does."""

    async def story() -> tuple[bool, bool]:
        topic = Topic(JOB)
        reader = Reader(topic)
        topic.join(reader)
        silent = await reader.wait(0.01)
        topic.add(QUEUED)
        return silent, await reader.wait(0.01)

    assert asyncio.run(story()) == (False, True)


KINDS: st.SearchStrategy[Any] = st.sampled_from(["progress", "preview", "image"])


@given(
    events=st.lists(KINDS, max_size=30),
    lost=st.sets(st.integers(0, 40)),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    ends=st.booleans(),
)
def test_reconnecting_reader_sees_rising_ids_and_one_end(
    events: list[EventType], lost: set[int], cuts: list[int], *, ends: bool
) -> None:
    """However often a reader is cut and whatever Redis lost, its ids rise, no state is missed and the end comes once, last."""
    story = [QUEUED, STARTED, *(frame(1, seq, kind) for seq, kind in enumerate(events, 2))]
    if ends:
        story.append(frame(1, len(events) + 2, "succeeded"))
    seen: list[Order] = []
    position: Order | None = None
    for moment in [*sorted(cuts), len(story)]:
        happened = story[: max(1, moment)]
        present = [each for each in happened if each.type not in {"progress", "preview", "image"}][-1]
        topic = topic_of(*(each for number, each in enumerate(happened) if number not in lost))
        found = opening(topic, present, position)
        if found.over:
            continue
        frames = [*found.frames, *([present] if found.end_expected else [])]
        seen += orders(frames)
        position = seen[-1] if seen else position
    assert seen == sorted(set(seen))
    if ends:
        assert seen[-1] == story[-1].order
    if not lost and not ends:
        assert seen == orders(story)
