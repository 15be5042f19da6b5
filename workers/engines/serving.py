"""What every engine that draws by itself does alike: take commands, draw one item after another, hear a cancel between steps."""

import contextlib
import time
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from typing import Final

from infra.logging import get_logger
from jobs.errors import DrawingFailed, JobFailure
from workers.engines.interface import Cancel, Draw, Drawn, Failed, Item, Link, Quit, Stopped

ITEM_FAILED: Final = "item_failed"

log = get_logger(__name__)


class _Cancelled(Exception):
    """The item that is being drawn is wanted no more."""


class OneAfterAnother(ABC):
    """Serve items in the order they came; a subclass says how one is drawn."""

    def __init__(self) -> None:
        self._backlog: deque[Item] = deque()
        self._quitting = False

    @abstractmethod
    def draw(self, link: Link, item: Item) -> Generator[None]:
        """Draw an item and report everything but its end; raise `JobFailure` when that fails.

        Yield wherever it may be stopped: first once its model is loaded, then at least after each step. Stopping closes the generator.
        """

    @abstractmethod
    def recover(self) -> None:
        """Put the device in order after a failed item, or end the process; nothing refers to what the item used any more."""

    def run(self, link: Link) -> None:
        """Serve commands until `Quit`."""
        while not (self._quitting and not self._backlog):
            self._hear(link, None if not self._backlog else 0)
            if self._backlog:
                self._serve(link, self._backlog.popleft())

    def _serve(self, link: Link, item: Item) -> None:
        failure: JobFailure | None = None
        began: float | None = None
        try:
            with contextlib.closing(self.draw(link, item)) as drawing:
                for _ in drawing:
                    began = began or time.monotonic()
                    self._hear(link, 0, item)
        except _Cancelled:
            link.send(Stopped(item.job, item.epoch))
            return
        except JobFailure as problem:
            failure = problem
        except Exception as problem:  # noqa: BLE001 - whatever a model raises ends its own item alone
            failure = DrawingFailed(f"{type(problem).__name__}: {problem}")
            failure.add_note("".join(traceback.format_exception(problem)))
        if failure is None:
            link.send(Drawn(item.job, item.epoch, time.monotonic() - (began or time.monotonic())))
            return
        # Here, behind the `except`, no frame of the failed drawing is alive, so its memory can be given back.
        failure.__traceback__ = failure.__context__ = failure.__cause__ = None
        details = "\n".join(getattr(failure, "__notes__", ()))
        log.warning(ITEM_FAILED, job=str(item.job), code=failure.code, message=failure.message, details=details)
        # A device that is beyond recovery ends the process here: then the engine's death is reported, and not the job charged.
        self.recover()
        link.send(Failed(item.job, item.epoch, failure.code, failure.message))

    def _hear(self, link: Link, timeout: float | None, drawing: Item | None = None) -> None:
        """Take in what was commanded; raise when the item that is being drawn is to be stopped."""
        command = link.receive(timeout)
        while command is not None:
            if isinstance(command, Draw):
                self._backlog.extend(command.items)
            elif isinstance(command, Quit):
                self._quitting = True
            elif drawing is not None and _names(command, drawing):
                raise _Cancelled
            else:
                self._forget(link, command)
            command = link.receive(0)

    def _forget(self, link: Link, command: Cancel) -> None:
        for item in [item for item in self._backlog if _names(command, item)]:
            self._backlog.remove(item)
            link.send(Stopped(item.job, item.epoch))


def _names(command: Cancel, item: Item) -> bool:
    return (item.job, item.epoch) == (command.job, command.epoch)
