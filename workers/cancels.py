"""Hear at once that a job's owner wants it no more; what is said while the connection is down is heard with the next heartbeat."""

import contextlib
import threading
from collections.abc import Callable
from typing import Final
from uuid import UUID

import psycopg
from psycopg import sql

from infra.database import Connection
from infra.logging import get_logger
from jobs.control import CANCEL_CHANNEL

#: How often the listener looks whether its worker is leaving, seconds.
LOOK_SECONDS: Final = 0.5
RECONNECT_SECONDS: Final = 1.0

CANCELS_NOT_HEARD: Final = "cancels_not_heard"

log = get_logger(__name__)


class CancelListener:
    """Listen on the channel of cancels from one thread."""

    def __init__(self, connect: Callable[[], Connection], cancel: Callable[[UUID], None]) -> None:
        self._connect = connect
        #: Called with every job whose cancel was asked for, whoever runs it.
        self._cancel = cancel
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Listen no more; the thread ends by itself soon after."""
        self._leaving.set()

    def _run(self) -> None:
        while not self._leaving.is_set():
            try:
                with self._connect() as line:
                    line.execute(sql.SQL("listen {}").format(sql.Identifier(CANCEL_CHANNEL)))
                    while not self._leaving.is_set():
                        for heard in line.notifies(timeout=LOOK_SECONDS):
                            with contextlib.suppress(ValueError):
                                self._cancel(UUID(heard.payload))
            except psycopg.Error as problem:
                log.warning(CANCELS_NOT_HEARD, problem=str(problem))
                self._leaving.wait(RECONNECT_SECONDS)
