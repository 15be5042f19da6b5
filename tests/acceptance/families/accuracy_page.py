"""docs/accuracy.md: what its tables say, how they are written, and how far a smaller count may lie below them."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from models_registry.entries import ModelEntry
from models_registry.families import facts_of
from tests.acceptance.families.obedience import TASKS, Cell

PAGE: Final = Path(__file__).parents[3] / "docs/accuracy.md"
#: A count that would come less often than this, were the table true, contradicts it.
DOUBT: Final = 0.01
_COUNT: Final = re.compile(r"(\d+) of (\d+)")
_NONE: Final = "—"


class Count(NamedTuple):
    """Say how many of how many pictures are right."""

    right: int
    pictures: int


def read(text: str) -> dict[tuple[str, str], Count]:
    """Return the counts of a page by model or addition, and by task or kind."""
    found = {}
    columns: list[str] = []
    for line in text.splitlines():
        row = [each.strip().strip("`") for each in line.strip("|").split("|")]
        if line.startswith("| `"):
            # An addition's kind is told in its row, a task by its column.
            for column, said in zip(columns, row, strict=True):
                if count := _COUNT.match(said):
                    found[row[0], row[1] if column == "right" else column] = Count(int(count[1]), int(count[2]))
        elif line.startswith("| ") and "---" not in line:
            columns = row
    return found


def write(
    text: str,
    cells: Sequence[Cell],
    entries: Mapping[str, ModelEntry],
    counts: Mapping[tuple[str, str], Count],
) -> str:
    """Return the page with the tables of these counts; the prose around them stays."""
    of_models = [
        (
            f"`{name}`",
            facts_of(entry).title,
            *(_said(counts.get((name, task))) for task in TASKS),
        )
        for name, entry in entries.items()
    ]
    of_additions = [
        (f"`{cell.name}`", cell.task, f"`{cell.model}`", _said(counts.get((cell.name, cell.task))))
        for cell in cells
        if cell.task not in TASKS
    ]
    text = _replaced(text, "models", _table(("model", "layout", *TASKS), of_models))
    return _replaced(text, "additions", _table(("addition", "kind", "drawn by", "right"), of_additions))


def least(said: Count, drawn: int) -> int:
    """Return the smallest number right of `drawn` pictures that does not contradict what is said.

    Neither number of pictures is large, so both count: by the beta-binomial distribution, the chance of each number right
    among further pictures of which nothing is known but what was counted before.
    """
    wrong, whole = said.pictures - said.right, math.comb(said.pictures + drawn + 1, drawn)
    chances = (
        math.comb(said.right + right, right) * math.comb(wrong + drawn - right, drawn - right) / whole
        for right in range(drawn + 1)
    )
    return next(right for right, chance in enumerate(accumulate(chances)) if chance > DOUBT)


def _said(count: Count | None) -> str:
    return _NONE if count is None else f"{count.right} of {count.pictures} ({count.right / count.pictures:.0%})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _replaced(text: str, part: str, table: str) -> str:
    begin, end = f"<!-- {part} -->", f"<!-- /{part} -->"
    return re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{table}\n{end}", text, flags=re.DOTALL)
