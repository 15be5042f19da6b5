"""Read parts of files with a limit on each read and a count of all of them."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from models_registry.refusals import ConfigInvalid, FileUnreadable


@dataclass
class Reads:
    """Count what was read, so that tests can gate on it."""

    files: int = 0
    reads: int = 0
    bytes: int = 0


class BoundedFile:
    """Hand out parts of one open regular file."""

    def __init__(self, path: Path, descriptor: int, size: int, reads: Reads) -> None:
        self.path = path
        self.size = size
        self._descriptor = descriptor
        self._reads = reads

    def read_at(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; fewer where the file ends before."""
        parts: list[bytes] = []
        while length > 0:
            try:
                part = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise FileUnreadable(self.path, f"cannot be read: {error.strerror}") from None
            self._reads.reads += 1
            self._reads.bytes += len(part)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)


@contextmanager
def open_bounded(path: Path, reads: Reads) -> Iterator[BoundedFile]:
    """Open a regular file for counted reads, raising `FileUnreadable` for anything else."""
    try:
        # Non-blocking, because opening a named pipe would otherwise wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise FileUnreadable(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise FileUnreadable(path, "is not a regular file")
        reads.files += 1
        yield BoundedFile(path, descriptor, facts.st_size, reads)
    finally:
        os.close(descriptor)


def read_small(path: Path, limit: int, reads: Reads) -> bytes:
    """Return a whole file of at most `limit` bytes, raising `ConfigInvalid` when it is larger."""
    with open_bounded(path, reads) as file:
        if file.size > limit:
            raise ConfigInvalid(path, f"has {file.size} bytes; at most {limit} are allowed")
        return file.read_at(0, limit)
