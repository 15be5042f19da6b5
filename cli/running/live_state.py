"""What `up` shows while it runs: a table on a terminal, a line per change elsewhere."""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra.processes import ChildState

REFRESH_SECONDS: Final = 1.0
_COLOURS: Final = {"running": "green", "waiting": "yellow", "stopped": "dim", "ended": "red"}

#: Jobs by state, for the line below the table; empty while the database does not answer, None for no such line.
Counts = Callable[[], dict[str, int]] | None


def show_until(
    stop: threading.Event, states: Callable[[], Sequence[ChildState]], counts: Counts, console: Console
) -> None:
    """Show how the parts do until `stop` is set."""
    if not console.is_terminal:
        _tell(stop, states, console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while not stop.is_set():
            below = [] if counts is None else [_line(counts())]
            live.update(Group(_table(states()), *below))
            stop.wait(REFRESH_SECONDS)


def _table(states: Sequence[ChildState]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for title in ("part", "state", "pid", "restarts", "for"):
        table.add_column(title)
    for state in states:
        status = Text(state.status, style=_COLOURS[state.status])
        table.add_row(state.name, status, str(state.pid or ""), str(state.restarts or ""), _age(state.since))
    return table


def _line(counts: dict[str, int]) -> Text:
    if not counts:
        return Text("  the database does not answer", style="yellow")
    return Text(
        "  " + " · ".join(f"{count} {state}" for state, count in counts.items()) + "   (Ctrl-C stops everything)"
    )


def _age(since: datetime) -> str:
    seconds = int((datetime.now(UTC) - since).total_seconds())
    if seconds < 60:  # noqa: PLR2004 - seconds of a minute
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"  # noqa: PLR2004 - minutes of two hours


def _tell(stop: threading.Event, states: Callable[[], Sequence[ChildState]], console: Console) -> None:
    told: dict[str, tuple[str, int | None]] = {state.name: (state.status, state.pid) for state in states()}
    while not stop.wait(REFRESH_SECONDS):
        for state in states():
            now = (state.status, state.pid)
            if told.get(state.name) != now:
                ending = f" (exit status {state.exit_code})" if state.exit_code is not None else ""
                console.print(f"{state.name}: {state.status}{ending}", highlight=False)
                told[state.name] = now
