"""Files on this host's disk: whole and verified, fetched once, the least recently used leave first."""

import contextlib
import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.storage import RangeInvalid, open_storage
from workers.model_cache import CacheFull, ContentDamaged, ModelCache

DATA = bytes(range(256)) * 100
SHA = hashlib.sha256(DATA).hexdigest()


class Objects:
    """Hand out bytes in small chunks, and write down from where each was asked."""

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.starts: list[int] = []
        self.pause: threading.Event | None = None

    def stream(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        """Yield the bytes from an offset on."""
        del key
        self.starts.append(start)
        if start >= len(self.data):
            raise RangeInvalid("too far")
        if self.pause is not None:
            assert self.pause.wait(10)
        for offset in range(start, len(self.data), 1000):
            yield self.data[offset : offset + 1000]


def nothing() -> None:
    """Hear that a file advances."""


def make(folder: Path, limit: int = 10**6, headroom: int = 0) -> ModelCache:
    """Return a cache."""
    return ModelCache(folder / "cache", limit, headroom)


def present(folder: Path) -> set[str]:
    """Return what lies whole in a cache."""
    return {path.name for path in (folder / "cache/objects").iterdir()}


def stop_after(chunks: int) -> Callable[[], None]:
    """Return something to be told, that has had enough after so many chunks."""
    left = iter(range(chunks))

    def told() -> None:
        if next(left, None) is None:
            raise InterruptedError

    return told


def test_cache_fetches_once(tmp_path: Path) -> None:
    """A second cache on the same folder finds the file there."""
    source = Objects()
    first = make(tmp_path).fetch(source, "key", SHA, len(DATA), nothing)
    second = make(tmp_path).fetch(source, "key", SHA, len(DATA), nothing)
    assert first.path == second.path
    assert first.path.read_bytes() == DATA
    assert source.starts == [0]


def test_cache_continues_what_was_cut_off(tmp_path: Path) -> None:
    """At whatever chunk an attempt ends, the next one asks for the rest alone."""
    source, cache = Objects(), make(tmp_path)
    for chunks in (3, 10):
        with pytest.raises(InterruptedError):
            cache.fetch(source, "key", SHA, len(DATA), stop_after(chunks))
    hold = cache.fetch(source, "key", SHA, len(DATA), nothing)
    assert hold.path.read_bytes() == DATA
    assert source.starts[0] == 0
    assert 0 < source.starts[1] <= source.starts[2] < len(DATA)


def test_cache_begins_anew_when_its_own_part_was_damaged(tmp_path: Path) -> None:
    """What lies on the disk is not trusted because it lies there."""
    source, cache = Objects(), make(tmp_path)
    with pytest.raises(InterruptedError):
        cache.fetch(source, "key", SHA, len(DATA), stop_after(5))
    part = tmp_path / "cache/parts" / SHA
    part.write_bytes(b"x" * part.stat().st_size)
    assert cache.fetch(source, "key", SHA, len(DATA), nothing).path.read_bytes() == DATA
    assert source.starts[-1] == 0


@pytest.mark.parametrize("stored", [DATA[:-1], DATA + b"more", b"x" + DATA[1:], b""])
def test_cache_refuses_what_was_not_recorded(tmp_path: Path, stored: bytes) -> None:
    """Truncated, too long, other bytes, nothing: it never becomes an object, and no part of it stays."""
    with pytest.raises(ContentDamaged):
        make(tmp_path).fetch(Objects(stored), "key", SHA, len(DATA), nothing)
    assert present(tmp_path) == set()
    assert list((tmp_path / "cache/parts").iterdir()) == []


def test_cache_lets_what_was_used_longest_ago_go(tmp_path: Path) -> None:
    """Using a file makes it young; one that is held does not go at all."""
    cache = make(tmp_path, 2500)
    contents = [bytes([number]) * 1000 for number in range(4)]
    names = [hashlib.sha256(content).hexdigest() for content in contents]

    def fetch(number: int) -> None:
        cache.fetch(Objects(contents[number]), "key", names[number], 1000, nothing).close()
        time.sleep(0.01)

    fetch(0)
    fetch(1)
    fetch(0)
    fetch(2)
    assert present(tmp_path) == {names[0], names[2]}
    held = cache.fetch(Objects(contents[0]), "key", names[0], 1000, nothing)
    fetch(2)
    fetch(3)
    assert present(tmp_path) == {names[0], names[3]}
    other = cache.fetch(Objects(contents[3]), "key", names[3], 1000, nothing)
    with pytest.raises(CacheFull):
        fetch(1)
    other.close()
    fetch(1)
    assert present(tmp_path) == {names[0], names[1]}
    held.close()


def test_cache_keeps_the_disk_from_filling_up(tmp_path: Path) -> None:
    """With too little left on the disk nothing is begun, however large the cache may be."""
    with pytest.raises(CacheFull):
        make(tmp_path, 10**6, 2**62).fetch(Objects(), "key", SHA, len(DATA), nothing)


def test_cache_is_filled_once_by_many(tmp_path: Path) -> None:
    """While one fetches a content the others wait for it, and hear that it is still on its way."""
    source = Objects()
    source.pause = threading.Event()
    waited = threading.Semaphore(0)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(make(tmp_path).fetch, source, "key", SHA, len(DATA), nothing)
        while not source.starts:
            time.sleep(0.001)
        others = [pool.submit(make(tmp_path).fetch, source, "key", SHA, len(DATA), waited.release) for _ in range(2)]
        for _ in others:
            assert waited.acquire(timeout=10)
        source.pause.set()
        holds = [each.result(10) for each in (first, *others)]
    assert len(source.starts) == 1
    assert {hold.path.read_bytes() for hold in holds} == {DATA}


#: Fetches a content as an agent does, once it is told to, and says how often it had to ask the storage.
FETCH = """
import sys
from pathlib import Path
from infra.storage import open_storage
from workers.model_cache import ModelCache
folder, url, sha256, size = sys.argv[1:]
storage, asked, waited = open_storage(url), [], []
class Slow:
    def stream(self, key, *, start=0):
        asked.append(start)
        print("asked", flush=True)
        sys.stdin.readline()
        yield from storage.stream(key, start=start)
def advanced():
    if not waited and not asked:
        waited.append(1)
        print("waits", flush=True)
print("ready", flush=True)
sys.stdin.readline()
with_hold = ModelCache(Path(folder), 10**6, 0).fetch(Slow(), "models/x", sha256, int(size), advanced)
print(len(asked), with_hold.path.read_bytes() == storage.get("models/x"), flush=True)
sys.stdin.readline()
"""


def test_cache_is_filled_once_by_two_processes(tmp_path: Path) -> None:
    """Two agents of a host that need the same content at the same moment ask the storage once, and both have it whole."""
    url = (tmp_path / "storage").as_uri()
    open_storage(url).put("models/x", DATA)
    argv = [sys.executable, "-c", FETCH, str(tmp_path / "cache"), url, SHA, str(len(DATA))]
    env = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    with contextlib.ExitStack() as stack:
        agents = [
            stack.enter_context(
                subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
            )
            for _ in range(2)
        ]

        def hear(agent: "subprocess.Popen[str]") -> str:
            assert agent.stdout is not None
            return agent.stdout.readline().strip()

        def tell(agent: "subprocess.Popen[str]") -> None:
            assert agent.stdin is not None
            agent.stdin.write("\n")
            agent.stdin.flush()

        assert [hear(agent) for agent in agents] == ["ready", "ready"]
        for agent in agents:
            tell(agent)
        said = [hear(agent) for agent in agents]
        assert sorted(said) == ["asked", "waits"]
        tell(agents[said.index("asked")])
        ended = {said[place]: hear(agent) for place, agent in enumerate(agents)}
        assert ended == {"asked": "1 True", "waits": "0 True"}
        for agent in agents:
            tell(agent)
    assert [agent.returncode for agent in agents] == [0, 0]
    assert present(tmp_path) == {SHA}


def test_cache_takes_over_from_who_gave_up(tmp_path: Path) -> None:
    """Who waits continues where the other one stopped."""
    source = Objects()
    source.pause = threading.Event()
    waited = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(make(tmp_path).fetch, source, "key", SHA, len(DATA), stop_after(3))
        while not source.starts:
            time.sleep(0.001)
        other = pool.submit(make(tmp_path).fetch, source, "key", SHA, len(DATA), waited.release)
        assert waited.acquire(timeout=10)
        source.pause.set()
        with pytest.raises(InterruptedError):
            first.result(10)
        assert other.result(10).path.read_bytes() == DATA
    assert source.starts[1] > 0


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "", "a\0b"])
def test_cache_places_no_file_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    """Names come from a table that others fill."""
    with pytest.raises(ContentDamaged):
        make(tmp_path).arrange({name: SHA})


def test_cache_gives_files_their_names(tmp_path: Path) -> None:
    """A model's files lie as its folder has them, for one and for many workers."""
    cache = make(tmp_path)
    cache.fetch(Objects(), "key", SHA, len(DATA), nothing).close()
    folder = cache.arrange({"unet/model.safetensors": SHA, "vae/other": SHA})
    assert (folder / "unet/model.safetensors").read_bytes() == (folder / "vae/other").read_bytes() == DATA
    assert make(tmp_path).arrange({"vae/other": SHA, "unet/model.safetensors": SHA}) == folder
