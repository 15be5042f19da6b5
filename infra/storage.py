"""Keep bytes under keys, on a local disk, in memory or in an object store.

An object appears whole or not at all, and once it is there it is never changed: keys are meant to name their content.
"Put" has survived a power cut when it returns, as far as the store keeps its own promises.

StorageError
├── StorageUrlInvalid     the URL names no store
├── KeyInvalid            a key that could be a path elsewhere
├── ObjectMissing         nothing is stored under the key
├── RangeInvalid          the range begins behind the object's end
└── StorageUnavailable    the store does not answer, or refuses
    └── StorageFull       no room is left
"""

import asyncio
import contextlib
import errno
import io
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from infra.files import sync_folder

if TYPE_CHECKING:
    # These names exist for type checkers alone.
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

#: Nothing that any file system or store reads as more than a name; no hidden names.
_KEY = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
#: What a local store writes into until the object is whole; obstore lists no names that end so.
_DRAFT = re.compile(r".+#[0-9]+")
LONGEST_KEY = 512
CHUNK = 256 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_RETRY: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
_CLIENT: "ClientConfig" = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=60)}


class StorageError(Exception):
    """Something about the storage a person should be told."""


class StorageUrlInvalid(StorageError):
    """The URL names no store."""


class KeyInvalid(StorageError):
    """A key that could be a path elsewhere."""


class ObjectMissing(StorageError):
    """Nothing is stored under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"nothing is stored under {key}")
        self.key = key


class RangeInvalid(StorageError):
    """The range begins behind the object's end."""


class StorageUnavailable(StorageError):
    """The store does not answer, or refuses."""


class StorageFull(StorageUnavailable):
    """No room is left."""


@dataclass(frozen=True)
class ObjectInfo:
    """Describe one stored object."""

    key: str
    #: Bytes.
    size: int
    modified: datetime


class Storage:
    """Read and write objects; each method has an `_async` twin, and all may be used from any thread."""

    def __init__(self, store: "ObjectStore", *, folder: Path | None = None) -> None:
        self._store = store
        #: The root of a local store, which is written here because obstore does not flush to disk.
        self._folder = folder

    def put(self, key: str, data: bytes) -> bool:
        """Store bytes unless the key exists already; returns whether they were stored now."""
        checked_key(key)
        if self._folder is not None:
            with self._errors(key):
                return _write(self._folder, key, io.BytesIO(data))
        with self._errors(key):
            try:
                obstore.put(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    async def put_async(self, key: str, data: bytes) -> bool:
        """Do as `put` does, from an event loop."""
        if self._folder is not None:
            return await asyncio.to_thread(self.put, key, data)
        checked_key(key)
        with self._errors(key):
            try:
                await obstore.put_async(self._store, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def put_file(self, key: str, path: Path) -> bool:
        """Store a file of any size unless the key exists already; returns whether it was stored now, and keeps the file as it is."""
        checked_key(key)
        if self._folder is not None:
            with self._errors(key), path.open("rb") as source:
                return _write(self._folder, key, source)
        with self._errors(key):
            # Parts of a large object cannot be sent on the condition that there is none; the same key is the same content.
            with contextlib.suppress(ObjectMissing):
                self.head(key)
                return False
            obstore.put(self._store, key, path)
            return True

    def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return an object's bytes, or those from `start` up to but without `end` (clipped to the object)."""
        with self._errors(checked_key(key), start):
            found = obstore.get(self._store, key, options=_span(start, end))
            return bytes(found.bytes())

    async def get_async(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Do as `get` does, from an event loop."""
        with self._errors(checked_key(key), start):
            found = await obstore.get_async(self._store, key, options=_span(start, end))
            return bytes(await found.bytes_async())

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes in chunks of about 256 KiB; a missing object is reported by the first chunk."""
        with self._errors(checked_key(key), start):
            for chunk in obstore.get(self._store, key, options=_span(start, end)).stream(CHUNK):
                yield bytes(chunk)

    async def stream_async(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Do as `stream` does, from an event loop."""
        with self._errors(checked_key(key), start):
            found = await obstore.get_async(self._store, key, options=_span(start, end))
            async for chunk in found.stream(CHUNK):
                yield bytes(chunk)

    def head(self, key: str) -> ObjectInfo:
        """Describe an object without reading it."""
        with self._errors(checked_key(key)):
            return _info(obstore.head(self._store, key))

    async def head_async(self, key: str) -> ObjectInfo:
        """Do as `head` does, from an event loop."""
        with self._errors(checked_key(key)):
            return _info(await obstore.head_async(self._store, key))

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is fine."""
        with contextlib.suppress(ObjectMissing), self._errors(checked_key(key)):
            obstore.delete(self._store, key)

    async def delete_async(self, key: str) -> None:
        """Do as `delete` does, from an event loop."""
        with contextlib.suppress(ObjectMissing), self._errors(checked_key(key)):
            await obstore.delete_async(self._store, key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below a prefix of whole segments (`a/b` means `a/b/…`), in no order."""
        with self._errors(prefix):
            for page in obstore.list(self._store, checked_key(prefix) if prefix else None, chunk_size=1000):
                yield from map(_info, page)

    async def list_async(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Do as `list` does, from an event loop."""
        with self._errors(prefix):
            async for page in obstore.list(self._store, checked_key(prefix) if prefix else None, chunk_size=1000):
                for found in page:
                    yield _info(found)

    def forget_drafts(self, before: datetime) -> Iterator[int]:
        """Remove what killed writers left unfinished before a time, one folder at each step; yields how many drafts went."""
        if self._folder is not None:
            for folder, _, names in os.walk(self._folder):
                drafts = [Path(folder) / name for name in names if _DRAFT.fullmatch(name)]
                # Its writer, should it live after all, finds it gone and writes anew.
                yield sum(_remove_if_older(draft, before) for draft in drafts)

    def probe(self) -> None:
        """Write, read and delete one small object; raises StorageUnavailable when the storage is of no use."""
        key, data = f"probe/{secrets.token_hex(8)}", secrets.token_bytes(16)
        self.put(key, data)
        if self.get(key) != data:
            raise StorageUnavailable("the storage does not return what was written")
        self.delete(key)

    @contextlib.contextmanager
    def _errors(self, key: str, start: int = 0) -> Iterator[None]:
        """Turn the library's errors into ours."""
        try:
            yield
        except FileNotFoundError as problem:
            # S3 reports a missing bucket, and a disk that is not mounted reports every file, in the same way.
            if "NoSuchBucket" in str(problem) or (self._folder is not None and not self._folder.is_dir()):
                raise StorageUnavailable(_first_line(problem)) from problem
            raise ObjectMissing(key) from None
        except OSError as problem:
            kind = StorageFull if problem.errno in _FULL else StorageUnavailable
            raise kind(f"{key} cannot be stored: {problem.strerror}") from problem
        except BaseError as problem:
            if start and self.head(key).size <= start:
                raise RangeInvalid(f"{key} has no byte {start}") from None
            raise StorageUnavailable(_first_line(problem)) from problem


def open_storage(url: str, *, endpoint: str | None = None) -> Storage:
    """Open `file:///folder`, `memory:///`, `s3://bucket/prefix` (or another object store obstore knows).

    `endpoint` is the address of an S3-compatible server; credentials and region come from the usual AWS variables.
    Raises StorageUrlInvalid; a store that is away is only noticed by the first use.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return Storage(MemoryStore())
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path.startswith("/"):
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return Storage(LocalStore(folder, automatic_cleanup=True), folder=folder)
        except OSError as problem:
            raise StorageUnavailable(f"{folder} cannot be used: {problem.strerror}") from problem
    if parts.scheme in {"", "file"} or not parts.netloc:
        raise StorageUrlInvalid(f"{url!r} is no storage URL: use file:///folder, s3://bucket/prefix or memory:///")
    options: dict[str, Any] = {"retry_config": _RETRY, "client_options": _CLIENT}
    if endpoint is not None and parts.scheme == "s3":
        options["config"] = {"endpoint": endpoint}
        if endpoint.startswith("http://"):
            options["client_options"] = _CLIENT | {"allow_http": True}
    try:
        return Storage(from_url(url, **options))
    except (BaseError, ValueError) as problem:
        raise StorageUrlInvalid(f"{url!r} is no storage URL: {_first_line(problem)}") from problem


def checked_key(key: str) -> str:
    """Return the key, or raise KeyInvalid unless it is segments of letters, digits and `._=-` joined by `/`."""
    if len(key) > LONGEST_KEY or not _KEY.fullmatch(key):
        raise KeyInvalid(f"{key[:80]!r} is no storage key")
    return key


def _span(start: int, end: int | None) -> Any:
    if start < 0 or (end is not None and end <= start):
        raise RangeInvalid(f"no bytes lie from {start} up to {end}")
    if end is not None:
        return {"range": (start, end)}
    return {"range": {"offset": start}} if start else None


def _info(found: Any) -> ObjectInfo:
    return ObjectInfo(key=found["path"], size=found["size"], modified=found["last_modified"])


def _first_line(problem: BaseException) -> str:
    # What follows is the library's own debug output, which repeats headers.
    return str(problem).partition("\n")[0]


def _write(root: Path, key: str, source: BinaryIO) -> bool:
    """Write a file that appears whole, is on the disk on return, and never replaces another."""
    if not root.is_dir():
        # Made anew it would hide that a disk is not mounted.
        raise NotADirectoryError(errno.ENOTDIR, f"{root} is gone")
    target = root / key
    if target.exists():
        return False
    for _ in range(5):
        # Names that end so are not listed: a crash leaves nothing that looks like an object.
        draft = target.with_name(f"{target.name}#{secrets.randbits(62)}")
        try:
            folder = _make_folders(target.parent)
            with draft.open("xb") as file:
                source.seek(0)
                shutil.copyfileobj(source, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
            # Unlike a rename a link fails where the name is taken.
            os.link(draft, target)
        except FileNotFoundError:
            # A delete beside us removed the folder because it was empty.
            continue
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(folder)
        return True
    raise OSError(errno.EIO, "its folder vanishes again and again")


def _remove_if_older(path: Path, before: datetime) -> bool:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < before.timestamp():
            path.unlink()
            return True
    return False


def _make_folders(folder: Path) -> Path:
    """Create a folder and those above it, each on the disk before the next."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
    return folder
