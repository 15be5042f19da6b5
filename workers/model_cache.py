"""Keep the files of models on this host's disk, under their SHA-256: fetched once for all its workers, the least recently used leave first.

The layout: `objects/<sha256>` are whole and verified, `parts/<sha256>` on their way, `entries/<digest>/…` links that give objects the names
an entry's files have. Whoever uses an object holds a shared lock on it, whoever fetches it an exclusive one: both end with the process.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from infra.files import sync_folder
from infra.storage import RangeInvalid

CHUNK: Final = 4 * 1024 * 1024
#: While another process fetches the same content, it is looked at so often, seconds.
PAUSE: Final = 0.1


class CacheProblem(Exception):
    """A file cannot be had through the cache."""


class ContentDamaged(CacheProblem):
    """What is stored is not what was recorded."""


class CacheFull(CacheProblem):
    """The disk has no room for it, whatever leaves."""


class Source(Protocol):
    """Where bytes come from; a `Storage` is one."""

    def stream(self, key: str, *, start: int = 0) -> Iterator[bytes]:
        """Yield an object's bytes from an offset on."""
        ...


class Hold:
    """A file that stays in the cache until it is let go."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        """Let it go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ModelCache:
    """One folder that all workers of a host share."""

    def __init__(self, folder: Path, limit: int, headroom: int) -> None:
        self._limit = limit
        #: Bytes of the disk that stay free.
        self._headroom = headroom
        self._objects, self._parts, self._entries = (folder / name for name in ("objects", "parts", "entries"))
        self._lock = folder / "lock"

    def fetch(self, source: Source, key: str, sha256: str, size: int, advanced: Callable[[], None]) -> Hold:
        """Return a file, fetching it unless it is here; what an earlier attempt left is continued.

        `advanced` is called whenever more of it is here, and now and then besides; what it raises ends the attempt. Raises a
        `CacheProblem`, and `StorageError` as the source does.
        """
        for folder in (self._objects, self._parts, self._entries):
            folder.mkdir(parents=True, exist_ok=True)
        while True:
            hold = self._open(sha256)
            if hold is not None:
                return hold
            descriptor = self._take_turn(sha256, advanced)
            try:
                if not self._is(descriptor, self._parts / sha256):
                    # Whoever was before us has finished it, or given up.
                    os.close(descriptor)
                    continue
                self._complete(source, key, sha256, size, descriptor, advanced)
            except BaseException:
                os.close(descriptor)
                raise
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return Hold(self._objects / sha256, descriptor)

    def arrange(self, files: Mapping[str, str]) -> Path:
        """Return a folder in which the files of these hashes have these names."""
        for name in files:
            parts = PurePosixPath(name).parts
            if not parts or ".." in parts or PurePosixPath(name).is_absolute() or "\0" in name:
                raise ContentDamaged(f"a file is called {name[:80]!r}, which is no name")
        digest = hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()
        folder = self._entries / digest
        if not folder.is_dir():
            draft = self._entries / f".{digest}.{secrets.token_hex(6)}"
            for name, sha256 in files.items():
                link = draft / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self._objects.absolute() / sha256)
            try:
                draft.rename(folder)
            except OSError:
                # Another worker was quicker.
                shutil.rmtree(draft)
        return folder

    def _open(self, sha256: str) -> Hold | None:
        path = self._objects / sha256
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if not self._is(descriptor, path):
            # It left while we waited for its lock.
            os.close(descriptor)
            return None
        os.utime(path)
        return Hold(path, descriptor)

    def _take_turn(self, sha256: str, advanced: Callable[[], None]) -> int:
        """Return the part's descriptor with its lock, which one of all processes has; or without, once it is a part no more."""
        part = self._parts / sha256
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while self._is(descriptor, part):
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                advanced()
                time.sleep(PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _complete(
        self, source: Source, key: str, sha256: str, size: int, descriptor: int, advanced: Callable[[], None]
    ) -> None:
        """Bring a part to its end, and give it its place."""
        part = self._parts / sha256
        have = os.fstat(descriptor).st_size
        # What an earlier attempt left may itself be damaged: then once more from the start.
        for start in dict.fromkeys((have if have <= size else 0, 0)):
            os.ftruncate(descriptor, start)
            self._make_room(size - start)
            if self._download(source, key, size, descriptor, start, advanced) == sha256:
                os.fsync(descriptor)
                part.rename(self._objects / sha256)
                sync_folder(self._objects)
                return
        part.unlink()
        raise ContentDamaged(f"the stored bytes of {sha256} are not those that were recorded")

    def _download(
        self, source: Source, key: str, size: int, descriptor: int, start: int, advanced: Callable[[], None]
    ) -> str:
        """Append to a part what it lacks, and return the SHA-256 of all of it."""
        digest = hashlib.sha256()
        for offset in range(0, start, CHUNK):
            digest.update(os.pread(descriptor, min(CHUNK, start - offset), offset))
            advanced()
        at = start
        with contextlib.suppress(RangeInvalid):
            for chunk in source.stream(key, start=start) if start < size else ():
                if at + len(chunk) > size:
                    return ""
                os.pwrite(descriptor, chunk, at)
                digest.update(chunk)
                at += len(chunk)
                advanced()
        return digest.hexdigest() if at == size else ""

    def _make_room(self, more: int) -> None:
        """Let the files used longest ago go until so many bytes fit, raising `CacheFull` when they do not."""
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = sorted(
                ((path.stat(), path) for path in self._objects.iterdir()), key=lambda each: each[0].st_mtime_ns
            )
            held = sum(facts.st_size for facts, _ in found)
            held += sum(path.stat().st_size for path in self._parts.iterdir())
            free = shutil.disk_usage(self._objects).free
            for facts, path in found:
                if held + more <= self._limit and free - more >= self._headroom:
                    break
                if _evict(path):
                    held -= facts.st_size
                    free += facts.st_size
        if held + more > self._limit:
            raise CacheFull(f"{more} bytes do not fit into the cache of {self._limit} (IMAGEFLEET_CACHE_BYTES)")
        if free - more < self._headroom:
            raise CacheFull(f"{more} bytes do not fit on the disk, of which {self._headroom} stay free")

    @staticmethod
    def _is(descriptor: int, path: Path) -> bool:
        """Tell whether a path still names the open file."""
        try:
            return os.path.samestat(os.fstat(descriptor), path.stat())
        except FileNotFoundError:
            return False


def _evict(path: Path) -> bool:
    """Remove a file that nobody holds; return whether it is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink()
        return True
    finally:
        os.close(descriptor)
