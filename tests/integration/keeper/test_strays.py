"""Pictures that a killed worker stored and nobody recorded are found and removed, and no others."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest

from infra.database import CONNECT, Connection, connect
from infra.storage import ObjectInfo, Storage, open_storage
from jobs.claims import ClaimedJob, Claimer, claim
from jobs.contract import Txt2ImgParameters
from jobs.intake import NewJob, submit
from jobs.store import StoredPicture, complete, hand_back
from jobs.strays import is_unused_picture, leave_strays
from keeper.duties import tidy
from keeper.strays import Strays

DAY = 86400


class Watched(Storage):
    """A storage that counts what is listed."""

    def __init__(self, inner: Storage) -> None:
        self._inner = inner
        self.listed = 0

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List, and count."""
        for found in self._inner.list(prefix):
            self.listed += 1
            yield found

    def forget_drafts(self, before: datetime) -> Iterator[int]:
        """Remove drafts."""
        return self._inner.forget_drafts(before)

    def delete(self, key: str) -> None:
        """Delete."""
        self._inner.delete(key)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Open a connection to the database of this test."""
    with connect(database_url, application_name="test") as opened:
        yield opened


@pytest.fixture
def storage(tmp_path: Path) -> Watched:
    """Return an empty storage."""
    return Watched(open_storage(tmp_path.as_uri()))


def run_job(connection: Connection, url: str) -> ClaimedJob:
    """Submit a job and claim it."""
    parameters = Txt2ImgParameters(
        model="m", prompt="p", width=64, height=64, steps=2, guidance_scale=1.0, scheduler="Euler", seed=1, preview_every=0
    )  # fmt: skip

    async def store() -> None:
        async with await psycopg.AsyncConnection.connect(url, **CONNECT) as own:
            await submit(own, NewJob("ann", parameters, model_key="m@1", needs_memory=1, hardware="cpu"))

    asyncio.run(store())
    return claim(connection, Claimer("cpu0@test", uuid4(), ["txt2img.cpu"], 10**9, lease_seconds=60)).jobs[0]


def put(folder: Path, job: UUID, epoch: int, days: float = 2.0) -> str:
    """Store a picture as a worker does, so many days ago, and return its key."""
    key = f"jobs/{job}/{epoch}-0-{hashlib.sha256(uuid4().bytes).hexdigest()}.png"
    path = folder / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return key


def left(storage: Watched) -> set[str]:
    """Return what is in storage."""
    return {found.key for found in storage.list()}


def test_strays_are_removed_and_nothing_else(
    connection: Connection, storage: Watched, database_url: str, tmp_path: Path
) -> None:
    """What rows refer to, what a running job's writer may still record, what is young and what is not a picture's stays."""
    done = run_job(connection, database_url)
    recorded = put(tmp_path, done.id, done.epoch)
    picture = StoredPicture(0, 1, 64, 64, "image/png", 1, "0" * 64, recorded)
    assert complete(connection, done.id, done.epoch, 2, [picture], 0.1) is not None
    thumbnail = put(tmp_path, done.id, done.epoch)
    connection.execute(
        "insert into thumbnails (job, index, size, bytes, sha256, key) values (%s, 0, 64, 1, %s, %s)",
        (done.id, "0" * 64, thumbnail),
    )
    running = run_job(connection, database_url)
    stored = put(tmp_path, running.id, running.epoch)
    young = put(tmp_path, done.id, done.epoch, 0.9)
    (tmp_path / "jobs/other").mkdir()
    (tmp_path / "jobs/other/0-x").write_bytes(b"x")
    os.utime(tmp_path / "jobs/other/0-x", (0, 0))
    strays = {put(tmp_path, done.id, done.epoch), put(tmp_path, uuid4(), 1)}
    kept = {recorded, thumbnail, stored, young, "jobs/other/0-x"}
    assert left(storage) == strays | kept
    Strays(storage).sweep(connection)
    tidy(connection, storage, 30)
    assert left(storage) == kept
    # Its worker was killed, and the job went back: nobody can record what that one stored.
    assert hand_back(connection, running.id, running.epoch, "lease_expired") is not None
    Strays(storage).sweep(connection)
    tidy(connection, storage, 30)
    assert left(storage) == kept - {stored}


def test_sweep_looks_at_a_few_objects_in_a_round(
    connection: Connection, storage: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next round goes on where the last one stopped; after the last object it rests."""
    monkeypatch.setattr("keeper.strays.BATCH", 3)
    keys = {put(tmp_path, uuid4(), 1) for _ in range(7)}
    sweep = Strays(storage)
    for listed, found in ((3, 3), (6, 6), (7, 7), (7, 7), (7, 7)):
        sweep.sweep(connection)
        rows = connection.execute("select key from garbage").fetchall()
        assert (storage.listed, len(rows)) == (listed, found)
    assert {row["key"] for row in rows} == keys


def test_drafts_of_killed_writers_are_removed(connection: Connection, storage: Watched, tmp_path: Path) -> None:
    """What was half written long ago goes, wherever it lies; what may still be written, and what is whole, stays."""
    key = put(tmp_path, uuid4(), 1, days=0)
    folder = (tmp_path / key).parent
    (tmp_path / "backups").mkdir()
    old = [folder / "1-0-x.png#4611686018427387903", tmp_path / "backups/whole#7", tmp_path / "probe#1"]
    kept = [folder / "2-0-x.png#12", tmp_path / "backups/no-draft#", tmp_path / key]
    for path in (*old, *kept):
        path.write_bytes(b"half")
    then = time.time() - 2 * DAY
    for path in (*old, kept[1]):
        os.utime(path, (then, then))
    Strays(storage).sweep(connection)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_sweep_begins_anew_when_the_storage_was_away(
    connection: Connection, storage: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told of as away, and looked at again after a rest."""
    monkeypatch.setattr("keeper.strays.REST_SECONDS", 0.0)
    key = put(tmp_path, uuid4(), 1)
    elsewhere = tmp_path.rename(tmp_path.with_name("elsewhere"))
    sweep = Strays(storage)
    sweep.sweep(connection)
    elsewhere.rename(tmp_path)
    for _ in range(2):
        sweep.sweep(connection)
    assert connection.execute("select key from garbage").fetchall() == [{"key": key}]


def test_picture_that_is_recorded_again_is_not_removed(
    connection: Connection, storage: Watched, database_url: str, tmp_path: Path
) -> None:
    """A smaller copy that was a stray and is made anew is everybody's again."""
    job = run_job(connection, database_url)
    key = put(tmp_path, uuid4(), 1)
    assert leave_strays(connection, [key]) == [key]
    assert is_unused_picture(connection, key)
    mine = put(tmp_path, job.id, 1)
    connection.execute("insert into garbage (key) values (%s)", (mine,))
    picture = StoredPicture(0, 1, 64, 64, "image/png", 1, "0" * 64, mine)
    assert complete(connection, job.id, job.epoch, 2, [picture], 0.1) is not None
    tidy(connection, storage, 30)
    assert left(storage) == {mine}
