"""Keep what this worker owns, and say that it lives, on a database connection of its own."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

import psycopg

from infra.database import Connection
from infra.logging import get_logger
from jobs import roster
from jobs.leases import renew
from workers.foreman import Foreman

#: Longest pause between tries to reach the database again, seconds.
LONGEST_PAUSE: Final = 2.0

HEARTBEAT_FAILED: Final = "heartbeat_failed"

log = get_logger(__name__)


class Heartbeat:
    """Renew leases and beat for the worker's row, every few seconds from one thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        foreman: Foreman,
        name: str,
        run: UUID,
        *,
        every: float,
        lease_seconds: float,
        dethroned: Callable[[], None],
    ) -> None:
        self._connect = connect
        self._foreman = foreman
        self._name = name
        self._run_id = run
        self._every = every
        self._lease_seconds = lease_seconds
        #: Called once when another process has taken this worker's name.
        self._dethroned = dethroned
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Beat no more."""
        self._leaving.set()
        self._thread.join(self._every + LONGEST_PAUSE)

    def _run(self) -> None:
        line: Connection | None = None
        while not self._leaving.is_set():
            began = time.monotonic()
            pause = self._every
            try:
                line = line or self._connect()
                if not self._beat(line):
                    self._dethroned()
                    return
            except psycopg.Error as problem:
                log.warning(HEARTBEAT_FAILED, problem=str(problem))
                _close(line)
                line = None
                pause = min(self._every, LONGEST_PAUSE)
            self._leaving.wait(max(0.0, pause - (time.monotonic() - began)))
        _close(line)

    def _beat(self, line: Connection) -> bool:
        beats = self._foreman.beats()
        # Measured before the statement is sent: by the database's clock the lease lasts at least as long.
        sent_at = time.monotonic()
        owned = renew(line, beats, self._lease_seconds)
        self._foreman.renewed(sent_at, beats, owned)
        standing = self._foreman.standing()
        orders = roster.beat(
            line,
            self._name,
            self._run_id,
            state=standing.state,
            warm=standing.warm,
            loads=standing.loads,
            current=standing.current,
            ledger=standing.ledger,
        )
        if orders is None:
            return False
        self._foreman.rest(resting=orders.draining)
        return True


def _close(line: "Connection | None") -> None:
    if line is not None:
        with contextlib.suppress(psycopg.Error):
            line.close()
