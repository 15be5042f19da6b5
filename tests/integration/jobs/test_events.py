"""Events in a real Redis: fenced, ordered, kept for a while."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
import redis
import redis.asyncio

from jobs.events import (
    FINAL_EVENTS,
    KEPT_AFTER_END_SECONDS,
    KEPT_SECONDS,
    AsyncEventWriter,
    Event,
    EventType,
    EventWriter,
    channel,
    kept,
    parse_event_id,
    stream,
)


def _event(job: UUID, epoch: int, seq: int, kind: EventType = "progress") -> Event:
    return Event(job=job, epoch=epoch, seq=seq, type=kind, at=datetime.now(UTC), data={"step": seq})


def _kept(url: str, job: UUID, after: tuple[int, int] | None = None) -> list[str]:
    async def read() -> list[str]:
        async with redis.asyncio.Redis.from_url(url) as client:
            return [event.id for event in await kept(client, job, after)]

    return asyncio.run(read())


def test_publish_reaches_the_living_and_the_late(redis_url: str) -> None:
    """A subscriber hears each event once, in order; a late reader finds the same."""
    job = uuid4()
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        listener.subscribe(channel(job))
        assert listener.get_message(timeout=5) is not None
        assert EventWriter(client).publish([_event(job, 0, 1, "queued"), _event(job, 1, 1), _event(job, 1, 2)]) == 3
        heard: list[str] = []
        while len(heard) < 3:
            message = listener.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None:
                heard.append(Event.model_validate_json(message["data"]).id)
        assert 0 < client.ttl(stream(job)) <= KEPT_SECONDS
    assert heard == _kept(redis_url, job) == ["0-1", "1-1", "1-2"]
    assert _kept(redis_url, job, (1, 1)) == ["1-2"]


def test_publish_refuses_a_writer_that_lost_the_job(redis_url: str) -> None:
    """An event of an older epoch, or one said before, is neither kept nor heard."""
    job = uuid4()
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as listener:
        writer = EventWriter(client)
        writer.publish([_event(job, 3, 1)])
        listener.subscribe(channel(job))
        assert listener.get_message(timeout=5) is not None
        assert writer.publish([_event(job, 1, 9), _event(job, 3, 1), _event(job, 2, 500)]) == 0
        assert listener.get_message(timeout=0.2) is None
        assert writer.publish([_event(job, 3, 2)]) == 1
    assert _kept(redis_url, job) == ["3-1", "3-2"]


@pytest.mark.parametrize("end", sorted(FINAL_EVENTS))
def test_publish_keeps_what_is_over_only_for_readers_that_were_cut_off(redis_url: str, end: EventType) -> None:
    """A job that runs is kept for its late readers; its end sets a short time, which a repeated end leaves alone."""
    job = uuid4()
    with redis.Redis.from_url(redis_url) as client:
        writer = EventWriter(client)
        writer.publish([_event(job, 1, 1, "started")])
        assert KEPT_AFTER_END_SECONDS < client.ttl(stream(job)) <= KEPT_SECONDS
        assert writer.publish([_event(job, 1, 2, end)]) == 1
        assert writer.publish([_event(job, 1, 2, end), _event(job, 1, 1)]) == 0
        assert 0 < client.ttl(stream(job)) <= KEPT_AFTER_END_SECONDS


def test_publish_tells_a_full_redis_from_a_lost_job(redis_url: str) -> None:
    """Without memory nothing is said to be refused: the writer hears of it, and may try again later."""
    job = uuid4()

    async def publish_async() -> int:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            return await AsyncEventWriter(client).publish([_event(job, 1, 1)])

    with redis.Redis.from_url(redis_url) as client:
        writer = EventWriter(client)
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(redis.ResponseError, match="maxmemory"):
                writer.publish([_event(job, 1, 1)])
            with pytest.raises(redis.ResponseError, match="maxmemory"):
                asyncio.run(publish_async())
        finally:
            client.config_set("maxmemory", before)
        assert writer.publish([_event(job, 1, 1)]) == 1


def test_publish_goes_on_after_everything_was_deleted(redis_url: str) -> None:
    """An emptied Redis, without its script cache too, takes the next event."""
    job = uuid4()
    with redis.Redis.from_url(redis_url) as client:
        writer = EventWriter(client)
        writer.publish([_event(job, 1, 1)])
        client.flushdb()
        client.script_flush()
        assert writer.publish([_event(job, 1, 2)]) == 1
    assert _kept(redis_url, job) == ["1-2"]


@pytest.mark.parametrize(
    "text", ["", "1", "-", "1-", "-1", "a-b", "1-2-3", "\u0663-\u0661", "9" * 30 + "-1", " 1-2", "$", "1-2\n"]
)
def test_parse_event_id_refuses_anything_else(text: str) -> None:
    """What a client sends as Last-Event-ID is never trusted."""
    assert parse_event_id(text) is None


def test_parse_event_id_reads_epoch_and_seq() -> None:
    """Ids compare as numbers."""
    assert parse_event_id("3-17") == (3, 17)
