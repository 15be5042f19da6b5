"""How commands print: tables and sentences for people, JSON for programs."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Where nobody looks at a terminal, nothing is shortened to its width.
_WIDE = 1000
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_KIBI = 1024


def plain(text: str, longest: int | None = None) -> str:
    """Return text that cannot steer the terminal, on one line, shortened where a length is given."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if longest is None or len(shown) <= longest else f"{shown[: longest - 1]}…"


def print_json(value: object) -> None:
    """Print a value, models in it too, as JSON."""
    typer.echo(json.dumps(_jsonable(value), indent=2, ensure_ascii=False))


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print rows under titles, the last column as wide as there is room; `empty` when there are none."""
    shown = [[plain(cell) for cell in row] for row in rows]
    if not shown:
        typer.echo(empty)
        return
    console = Console()
    if not console.is_terminal:
        console.width = _WIDE
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, title in enumerate(titles):
        last = number == len(titles) - 1
        table.add_column(title, no_wrap=True, overflow="ellipsis" if last else "fold")
    for row in shown:
        # As Text, because a prompt may hold what rich takes for markup.
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def age(since: datetime | None) -> str:
    """Return how long ago a time was, in the largest fitting unit."""
    if since is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - since).total_seconds()))
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < _KIBI:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIBI
    return f"{count:.1f} TiB"
