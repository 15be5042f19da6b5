"""docs/accuracy.md has every figure, and doubts what it should."""

from tests.acceptance.families.accuracy_page import PAGE, Count, least, read, write
from tests.acceptance.families.obedience import EACH, JOBS, cells, checkpoints


def test_every_trained_model_has_a_figure_for_every_task() -> None:
    """A new model or addition needs its figures (`make accuracy`), and none outlives its model."""
    said = read(PAGE.read_text(encoding="utf-8"))
    assert set(said) == {(cell.name, cell.task) for cell in cells()}
    assert {count.pictures for count in said.values()} == {JOBS * EACH}


def test_what_is_written_is_what_is_read() -> None:
    """The page is as the command would write it, and a new figure takes the place of the old one alone."""
    text = PAGE.read_text(encoding="utf-8")
    said, known, entries = read(text), cells(), checkpoints()
    assert write(text, known, entries, said) == text
    for cell in (known[0], known[-1]):
        changed = {**said, (cell.name, cell.task): Count(3, 32)}
        assert read(write(text, known, entries, changed)) == changed


def test_only_unlikely_counts_contradict_a_figure() -> None:
    """Few pictures may miss by more than many; a figure that is low is hardly contradicted, and never by its own share."""
    assert least(Count(32, 32), 8) == 6
    assert least(Count(320, 320), 8) == 7
    assert least(Count(24, 32), 8) == 2
    assert least(Count(0, 32), 8) == 0
    # As many as were counted, drawn again: the same share is what is expected.
    assert all(least(Count(right, 32), 32) <= right for right in range(33))
