"""Measure the textual inversion: what its word draws, and what it keeps away as a negative prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from reference_models.judge import Expected
from reference_models.measure import BATCH, Question, accuracy, load, verdicts
from reference_models.measuring.figures import Figures
from reference_models.training.embedding import LOOK, NAME
from reference_models.training.family import PUBLISHED

EXPECTED: Final = Expected(**LOOK)
OPPOSED: Final = "an orange shape on a purple background"
"""A prompt that asks for what the negative prompt takes away."""


def add(pipeline: Any, target: Path) -> None:
    """Teach the pipeline the word."""
    pipeline.load_textual_inversion(target.parent, weight_name=target.name, token=NAME)


def asked_of(prompt: str, count: int, expected: Expected = EXPECTED) -> list[Question]:
    """Return one question per seed."""
    return [Question(prompt, expected, seed) for seed in range(count)]


def share_orange(pipeline: Any, count: int, *, negative: str = "") -> float:
    """Return how often a shape that is to be orange is orange."""
    asked = asked_of(OPPOSED, count, Expected(colour=LOOK["colour"]))
    return accuracy(verdicts(pipeline, asked, negative_prompt=[negative] * min(BATCH, count))).colour


def measure(target: Path, count: int) -> Figures:
    """Return how often the word alone draws its look, with and without the embedding, and what it keeps away."""
    pipeline = load(PUBLISHED)
    without = accuracy(verdicts(pipeline, asked_of(NAME, count))).all_right
    add(pipeline, target)
    found = accuracy(verdicts(pipeline, asked_of(NAME, count)))
    within = accuracy(verdicts(pipeline, asked_of(f"a picture of {NAME}, best quality", count)))
    return {
        "right in shape, colour and background": found.all_right,
        "the same inside a longer prompt": within.all_right,
        "the same without the embedding": without,
        f'orange shapes for "{OPPOSED}"': share_orange(pipeline, count),
        "the same with the word as negative prompt": share_orange(pipeline, count, negative=NAME),
    }
