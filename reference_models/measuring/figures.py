"""Put the figures of an add-on into its card: a markdown file beside a loose file, `README.md` in a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

Figures = dict[str, float]
"""Figures by what they say."""

_PARTS: Final = ("figures", "training")


def card_of(target: Path) -> Path:
    """Return where the card of a model lies."""
    return target / "README.md" if target.is_dir() else target.with_suffix(".md")


def _table(head: str, rows: dict[str, str]) -> str:
    lines = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"| {head} | |\n|---|---|\n{lines}"


def _replaced(text: str, part: str, table: str) -> str:
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    whole = f"{begin}\n{table}\n{end}"
    if begin not in text:
        return f"{text}\n{whole}\n"
    return re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: whole, text, flags=re.DOTALL)


def write_figures(target: Path, figures: Figures, seconds: float | None = None) -> None:
    """Write the figures, and how long training took if that is known, into the card; prose around them stays."""
    card = card_of(target)
    text = card.read_text(encoding="utf-8") if card.exists() else f"# {target.stem}\n"
    text = _replaced(text, _PARTS[0], _table("measured", {name: f"{value:.2f}" for name, value in figures.items()}))
    if seconds is not None:
        spent = {"training": f"{seconds / 60:.1f} minutes on one shared CPU core"}
        text = _replaced(text, _PARTS[1], _table("time", spent))
    card.write_text(text, encoding="utf-8")
