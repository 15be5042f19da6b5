"""A connection between an engine and a test that plays its agent, in one thread."""

from collections import deque
from collections.abc import Callable
from typing import Any

from workers.engines.interface import Command, Report


class MemoryLink:
    """A link whose agent is the test: it answers each report at once."""

    def __init__(self, commands: list[Command], answer: Callable[[Report], Command | None] = lambda _: None) -> None:
        self._commands = deque(commands)
        self._answer = answer
        self.reports: list[Report] = []

    def receive(self, timeout: float | None) -> Command | None:
        """Return the next command."""
        assert self._commands or timeout is not None, "the engine would wait for ever"
        return self._commands.popleft() if self._commands else None

    def send(self, report: Report) -> None:
        """Keep a report."""
        self.reports.append(report)
        said = self._answer(report)
        if said is not None:
            self._commands.append(said)

    def of(self, kind: type[Any]) -> list[Any]:
        """Return the reports of a kind."""
        return [report for report in self.reports if isinstance(report, kind)]
