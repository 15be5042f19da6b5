"""Notice that pictures cannot be stored, and when they can be again: what is drawn in between would be thrown away."""

import threading
from collections.abc import Callable
from typing import Final

from infra.logging import get_logger
from infra.storage import Storage, StorageUnavailable

#: A storage that is away is tried so often, seconds.
PROBE_PAUSE: Final = 2.0

STORAGE_AWAY: Final = "storage_away"
STORAGE_BACK: Final = "storage_back"

log = get_logger(__name__)


class StorageWatch:
    """Tell whether pictures can be stored; every method may be called from any thread and returns at once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._came_back: Callable[[], None]
        self._away = threading.Event()
        self._marking = threading.Lock()
        self._closing = threading.Event()

    def report_to(self, came_back: Callable[[], None]) -> None:
        """Say who hears that the storage is back; done once, before anything else."""
        self._came_back = came_back

    @property
    def away(self) -> bool:
        """Tell whether the last picture could not be stored, and no probe has succeeded since."""
        return self._away.is_set()

    def lost(self, problem: StorageUnavailable) -> None:
        """Hear that a picture could not be stored; begin to probe."""
        with self._marking:
            if self._away.is_set():
                return
            self._away.set()
        log.warning(STORAGE_AWAY, problem=str(problem), claiming="stopped")
        threading.Thread(target=self._probe, name="storage-probe", daemon=True).start()

    def close(self) -> None:
        """Probe no more."""
        self._closing.set()

    def _probe(self) -> None:
        while not self._closing.wait(PROBE_PAUSE):
            try:
                self._storage.probe()
            except Exception as problem:  # noqa: BLE001 - whatever a store raises, the next probe may succeed
                log.debug(STORAGE_AWAY, problem=str(problem))
            else:
                self._away.clear()
                log.info(STORAGE_BACK, claiming="resumed")
                self._came_back()
                return
