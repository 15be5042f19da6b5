"""What a job's watchers hear: published for the living, kept for a while for those who come late.

Redis stream ids are `<epoch>-<seq>`, so Redis itself refuses an event of a writer that has lost the job: an older epoch can never be
added behind a newer one, and what was not added is not published.
"""

import re
from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import UUID

import redis
import redis.asyncio
from pydantic import BaseModel, ConfigDict

EventType = Literal["queued", "started", "progress", "preview", "image", "requeued", "succeeded", "failed", "cancelled"]
#: After one of these a job says nothing more.
FINAL_EVENTS: Final = frozenset({"succeeded", "failed", "cancelled"})
KEPT_EVENTS: Final = 500
KEPT_SECONDS: Final = 3600
#: Of a job that is over: readers that were cut off come back sooner, and new ones get only its end.
KEPT_AFTER_END_SECONDS: Final = 120
# Bounded, so that what a client sends never becomes a huge number.
_EVENT_ID: Final = re.compile(r"([0-9]{1,10})-([0-9]{1,10})")

# KEYS: stream. ARGV: channel, id, event, how many are kept, for how long.
_PUBLISH: Final = """
local added = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[4], ARGV[2], 'event', ARGV[3])
if type(added) == 'table' and added.err then
    if string.find(added.err, 'equal or smaller than the target stream top item', 1, true) then return 0 end
    return redis.error_reply(added.err)
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', ARGV[1], ARGV[3])
return 1
"""


class Event(BaseModel):
    """One thing that happened to a job."""

    model_config = ConfigDict(frozen=True)

    job: UUID
    epoch: int
    seq: int
    type: EventType
    at: datetime
    data: dict[str, Any]

    @property
    def id(self) -> str:
        """Return the id of the SSE frame and of the stream entry."""
        return f"{self.epoch}-{self.seq}"

    @property
    def order(self) -> tuple[int, int]:
        """Return what ids are compared by."""
        return (self.epoch, self.seq)


def channel(job: UUID) -> str:
    """Return the pub/sub channel of a job."""
    return f"imagefleet:events:{job}"


def stream(job: UUID) -> str:
    """Return the key under which a job's events are kept."""
    return f"imagefleet:stream:{job}"


def parse_event_id(text: str) -> tuple[int, int] | None:
    """Read `<epoch>-<seq>`, or return None for anything else."""
    found = _EVENT_ID.fullmatch(text)
    return None if found is None else (int(found[1]), int(found[2]))


def _arguments(event: Event) -> tuple[list[str], list[str | int]]:
    seconds = KEPT_AFTER_END_SECONDS if event.type in FINAL_EVENTS else KEPT_SECONDS
    return [stream(event.job)], [channel(event.job), event.id, event.model_dump_json(), KEPT_EVENTS, seconds]


class EventWriter:
    """Publish events from a thread."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client
        self._script = client.register_script(_PUBLISH)

    def publish(self, events: Sequence[Event]) -> int:
        """Publish in order in one round trip and return how many were accepted; raise `redis.RedisError` when Redis is away or full."""
        if not events:
            return 0
        with self._client.pipeline(transaction=False) as pipeline:
            for event in events:
                keys, arguments = _arguments(event)
                self._script(keys=keys, args=arguments, client=pipeline)
            return sum(cast("list[int]", pipeline.execute()))


class AsyncEventWriter:
    """Publish events from an event loop."""

    def __init__(self, client: "redis.asyncio.Redis") -> None:
        self._client = client
        self._script = client.register_script(_PUBLISH)

    async def publish(self, events: Sequence[Event]) -> int:
        """Publish in order in one round trip and return how many were accepted; raise `redis.RedisError` when Redis is away or full."""
        if not events:
            return 0
        async with self._client.pipeline(transaction=False) as pipeline:
            for event in events:
                keys, arguments = _arguments(event)
                await cast("Awaitable[Any]", self._script(keys=keys, args=arguments, client=pipeline))
            return sum(cast("list[int]", await pipeline.execute()))


async def kept(client: "redis.asyncio.Redis", job: UUID, after: tuple[int, int] | None) -> list[Event]:
    """Return the kept events of a job in order, those after `after` when given."""
    # "(" makes the start exclusive (Redis 6.2).
    start = "-" if after is None else f"({after[0]}-{after[1]}"
    entries = cast("list[tuple[Any, dict[Any, Any]]]", await client.xrange(stream(job), min=start))
    return [Event.model_validate_json(next(iter(fields.values()))) for _, fields in entries]


async def newest(
    client: "redis.asyncio.Redis", job: UUID, kinds: Sequence[EventType], among: int = 40
) -> dict[str, Event]:
    """Return the newest kept event of each of these kinds, looking no further back than so many events."""
    entries = cast("list[tuple[Any, dict[Any, Any]]]", await client.xrevrange(stream(job), count=among))
    found: dict[str, Event] = {}
    for _, fields in entries:
        event = Event.model_validate_json(next(iter(fields.values())))
        if event.type in kinds:
            found.setdefault(event.type, event)
    return found
