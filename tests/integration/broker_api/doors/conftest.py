"""A painter that works as an agent does, for clients that wait for their pictures."""

import base64
import contextlib
import hashlib
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image

from infra.database import connect
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.contract import image_seed
from jobs.events import Event, EventWriter
from jobs.geometry import picture_count
from jobs.store import StoredPicture, complete, stopped


def _preview() -> str:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


PREVIEW = _preview()
GIB = 1024**3


class Painter:
    """Claim jobs one after the other, show a preview of each, and finish it when the gate is open."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._writer = EventWriter(world.redis)
        self.gate = threading.Event()
        self.gate.set()
        #: Jobs whose preview is out.
        self.shown: list[ClaimedJob] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def start(self) -> None:
        """Begin to paint."""
        self._thread.start()

    def close(self) -> None:
        """Finish what is begun."""
        self._stop.set()
        self.gate.set()
        self._thread.join(20)

    def _work(self) -> None:
        claimer = Claimer(
            worker="cpu0@test", run=uuid4(), queues=["txt2img.cpu"], memory_bytes=8 * GIB, lease_seconds=600
        )
        with connect(self._world.database_url, application_name="painter") as connection:
            while not self._stop.is_set():
                for job in claim(connection, claimer).jobs:
                    self._paint(connection, job)
                self._stop.wait(0.02)

    def _paint(self, connection: Any, job: ClaimedJob) -> None:
        numbers = itertools.count(1)

        def say(kind: Any, **data: object) -> None:
            event = Event(job=job.id, epoch=job.epoch, seq=next(numbers), type=kind, at=job.created_at, data=data)
            self._writer.publish([event])

        self._writer.publish([job.predecessor])
        say("started", worker="cpu0@test")
        say("progress", step=3, steps=20, fraction=0.15, image=0)
        say("preview", step=3, image=0, mime="image/jpeg", width=8, height=8, base64=PREVIEW)
        self.shown.append(job)
        while not self.gate.wait(0.05):
            row = connection.execute("select cancel_requested_at from jobs where id = %s", (job.id,)).fetchone()
            if row is None or row["cancel_requested_at"] is not None:
                change = stopped(connection, job.id, job.epoch, next(numbers))
                self._writer.publish([] if change is None else [change.event])
                return
        pictures = [self._store(job, index) for index in range(picture_count(job.parameters))]
        change = complete(connection, job.id, job.epoch, next(numbers), pictures, 0.5)
        self._writer.publish([] if change is None else [change.event])

    def _store(self, job: ClaimedJob, index: int) -> StoredPicture:
        parameters, seed = job.parameters, image_seed(job.parameters, index)
        file = io.BytesIO()
        Image.new("RGB", (parameters.width, parameters.height), (seed % 256, index, 0)).save(file, "PNG")
        data = file.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        key = f"jobs/{job.id}/{job.epoch}-{index}-{digest}.png"
        self._world.storage.put(key, data)
        return StoredPicture(index, seed, parameters.width, parameters.height, "image/png", len(data), digest, key)


@pytest.fixture
def painter(world: Any) -> Iterator[Painter]:
    """Paint in the world of one test."""
    with contextlib.closing(Painter(world)) as found:
        found.start()
        yield found


@pytest.fixture
def in_thread() -> Iterator[Callable[..., Any]]:
    """Return a way to call something beside the test and get its result later, as a function."""
    with contextlib.ExitStack() as stack:

        def begin(call: Callable[[], Any]) -> Callable[[], Any]:
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(call()))
            thread.start()
            stack.callback(thread.join, 20)

            def result() -> Any:
                thread.join(20)
                assert not thread.is_alive()
                return found[0]

            return result

        yield begin
