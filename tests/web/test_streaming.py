"""Fifty jobs draw at once, and the page that shows them all is still one's own to type in."""

import base64
import io
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import redis
from PIL import Image
from playwright.sync_api import Browser, expect

from infra.database import Connection, connect
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.errors import DrawingFailed
from jobs.events import Event, EventType, EventWriter
from jobs.store import fail
from tests.fleet_process import FleetProcess
from tests.web.visitor import Visitor

JOBS = 50
STEPS = 60
#: Between two steps of all jobs, seconds: together about a thousand events a second.
PAUSE = 0.1
#: Counts what comes in, what becomes of it on the page, and what a key has to wait for.
WATCH = """
window.counted = {messages: 0, flushes: 0, previews: 0, frames: 0, keys: 0, most: 0, long: 0};
const Native = window.WebSocket;
window.WebSocket = class extends Native {
  constructor(...given) { super(...given); this.addEventListener('message', () => { counted.messages += 1; }); }
};
new PerformanceObserver((list) => { counted.long += list.getEntries().length; }).observe({type: 'longtask'});
addEventListener('DOMContentLoaded', () => {
  new MutationObserver((changes) => {
    const pictures = changes.filter((each) => each.target.matches?.('img.forming'));
    counted.flushes += 1;
    counted.previews += pictures.length;
  }).observe(document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ['src']});
});
const frame = () => { counted.frames += 1; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
addEventListener('input', () => {
  const before = counted.flushes;
  counted.keys += 1;
  requestAnimationFrame(() => { counted.most = Math.max(counted.most, counted.flushes - before); });
}, {capture: true});
"""


@pytest.fixture(scope="module")
def quiet_fleet(fleet: FleetProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    """Start a fleet without workers: the test draws in their place."""
    del fleet  # its checks for Chromium and the built application come first
    running = FleetProcess(tmp_path_factory.mktemp("streams") / "home", workers=0, engine="fake", threads=1)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@dataclass
class Workers:
    """As many workers as jobs, each of which tells of steps and previews with the fleet's own statements."""

    connection: Connection
    writer: EventWriter
    claimed: list[ClaimedJob] = field(default_factory=list)
    seqs: dict[UUID, Iterator[int]] = field(default_factory=dict)

    def claim(self) -> None:
        """Take every job, each by a worker of its own."""
        for place in range(JOBS):
            claimer = Claimer(
                worker=f"cpu{place}@streams", run=uuid4(), queues=["txt2img.cpu"], memory_bytes=2**40, lease_seconds=600
            )
            (job,) = claim(self.connection, claimer).jobs
            self.claimed.append(job)
            self.seqs[job.id] = itertools.count(1)
        self.tell("started", lambda place: {"worker": f"cpu{place}@streams"})

    def tell(self, kind: EventType, data: Any) -> None:
        """Publish an event of each job."""
        self.writer.publish(
            [
                Event(
                    job=job.id,
                    epoch=job.epoch,
                    seq=next(self.seqs[job.id]),
                    type=kind,
                    at=job.created_at,
                    data=data(place),
                )
                for place, job in enumerate(self.claimed)
            ]
        )

    def stream(self, pictures: list[str], enough: threading.Event) -> None:
        """Tell of steps, with a new picture after each, until it is enough, and of all steps at least."""
        for turn in itertools.count(1):
            step = min(turn, STEPS)
            self.tell("progress", lambda _, step=step: {"step": step, "steps": STEPS, "fraction": step / STEPS})
            self.tell("preview", lambda place, turn=turn: _preview(pictures[(place + turn) % len(pictures)]))
            if turn >= STEPS and enough.wait(PAUSE):
                return
            time.sleep(PAUSE)

    def end(self) -> None:
        """End each job."""
        for job in self.claimed:
            change = fail(self.connection, job.id, job.epoch, next(self.seqs[job.id]), DrawingFailed("enough"))
            assert change is not None
            self.writer.publish([change.event])


def _preview(picture: str) -> dict[str, object]:
    return {"image": 0, "mime": "image/jpeg", "base64": picture}


def _pictures() -> list[str]:
    """Return previews as workers send them: small JPEGs of noise."""
    draw = np.random.default_rng(7)
    found = []
    for _ in range(40):
        data = io.BytesIO()
        Image.fromarray(draw.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "JPEG", quality=80)
        found.append(base64.b64encode(data.getvalue()).decode())
    return found


@pytest.fixture
def workers(quiet_fleet: FleetProcess) -> Iterator[Workers]:
    """Open what workers speak through."""
    services = quiet_fleet.services()
    with (
        connect(services["database_url"], application_name="test") as connection,
        closing(redis.Redis.from_url(services["redis_url"])) as client,
    ):
        yield Workers(connection, EventWriter(client))


def test_fifty_streams_leave_the_page_to_its_reader(
    browser: Browser, quiet_fleet: FleetProcess, workers: Workers, record_property: Any
) -> None:
    """Thousands of events become a bounded number of updates, none before the last is painted; a key is seen within two of them."""
    with quiet_fleet.client() as http:
        for seed in range(JOBS):
            quiet_fleet.submit(http, steps=STEPS, seed=seed)
    context = browser.new_context(base_url=quiet_fleet.url)
    assert context.request.post("/v1/session", data={"key": quiet_fleet.key}).ok
    cookie = next(each["value"] for each in context.cookies() if each["name"] == "imagefleet_session")
    context.close()
    visitor = Visitor.arrive(browser, quiet_fleet.url, cookie=cookie)
    visitor.context.add_init_script(WATCH)
    page = visitor.page
    page.goto("/draw")
    expect(page.locator("[data-job]")).to_have_count(JOBS)
    workers.claim()
    expect(page.locator("[data-state='running']")).to_have_count(JOBS)

    before = page.evaluate("({...counted})")
    enough = threading.Event()
    streaming = threading.Thread(target=workers.stream, args=(_pictures(), enough))
    streaming.start()
    prompt = page.get_by_label("Prompt", exact=True)
    typed = "a red circle on a blue background"
    expect(page.locator("img.forming")).to_have_count(JOBS)
    prompt.press_sequentially(typed, delay=30)
    expect(prompt).to_have_value(typed)
    enough.set()
    streaming.join()
    expect(page.locator("[data-job]").first).to_contain_text(f"Step {STEPS} of {STEPS}")
    after = page.evaluate("({...counted})")
    counted = {name: after[name] - before[name] for name in after} | {"most": after["most"]}
    record_property("counted", counted)

    # A slow reader is spared previews by the server, never steps.
    assert counted["messages"] >= JOBS * STEPS
    assert counted["flushes"] <= counted["messages"] / 10
    # Of pictures that came between two updates the newest alone is shown.
    assert JOBS <= counted["previews"] <= JOBS * counted["flushes"]
    assert counted["frames"] > 0
    assert counted["keys"] == len(typed)
    assert counted["most"] <= 2
    assert visitor.page.evaluate("document.querySelectorAll('[data-job]').length") == JOBS

    workers.end()
    expect(page.locator("[data-state='failed']")).to_have_count(JOBS)
    expect(page.locator("img.forming")).to_have_count(0)
    visitor.leave()
