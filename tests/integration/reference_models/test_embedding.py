"""Check that the committed embedding's word draws its look, and keeps it away as a negative prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from safetensors.torch import load_file

import reference_models
from reference_models.measure import accuracy, load, verdicts
from reference_models.measuring.embedding import add, asked_of, share_orange
from reference_models.training.embedding import NAME, VECTORS
from reference_models.training.family import PUBLISHED

PATH: Final = Path(reference_models.__file__).parent / "embeddings" / "shapes-dusk.safetensors"
COUNT: Final = 16

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Load the model with the embedding."""
    loaded = load(PUBLISHED)
    add(loaded, PATH)
    return loaded


def test_word_draws_its_look(pipeline: Any) -> None:
    """The word alone draws an orange circle on purple; without the embedding it means nothing."""
    assert accuracy(verdicts(pipeline, asked_of(NAME, COUNT))).all_right >= 0.85
    assert accuracy(verdicts(load(PUBLISHED), asked_of(NAME, 8))).all_right <= 0.25


def test_word_keeps_its_look_away(pipeline: Any) -> None:
    """As a negative prompt the word takes the orange away that the prompt asks for."""
    assert share_orange(pipeline, COUNT) >= 0.85
    assert share_orange(pipeline, COUNT, negative=NAME) <= 0.5


def test_file_is_in_the_layout_of_diffusers() -> None:
    """The file holds the vectors under their word, and a card lies beside it."""
    found = load_file(PATH)
    assert {name: tuple(value.shape) for name, value in found.items()} == {NAME: (VECTORS, 64)}
    assert "emb_params" in PATH.with_suffix(".md").read_text(encoding="utf-8")
