"""Let one instance at a time own a home folder."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from infra.embedded.errors import HomeInUse, HomeUnusable

#: An instance that was killed a moment ago may still be going: ask again for so long, seconds.
PATIENCE = 0.5


class HomeLock:
    """Hold the lock of a home folder until released, or until this process dies in whatever way."""

    def __init__(self, home: Path) -> None:
        self.path = home / "lock"
        try:
            self._descriptor: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise HomeUnusable(f"{self.path} cannot be opened: {problem.strerror}") from problem
        try:
            self._acquire(home)
        except BaseException:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode("ascii"), 0)

    def _acquire(self, home: Path) -> None:
        assert self._descriptor is not None  # noqa: S101 - set by the constructor
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                # The kernel frees it when the process dies: no stale lock can exist.
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise HomeInUse(home, self._holder()) from None
                time.sleep(0.05)
            else:
                return

    def _holder(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int(self.path.read_text(encoding="ascii"))
        return None

    def release(self) -> None:
        """Give the folder back; a second call does nothing."""
        if self._descriptor is not None:
            # The file stays: removing it would let two instances lock two different files of one name.
            os.close(self._descriptor)
            self._descriptor = None
