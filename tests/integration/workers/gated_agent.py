"""An agent whose storage waits behind a gate: run as a script with a worker's environment.

Each object is written at once; the call returns only when the file `gate` exists beside the storage folder.
"""

import sys
import time
from collections.abc import Iterator

from infra.embedded.services import ServiceUrls
from infra.logging import configure_logging
from infra.settings import Settings
from infra.storage import ObjectInfo, Storage, open_storage
from workers.celery_worker import run_worker


class GatedStorage(Storage):
    """A storage that answers late."""

    def __init__(self, inner: Storage, settings: Settings) -> None:
        self._inner = inner
        self._gate = settings.home / "gate"

    def put(self, key: str, data: bytes) -> bool:
        """Write, then wait for the gate."""
        stored = self._inner.put(key, data)
        while not self._gate.exists():
            time.sleep(0.01)
        return stored

    def stream(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Read at once."""
        return self._inner.stream(key, start=start, end=end)

    def delete(self, key: str) -> None:
        """Delete at once."""
        self._inner.delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """List at once."""
        return self._inner.list(prefix)


def main() -> int:
    """Run the worker."""
    settings = Settings()
    configure_logging(process="worker")
    assert settings.database_url
    assert settings.redis_url
    storage = GatedStorage(open_storage(settings.storage), settings)
    return run_worker(settings, ServiceUrls(settings.database_url, settings.redis_url), storage)


if __name__ == "__main__":
    sys.exit(main())
