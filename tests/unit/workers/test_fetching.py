"""Pictures on their way from a real storage to a job."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from infra.settings import Settings
from infra.storage import Storage, StorageUnavailable, open_storage
from jobs.claims import ClaimedJob
from jobs.contract import Img2ImgParameters
from jobs.errors import JobFailure
from jobs.events import Event
from jobs.inputs import Inputs
from jobs.pictures import upload_ref
from jobs.uploads import upload_key
from workers.fetching import Fetcher, PictureCache
from workers.held import Held
from workers.model_cache import ModelCache
from workers.model_fetching import ModelFetcher
from workers.phases import PhaseClock, PhaseLimits

DATA = b"a picture"
SHA = hashlib.sha256(DATA).hexdigest()


class Hearer:
    """Write down what came of each fetch."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.something = threading.Semaphore(0)

    def still_fetching(self, held: Held) -> None:
        """Hear nothing: there are no models here."""

    def fetched(self, held: Held, inputs: Inputs) -> None:
        """Write down pictures."""
        del held
        self.heard.append(("fetched", inputs.pictures))
        self.something.release()

    def unfetched(self, held: Held, failure: JobFailure | None) -> None:
        """Write down that there are none."""
        del held
        self.heard.append(("unfetched", None if failure is None else failure.code))
        self.something.release()

    def lost(self, problem: StorageUnavailable) -> None:
        """Write down that the storage is away."""
        del problem
        self.heard.append(("lost", None))


@pytest.fixture
def hearer() -> Hearer:
    """Return someone who listens."""
    return Hearer()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """Return an empty storage on disk."""
    return open_storage((tmp_path / "storage").as_uri())


@pytest.fixture
def fetcher(storage: Storage, hearer: Hearer, tmp_path: Path) -> Iterator[Fetcher]:
    """Return a fetcher from that storage."""
    cache = ModelCache(tmp_path / "cache", 1, 0)
    # Nothing here lacks a model, so nobody asks the database.
    models = ModelFetcher(storage, cast("Any", None), cache, 1.0)
    made = Fetcher(storage, models, hearer, hearer.lost)
    yield made
    made.close()


def job(sha256: str = SHA) -> Held:
    """Return a held job that starts from one picture."""
    parameters = Img2ImgParameters(
        model="shapes", prompt="x", width=64, height=64, steps=4, guidance_scale=1.0, scheduler="Euler", seed=1,
        preview_every=0, image=upload_ref(sha256),
    )  # fmt: skip
    now = datetime.now(UTC)
    before = Event(job=uuid4(), epoch=0, seq=1, type="queued", at=now, data={})
    claimed = ClaimedJob(before.job, 1, "ann", "img2img.cpu", parameters, "shapes@0", 0, 0, now, before)
    # Feeds are not spoken to here.
    return Held(claimed, Inputs({}), cast("Any", None), PhaseClock(PhaseLimits.of(Settings())), 1e9)


def heard(fetcher: Fetcher, hearer: Hearer, held: Held) -> list[tuple[str, Any]]:
    """Fetch, wait for the outcome, and return all that was heard."""
    hearer.heard.clear()
    fetcher.fetch(held)
    assert hearer.something.acquire(timeout=10)
    return hearer.heard


def test_fetcher_brings_pictures_and_remembers_them(fetcher: Fetcher, hearer: Hearer, storage: Storage) -> None:
    """The second job with the same picture asks the storage for nothing."""
    storage.put(upload_key(SHA), DATA)
    assert heard(fetcher, hearer, job()) == [("fetched", {upload_ref(SHA): DATA})]
    storage.delete(upload_key(SHA))
    assert heard(fetcher, hearer, job()) == [("fetched", {upload_ref(SHA): DATA})]


def test_fetcher_fails_jobs_whose_picture_is_gone_or_another(
    fetcher: Fetcher, hearer: Hearer, storage: Storage
) -> None:
    """Only bytes with the recorded SHA-256 are drawn from."""
    assert heard(fetcher, hearer, job()) == [("unfetched", "picture_unreadable")]
    storage.put(upload_key(SHA), b"another picture")
    assert heard(fetcher, hearer, job()) == [("unfetched", "picture_unreadable")]


def test_fetcher_blames_the_storage_that_is_away(fetcher: Fetcher, hearer: Hearer, tmp_path: Path) -> None:
    """Then the job is at no fault, and the worker hears that it should claim nothing."""
    (tmp_path / "storage").rmdir()
    assert heard(fetcher, hearer, job()) == [("lost", None), ("unfetched", None)]


def test_cache_forgets_what_was_used_longest_ago() -> None:
    """It holds so many bytes and no more; what is larger than all of it is never held."""
    cache = PictureCache(10)
    cache.put("a", b"12345")
    cache.put("b", b"12345")
    assert cache.get("a") == b"12345"
    cache.put("c", b"123")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"12345", None, b"123")
    cache.put("d", b"12345678901")
    assert cache.get("d") is None
    assert cache.get("a") == b"12345"
