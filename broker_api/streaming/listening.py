"""Hear what happens to watched jobs: one Redis subscription per process, with the database behind it.

Redis is quick but forgetful, so every watched job is also looked up in the database every other second, all in one statement: an end that
Redis has lost reaches its readers within 3 s.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

import redis.asyncio
from prometheus_client import Counter
from pydantic import ValidationError
from redis.exceptions import RedisError

from broker_api.http.background import end_tasks, repeat
from broker_api.problems import DATABASE_ERRORS
from broker_api.streaming.topics import BEFORE_ALL, Reader, Topic, encode, follows
from infra.database import AsyncPool
from infra.logging import get_logger
from jobs.changes import Change
from jobs.events import Event, channel, kept
from jobs.reading import present_changes

log = get_logger(__name__)

#: Watched jobs are looked up in the database so often, seconds.
POLL_SECONDS: Final = 1.5
#: A state that the database knows and Redis has not told yet is given so long: what came before it may still be on its way.
GRACE_SECONDS: Final = 0.4
#: A reader waits at most so long for Redis before it goes on with what the database says.
OPEN_SECONDS: Final = 1.0
#: A subscription silent for so long is asked whether it lives; the answer may take as long again.
PING_SECONDS: Final = 5.0
RECONNECT_SECONDS: Final = 0.5

#: The subscription is never without a channel; nobody publishes here.
_CONTROL: Final = "imagefleet:events:none"
_REDIS_ERRORS: Final = (RedisError, OSError, TimeoutError)

SUBSCRIPTION_LOST: Final = "event_subscription_lost"
SUBSCRIPTION_MADE: Final = "event_subscription_made"
MESSAGE_STRANGE: Final = "event_message_not_understood"


class Hub:
    """Hand every event of every watched job to all who watch it."""

    def __init__(self, client: "redis.asyncio.Redis", pool: AsyncPool, encoded: Counter) -> None:
        self._redis = client
        self._pool = pool
        self._encoded = encoded
        self._topics: dict[UUID, Topic] = {}
        self._subscription: Any = None
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Tell whether readers should end now."""
        return self._stopping

    @property
    def connected(self) -> bool:
        """Tell whether events are heard at the moment."""
        return self._subscription is not None

    @property
    def readers(self) -> int:
        """Return how many readers watch anything."""
        return sum(topic.readers for topic in self._topics.values())

    @property
    def watched(self) -> list[UUID]:
        """Return the jobs that somebody watches here."""
        return [job for job, topic in self._topics.items() if topic.readers]

    def start(self) -> None:
        """Begin to listen."""
        self._spawn(repeat(self._listen, name="event_subscription"))
        self._spawn(repeat(self._poll, name="event_poll"))

    def stop_readers(self) -> None:
        """Let every reader end; they resume elsewhere by `Last-Event-ID`."""
        self._stopping = True
        for topic in self._topics.values():
            topic.wake()

    async def aclose(self) -> None:
        """Stop listening."""
        self.stop_readers()
        await end_tasks(self._tasks)

    @contextlib.asynccontextmanager
    async def watch(self, job: UUID) -> AsyncIterator[Reader]:
        """Watch a job: on entry its kept events have been read, and none can be missed any more, unless Redis is away."""
        reader = Reader(self.topic(job))
        self.join(reader)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(OPEN_SECONDS):
                    await reader.topic.ready.wait()
            yield reader
        finally:
            self.leave(reader)

    def topic(self, job: UUID) -> Topic:
        """Return the topic of a job, which must be joined before the event loop goes on: one without readers is not kept."""
        found = self._topics.get(job)
        if found is None:
            found = self._topics[job] = Topic(job)
            self._spawn(self._subscribe(found))
        return found

    def join(self, reader: Reader) -> None:
        """Let a reader hear its topic; until `topic.ready` is set, its kept events have not been read."""
        reader.topic.join(reader)

    def leave(self, reader: Reader) -> None:
        """Forget a reader, and its topic when it was the last one."""
        topic = reader.topic
        topic.leave(reader)
        if topic.readers == 0 and self._topics.get(topic.job) is topic:
            del self._topics[topic.job]
            self._spawn(self._unsubscribe(topic.job))

    def expect(self, change: Change) -> None:
        """Announce a state that the database knows, unless Redis does so first."""
        self._spawn(self._confirm([change]))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _subscribe(self, topic: Topic) -> None:
        if self._subscription is None:
            topic.become_ready()
            return
        async with self._writing:
            # The answer, seen by `_listen`, makes the kept events be read. An error is seen there too.
            with contextlib.suppress(*_REDIS_ERRORS):
                await self._subscription.subscribe(channel(topic.job))

    async def _unsubscribe(self, job: UUID) -> None:
        async with self._writing:
            if job not in self._topics and self._subscription is not None:
                with contextlib.suppress(*_REDIS_ERRORS):
                    await self._subscription.unsubscribe(channel(job))

    async def _listen(self) -> None:
        """Hear until the subscription is lost, and rest before the next."""
        try:
            async with self._redis.pubsub() as subscription:
                await subscription.subscribe(_CONTROL)
                self._subscription = subscription
                log.debug(SUBSCRIPTION_MADE)
                for topic in list(self._topics.values()):
                    await self._subscribe(topic)
                await self._hear(subscription)
        except _REDIS_ERRORS as error:
            if self._subscription is not None:
                log.warning(SUBSCRIPTION_LOST, reason=f"{type(error).__name__}: {error}")
        finally:
            self._subscription = None
            for topic in self._topics.values():
                topic.become_ready()
        await asyncio.sleep(RECONNECT_SECONDS)

    async def _hear(self, subscription: Any) -> None:
        asked = False
        while True:
            message = await subscription.get_message(timeout=PING_SECONDS)
            if message is not None:
                asked = False
                self._receive(message)
            elif asked:
                raise TimeoutError("Redis does not answer")
            else:
                asked = True
                async with self._writing:
                    await subscription.ping()

    def _receive(self, message: dict[str, Any]) -> None:
        if message["type"] not in {"message", "subscribe"}:
            return
        job = _job_of(message["channel"])
        topic = None if job is None else self._topics.get(job)
        if topic is None:
            return
        if topic.catching_up:
            topic.missed = True
        elif message["type"] == "subscribe":
            self._spawn(self._catch_up(topic))
        else:
            self._take(topic, message["data"])

    def _take(self, topic: Topic, data: bytes) -> None:
        try:
            event = Event.model_validate_json(data)
        except ValidationError:
            log.warning(MESSAGE_STRANGE, job=str(topic.job))
            return
        if event.order <= topic.last:
            return
        if not follows(topic.last, event.order):
            self._spawn(self._catch_up(topic))
            return
        self._encoded.inc()
        topic.add(encode(event, data))

    async def _catch_up(self, topic: Topic) -> None:
        """Read what Redis has kept and this process has not heard."""
        if topic.catching_up:
            topic.missed = True
            return
        topic.catching_up = True
        try:
            topic.missed = True
            while topic.missed:
                topic.missed = False
                after = None if topic.last == BEFORE_ALL else topic.last
                self._add_all(topic, await kept(self._redis, topic.job, after))
        except (*_REDIS_ERRORS, ValidationError):
            # The next event shows the gap; the database's word stands behind it.
            pass
        finally:
            topic.catching_up = False
            topic.become_ready()

    def _add_all(self, topic: Topic, events: Iterable[Event]) -> None:
        for event in events:
            if event.order > topic.last:
                self._encoded.inc()
                topic.add(encode(event))

    async def _poll(self) -> None:
        """Rest, then compare what the database says of every watched job with what was heard."""
        await asyncio.sleep(POLL_SECONDS)
        topics = dict(self._topics)
        if not topics:
            return
        try:
            async with self._pool.connection() as connection:
                changes = await present_changes(connection, None, list(topics))
        except DATABASE_ERRORS:
            return
        for job, topic in topics.items():
            if job not in changes:
                topic.close()
        news = [change for job, change in changes.items() if change.event.order > topics[job].last]
        if news:
            self._spawn(self._confirm(news))

    async def _confirm(self, changes: Sequence[Change]) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        for change in changes:
            topic = self._topics.get(change.job)
            if topic is None or change.event.order <= topic.last:
                continue
            if self.connected:
                await self._catch_up(topic)
            self._add_all(topic, [change.event])


def _job_of(name: bytes | str) -> UUID | None:
    text = name.decode() if isinstance(name, bytes) else name
    try:
        return UUID(text.rpartition(":")[2])
    except ValueError:
        return None
