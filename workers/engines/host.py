"""The engine process: `python -m workers.engines.host FD PARENT`, started by the agent and by nothing else.

It sees one device, speaks to its agent over an inherited socket, and never outlives it.
"""

import gc
import importlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import MappingProxyType
from typing import Any, Final

from infra.logging import configure_logging
from infra.processes import die_with_parent, set_title
from workers.engines.interface import Command, Engine, EngineKind, Ready, Report, Setup

#: Modules with a function `build(setup) -> Engine`. Imported by name: torch belongs only to the process that draws with it.
ENGINES: Final[Mapping[EngineKind, str]] = MappingProxyType(
    {"local": "workers.engines.local", "fake": "workers.engines.fake"}
)
#: Exit status when the agent has gone.
ORPHANED: Final = 111


class PipeLink:
    """The engine's end of the connection; a thread of its own listens, so that a vanished agent ends even a busy engine."""

    def __init__(self, connection: "Connection[Report, Any]") -> None:
        self._connection = connection
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._sending = threading.Lock()

    def listen(self) -> None:
        """Begin to receive commands."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def receive(self, timeout: float | None) -> Command | None:
        """Return the next command, or None when none came within `timeout` seconds."""
        try:
            return self._commands.get(timeout=timeout) if timeout != 0 else self._commands.get_nowait()
        except queue.Empty:
            return None

    def send(self, report: Report) -> None:
        """Hand a report to the agent."""
        try:
            with self._sending:
                self._connection.send(report)
        except OSError:
            os._exit(ORPHANED)

    def _listen(self) -> None:
        try:
            while True:
                self._commands.put(self._connection.recv())
        except (EOFError, OSError):
            # Nobody is left to draw for; the main thread may be deep inside a kernel call, so there is no polite way.
            os._exit(ORPHANED)


def main(descriptor: int, parent: int) -> None:
    """Serve the agent until it says `Quit` or is gone."""
    die_with_parent()
    # The agent alone decides the end: a terminal's Ctrl-C or a service manager's SIGTERM to the whole group must not
    # tear a job that the agent is about to finish or hand back.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.getppid() != parent:
        raise SystemExit(ORPHANED)
    connection: Connection[Report, Any] = Connection(descriptor)
    setup: Setup = connection.recv()
    set_title(f"engine {setup.label}")
    configure_logging(level=setup.log_level, form=setup.log_format, process=f"engine {setup.label}")
    link = PipeLink(connection)
    link.listen()
    engine: Engine = importlib.import_module(ENGINES[setup.engine]).build(setup)
    # What is loaded by now stays: later collections need not look at it again.
    gc.freeze()
    link.send(Ready())
    engine.run(link)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
