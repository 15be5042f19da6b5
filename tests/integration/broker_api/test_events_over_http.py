"""Events as their readers get them: live, late, resumed, trimmed, and while Redis forgets or is away."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from jobs.events import KEPT_EVENTS, channel, stream

STEPS = 5


def _submit(client: httpx.Client) -> str:
    job: str = client.post("/v1/jobs", json={"prompt": "x", "steps": STEPS}).json()["id"]
    return job


def _draw(worker: Any, *, previews: bool = True) -> None:
    """Do a job's steps, previews and picture."""
    for step in range(1, STEPS + 1):
        worker.publish("progress", step=step, steps=STEPS)
        if previews:
            worker.publish("preview", step=step, base64="AAAA")
    worker.publish("image", index=0)
    worker.finish()


EXPECTED = ["queued", "started", *["progress", "preview"] * STEPS, "image", "succeeded"]


class Reading:
    """A reader in a thread."""

    def __init__(self, read: Any, client: httpx.Client, job: str, **options: Any) -> None:
        self.events: list[Any] = []
        self._thread = threading.Thread(target=lambda: self.events.extend(read(client, job, **options)))
        self._thread.start()

    def end(self, seconds: float = 10) -> list[Any]:
        """Wait for the end of the stream."""
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        return self.events


@pytest.fixture
def world(clean_world: Any) -> Any:
    """Share one world, emptied before each test."""
    return clean_world


@pytest.fixture
def live(shared_live: Any) -> Any:
    """Share one server."""
    return shared_live


@pytest.fixture
def client(live: Any, world: Any) -> Iterator[httpx.Client]:
    """Speak to the server."""
    with live.client(world.key()) as found:
        yield found


def _watched(live: Any, readers: int = 1) -> None:
    until = time.monotonic() + 5
    while live.services.hub.readers < readers:
        assert time.monotonic() < until
        time.sleep(0.01)


def test_live_reader_gets_every_event_once(live: Any, world: Any, client: httpx.Client, read_sse: Any) -> None:
    """From queued to succeeded, in order, and the stream ends by itself."""
    job = _submit(client)
    reading = Reading(read_sse, client, job)
    _watched(live)
    worker = world.worker()
    worker.claim()
    _draw(worker)
    events = reading.end()
    assert [event.event for event in events] == EXPECTED
    assert [event.id for event in events] == ["0-1", *(f"1-{seq}" for seq in range(1, len(EXPECTED)))]
    assert f'"job":"{job}"' in events[-1].data


def test_stream_has_the_headers_proxies_need(client: httpx.Client) -> None:
    """Nothing between server and reader may hold events back."""
    job = _submit(client)
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert "no-cache" in answer.headers["cache-control"]
        assert "content-length" not in answer.headers
        assert next(answer.iter_lines()) == "retry: 1000"
    assert client.head(f"/v1/jobs/{job}/events").status_code == 200


def test_late_reader_gets_the_kept_events(world: Any, client: httpx.Client, read_sse: Any) -> None:
    """One who comes in the middle gets the story from the oldest event; one who comes after the end gets the end."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    worker.publish("progress", step=1, steps=STEPS)
    assert [event.id for event in read_sse(client, job, most=3)] == ["0-1", "1-1", "1-2"]
    worker.finish()
    assert [(event.event, event.id) for event in read_sse(client, job)] == [("succeeded", "1-3")]


def test_resumed_reader_sees_no_gap_and_no_repeat(world: Any, client: httpx.Client, read_sse: Any) -> None:
    """Cut after every single event and resumed by its id, a reader sees the same story as one who was never cut."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    thread = threading.Thread(target=_draw, args=(worker,))
    seen: list[Any] = []
    while not seen or seen[-1].event != "succeeded":
        seen += read_sse(client, job, after=seen[-1].id if seen else None, most=1)
        if len(seen) == 2:
            thread.start()
    thread.join()
    assert [event.event for event in seen] == EXPECTED
    assert read_sse(client, job, after=seen[-1].id) == [], "one who has had the end is told to stay away"
    assert [event.event for event in read_sse(client, job, after="1-3")] == EXPECTED[4:]


@pytest.mark.parametrize("after", ["rubbish", "1", "-1--1", "999999", "9-9", "1-99999999999999999999", "\u0661-\u0661"])
def test_reader_with_a_strange_id_still_gets_one_end(world: Any, client: httpx.Client, after: str) -> None:
    """Ids that never were lead to the present state, not to silence."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    worker.finish()
    headers = {b"last-event-id": after.encode()}
    answer = client.get(f"/v1/jobs/{job}/events", headers=headers)
    assert answer.text.count("event: ") == answer.text.count("event: succeeded") == 1


def test_reader_of_a_trimmed_story_starts_with_the_present_state(
    world: Any, client: httpx.Client, read_sse: Any
) -> None:
    """Where the oldest events were dropped, the state comes first and then what is kept."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    for step in range(KEPT_EVENTS * 2):
        worker.publish("progress", step=step, steps=KEPT_EVENTS * 2)
    first = read_sse(client, job, most=3)
    assert (first[0].event, first[0].id) == ("started", "1-1")
    assert first[1].order > (1, 2)
    assert first[2].order == (1, first[1].order[1] + 1)


def test_flushed_redis_loses_no_state(live: Any, world: Any, client: httpx.Client, read_sse: Any) -> None:
    """After FLUSHALL a new reader starts with the present state, and a resumed one goes on."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    worker.publish("progress", step=1, steps=STEPS)
    reading = Reading(read_sse, client, job)
    resumed = Reading(read_sse, client, job, after="1-2")
    _watched(live, 2)
    world.redis.flushdb()
    assert [(event.event, event.id) for event in read_sse(client, job, most=1)] in (
        [("started", "1-1")],
        [("queued", "0-1")],
    )
    worker.publish("progress", step=2, steps=STEPS)
    worker.finish()
    assert [event.id for event in reading.end()] == ["0-1", "1-1", "1-2", "1-3", "1-4"]
    assert [event.id for event in resumed.end()] == ["1-3", "1-4"]


def test_reader_who_comes_after_a_flush_starts_with_the_state(world: Any, client: httpx.Client, read_sse: Any) -> None:
    """Nothing kept and nobody listening: the database tells."""
    job = _submit(client)
    world.worker().claim()
    time.sleep(0.05)
    world.redis.flushdb()
    assert [(event.event, event.id) for event in read_sse(client, job, most=1)] == [("started", "1-1")]


def test_end_that_redis_never_heard_of_arrives(live: Any, world: Any, client: httpx.Client, read_sse: Any) -> None:
    """An agent that dies between commit and announcement leaves no reader hanging."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    reading = Reading(read_sse, client, job)
    _watched(live)
    began = time.monotonic()
    worker.finish(announce=False)
    events = reading.end()
    assert [event.event for event in events] == ["queued", "started", "succeeded"]
    assert time.monotonic() - began < 15


def test_readers_are_served_while_redis_is_away(start_server: Any, world: Any, read_sse: Any) -> None:
    """Without Redis the states come from the database, within 3 s each."""
    with start_server(redis_url="redis://127.0.0.1:1/0") as live, live.client(world.key()) as client:
        job = _submit(client)
        reading = Reading(read_sse, client, job)
        _watched(live)
        worker = world.worker()
        worker.claim()
        time.sleep(2.2)
        began = time.monotonic()
        worker.finish()
        events = reading.end()
    assert [event.event for event in events] == ["queued", "started", "succeeded"]
    assert time.monotonic() - began < 15


def test_cut_subscription_is_made_again_and_made_up_for(
    live: Any, world: Any, client: httpx.Client, read_sse: Any
) -> None:
    """Events published while the subscription was broken are read from what is kept, in order, each once."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    reading = Reading(read_sse, client, job)
    _watched(live)
    for round_ in range(3):
        world.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        worker.publish("progress", step=round_, steps=STEPS)
        time.sleep(0.1)
    _draw(worker)
    events = reading.end()
    assert [event.id for event in events] == ["0-1", *(f"1-{seq}" for seq in range(1, len(events)))]
    assert events[-1].event == "succeeded"


def test_event_published_out_of_line_is_made_up_for(live: Any, world: Any, client: httpx.Client, read_sse: Any) -> None:
    """A message the subscription missed is fetched when the next one shows the gap; older epochs are dropped."""
    job = _submit(client)
    worker = world.worker()
    worker.claim()
    reading = Reading(read_sse, client, job)
    _watched(live)
    missed = worker.event("progress", step=1, steps=STEPS)
    world.redis.xadd(stream(missed.job), {"event": missed.model_dump_json()}, id=missed.id)
    world.redis.publish(channel(missed.job), "rubbish")
    stale = missed.model_copy(update={"epoch": 0, "seq": 7})
    world.redis.publish(channel(missed.job), stale.model_dump_json())
    worker.publish("progress", step=2, steps=STEPS)
    worker.finish()
    assert [event.id for event in reading.end()] == ["0-1", "1-1", "1-2", "1-3", "1-4"]


def test_requeued_job_is_followed_into_its_next_life(
    live: Any, world: Any, client: httpx.Client, read_sse: Any
) -> None:
    """Epochs follow each other in one stream, and a worker that lost the job is not heard any more."""
    job = _submit(client)
    first, second = world.worker(), world.worker()
    first.claim()
    reading = Reading(read_sse, client, job)
    _watched(live)
    world.connection.execute(
        "update jobs set state = 'queued', epoch = epoch + 1, state_seq = 1, lease_until = null, requeue_reason = 'lost', "
        "worker = null, worker_run = null"
    )
    second.claim()
    first.publish("progress", step=4, steps=STEPS)
    second.finish()
    assert [event.id for event in reading.end()] == ["0-1", "1-1", "2-1", "3-1", "3-2"]


def test_deleted_job_ends_its_streams(live: Any, world: Any, client: httpx.Client, read_sse: Any) -> None:
    """A reader of a job that vanished is not kept."""
    job = _submit(client)
    reading = Reading(read_sse, client, job)
    _watched(live)
    world.connection.execute("delete from jobs")
    assert [event.event for event in reading.end()] == ["queued"]


def test_stop_ends_streams_and_waits(start_server: Any, world: Any, read_sse: Any) -> None:
    """A stopping server ends its streams at once, and answers those who wait with the job as it stands."""
    answers: list[httpx.Response] = []
    with start_server() as live, live.client(world.key()) as client, live.client(world.key()) as other:
        job = _submit(client)
        reading = Reading(read_sse, client, job)

        def wait() -> None:
            answers.append(other.post("/v1/jobs", params={"wait": 60}, json={"prompt": "y"}))

        waiting = threading.Thread(target=wait)
        waiting.start()
        _watched(live, 2)
        began = time.monotonic()
        live.server.should_exit = True
        assert [event.event for event in reading.end()] == ["queued"]
        waiting.join(10)
    assert time.monotonic() - began < 30
    assert answers[0].status_code == 202


def test_thousand_readers_cost_one_subscription_and_one_encoding(world: Any, application: Any) -> None:
    """However many read a job, Redis has one subscriber, each event is encoded once, and all readers get the same bytes."""

    async def subscriptions(services: Any) -> int:
        return sum("P" in each["flags"] for each in await services.redis.client_list())

    async def story() -> tuple[list[str], int, float]:
        async with application(world.key()) as (client, services):
            job = (await client.post("/v1/jobs", json={"prompt": "x"})).json()["id"]
            await services.relay.drain(5)
            # Until it is watched, this application is subscribed to nothing else: the one connection is there already.
            while not services.hub.connected:  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
            others = await subscriptions(services) - 1
            readers = [asyncio.create_task(client.get(f"/v1/jobs/{job}/events")) for _ in range(1000)]
            while services.hub.readers < 1000:  # noqa: ASYNC110 - nothing announces a reader
                await asyncio.sleep(0.01)
            worker = world.worker()
            claimed = await asyncio.to_thread(worker.claim)
            subscribers = dict(await services.redis.pubsub_numsub(channel(claimed.id)))
            connections = await subscriptions(services)
            # Previews may be left out for those who lag, and of a thousand some do.
            await asyncio.to_thread(_draw, worker, previews=False)
            texts = [(await reader).text for reader in readers]
            encoded = services.metrics.encoded._value.get()  # noqa: SLF001 - no public way to read a counter
            assert services.hub.readers == 0
            assert connections == others + 1
            return texts, next(iter(subscribers.values())), encoded

    texts, subscribers, encoded = asyncio.run(story())
    assert subscribers == 1
    expected = [kind for kind in EXPECTED if kind != "preview"]
    assert encoded == len(expected)
    assert len(set(texts)) == 1
    assert [line[7:] for line in texts[0].splitlines() if line.startswith("event: ")] == expected


def test_watching_ends_with_its_readers(live: Any, world: Any, client: httpx.Client) -> None:
    """A reader that leaves takes its subscription with it."""
    job = _submit(client)
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        lines = answer.iter_lines()
        assert any(line.startswith("event: queued") for line in lines)
        assert world.redis.pubsub_numsub(f"imagefleet:events:{job}")[0][1] == 1
    until = time.monotonic() + 5
    while world.redis.pubsub_numsub(f"imagefleet:events:{job}")[0][1] or live.services.hub.readers:
        assert time.monotonic() < until
        time.sleep(0.01)
