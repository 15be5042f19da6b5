"""One suite for every kind of storage: local folder, memory, and S3 over real HTTP."""

import asyncio
import hashlib
import os
import resource
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from moto.server import ThreadedMotoServer

from infra.ports import free_port
from infra.storage import (
    KeyInvalid,
    ObjectInfo,
    ObjectMissing,
    RangeInvalid,
    Storage,
    StorageFull,
    StorageUnavailable,
    StorageUrlInvalid,
    open_storage,
)

KINDS = ["file", "memory", "s3"]
DATA = bytes(range(256)) * 4096


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Serve S3 on the loopback address; yields its address."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Make a bucket for one test."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"bucket-{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}"
    httpx.put(f"{s3_server}/{name}").raise_for_status()
    return name


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """Open one empty storage of each kind."""
    if request.param == "file":
        return open_storage((tmp_path / "objects").as_uri())
    if request.param == "memory":
        return open_storage("memory:///")
    endpoint, name = request.getfixturevalue("s3_server"), request.getfixturevalue("bucket")
    return open_storage(f"s3://{name}/some/prefix", endpoint=endpoint)


def _keys(storage: Storage, prefix: str = "") -> list[str]:
    return sorted(found.key for found in storage.list(prefix))


def test_object_is_read_as_it_was_written(storage: Storage) -> None:
    """What is put is got, whole, in parts and in a stream, and described."""
    assert storage.put("jobs/1/0-abc.png", DATA)
    assert storage.get("jobs/1/0-abc.png") == DATA
    assert storage.get("jobs/1/0-abc.png", start=10, end=20) == DATA[10:20]
    assert storage.get("jobs/1/0-abc.png", start=len(DATA) - 5) == DATA[-5:]
    assert storage.get("jobs/1/0-abc.png", start=len(DATA) - 5, end=len(DATA) + 100) == DATA[-5:]
    assert b"".join(storage.stream("jobs/1/0-abc.png", start=7)) == DATA[7:]
    found = storage.head("jobs/1/0-abc.png")
    assert (found.key, found.size) == ("jobs/1/0-abc.png", len(DATA))
    assert found.modified.tzinfo is not None


def test_stream_comes_in_chunks(storage: Storage, request: pytest.FixtureRequest) -> None:
    """A large object is never held whole, except where it is kept in memory anyway."""
    storage.put("large", DATA * 4)
    chunks = list(storage.stream("large"))
    assert len(chunks) > 1 or "memory" in request.node.name
    assert b"".join(chunks) == DATA * 4


def test_object_is_never_replaced(storage: Storage) -> None:
    """The second put of a key changes nothing and says so."""
    assert storage.put("once", b"first")
    assert not storage.put("once", b"second")
    assert storage.get("once") == b"first"


def test_one_of_many_writers_wins(storage: Storage, request: pytest.FixtureRequest) -> None:
    """Of writers at the same moment exactly one stores its bytes, whole."""
    # The S3 of the tests looks and stores in two steps, unlike real ones: there the writers come one after the other.
    barrier = threading.Barrier(1 if "s3" in request.node.name else 4)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = bytes([number]) * 100_000
        barrier.wait(10)
        if storage.put("contested/key", data):
            won.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
        if barrier.parties == 1:
            thread.join()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert storage.get("contested/key") == won[0]
    assert _keys(storage) == ["contested/key"]


def test_missing_object_is_named(storage: Storage) -> None:
    """Reading and describing what is not there names the key; deleting it is fine."""
    reads: list[Callable[[], object]] = [
        lambda: storage.get("not/there"),
        lambda: storage.get("not/there", start=5),
        lambda: list(storage.stream("not/there")),
        lambda: storage.head("not/there"),
    ]
    for read in reads:
        with pytest.raises(ObjectMissing, match="not/there") as missing:
            read()
        assert missing.value.key == "not/there"
    storage.delete("not/there")


def test_empty_object_is_an_object(storage: Storage) -> None:
    """No bytes are bytes too."""
    assert storage.put("empty", b"")
    assert storage.get("empty") == b""
    assert storage.head("empty").size == 0


def test_list_is_by_whole_segments(storage: Storage) -> None:
    """A prefix means a folder, not the beginning of a name."""
    for key in ("a/b/1", "a/b/c/2", "a/bc/3", "d"):
        storage.put(key, b"x")
    assert _keys(storage) == ["a/b/1", "a/b/c/2", "a/bc/3", "d"]
    assert _keys(storage, "a/b") == ["a/b/1", "a/b/c/2"]
    assert _keys(storage, "nothing") == []


def test_deleted_object_is_gone(storage: Storage) -> None:
    """A deleted key is free again."""
    storage.put("a/b", b"1")
    storage.delete("a/b")
    assert _keys(storage) == []
    assert storage.put("a/b", b"2")
    assert storage.get("a/b") == b"2"


@pytest.mark.parametrize(
    "key",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/.", "a\\b", "a b", "a\0b", "ü", ".x", "a" * 600, "a/", "x#1"],
)
def test_key_cannot_be_a_path(storage: Storage, key: str) -> None:
    """A key that any store could read as more than a name is refused by every operation."""
    for operation in (storage.get, storage.head, storage.delete, lambda key: storage.put(key, b"x")):
        with pytest.raises(KeyInvalid):
            operation(key)


def test_range_outside_is_refused(storage: Storage) -> None:
    """A range behind the end, or of nothing, is the caller's mistake."""
    storage.put("short", b"12345")
    for start, end in ((5, 6), (100, None), (3, 3), (-1, 2)):
        with pytest.raises(RangeInvalid):
            storage.get("short", start=start, end=end)


def test_async_forms_do_the_same(storage: Storage) -> None:
    """Every operation works from an event loop, with the same errors."""

    async def collect(items: AsyncIterator[ObjectInfo]) -> list[str]:
        return sorted([found.key async for found in items])

    async def scenario() -> None:
        assert await storage.put_async("x/y", DATA)
        assert not await storage.put_async("x/y", b"other")
        assert await storage.get_async("x/y", start=1, end=4) == DATA[1:4]
        assert b"".join([chunk async for chunk in storage.stream_async("x/y", start=3)]) == DATA[3:]
        assert (await storage.head_async("x/y")).size == len(DATA)
        assert await collect(storage.list_async("x")) == ["x/y"]
        await storage.delete_async("x/y")
        await storage.delete_async("x/y")
        with pytest.raises(ObjectMissing):
            await storage.get_async("x/y")
        with pytest.raises(RangeInvalid):
            await storage.get_async("x/y", start=2, end=1)
        with pytest.raises(KeyInvalid):
            await storage.put_async("../x", b"")

    asyncio.run(scenario())


def test_probe_leaves_nothing(storage: Storage) -> None:
    """The check of a storage cleans up behind itself."""
    storage.probe()
    assert _keys(storage) == []


def test_s3_away_is_unavailable(monkeypatch: pytest.MonkeyPatch, bucket: str, s3_server: str) -> None:
    """No server, and no bucket, are faults of the storage and never a missing object."""
    monkeypatch.setattr("infra.storage._RETRY", {"max_retries": 0})
    for away in (
        open_storage(f"s3://{bucket}", endpoint=f"http://127.0.0.1:{free_port()}"),
        open_storage("s3://no-such-bucket", endpoint=s3_server),
    ):
        with pytest.raises(StorageUnavailable):
            away.get("key")
        with pytest.raises(StorageUnavailable):
            away.put("key", b"x")


def test_local_object_is_flushed_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then folder, are on the disk before put returns; the name appears only after the bytes are there."""
    storage = open_storage(tmp_path.as_uri())
    target = tmp_path / "a" / "b"
    flushed: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        flushed.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), target.exists()))

    monkeypatch.setattr(os, "fsync", record)
    storage.put("a/b", b"x")
    names = [(Path(path).name.partition("#")[0], there) for path, there in flushed]
    assert names == [(tmp_path.name, False), ("b", False), ("a", True)]


def test_crashed_write_is_no_object(tmp_path: Path) -> None:
    """What a writer that was killed left behind is not listed, and does not stand in the way."""
    storage = open_storage(tmp_path.as_uri())
    (tmp_path / "key#1234").write_bytes(b"half")
    assert _keys(storage) == []
    assert storage.put("key", b"whole")


def test_folders_vanish_with_their_last_object(tmp_path: Path) -> None:
    """Empty folders do not pile up, and a writer beside a deleter is not disturbed."""
    storage = open_storage(tmp_path.as_uri())
    problems: list[BaseException] = []

    def churn(name: str) -> None:
        try:
            for _ in range(100):
                storage.put(f"same/folder/{name}", b"x")
                storage.delete(f"same/folder/{name}")
        except BaseException as problem:  # noqa: BLE001 - reported below
            problems.append(problem)

    threads = [threading.Thread(target=churn, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert list(tmp_path.iterdir()) == []


def test_local_folder_that_vanished_is_unavailable(tmp_path: Path) -> None:
    """A disk that is not mounted is not an empty storage."""
    storage = open_storage((tmp_path / "disk").as_uri())
    (tmp_path / "disk").rmdir()
    with pytest.raises(StorageUnavailable):
        storage.put("key", b"x")
    with pytest.raises(StorageUnavailable):
        storage.get("key")
    assert not (tmp_path / "disk").exists()


def test_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    """The operator learns that room is missing; nothing half-written stays."""
    storage = open_storage(tmp_path.as_uri())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageFull):
            storage.put("large", DATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["", "pictures", "file://host/x", "file:relative", "s3://", "what://bucket/x"])
def test_url_of_no_storage_is_refused(url: str) -> None:
    """A mistyped URL is refused at once, with what would be right."""
    with pytest.raises(StorageUrlInvalid, match="is no storage URL"):
        open_storage(url)
