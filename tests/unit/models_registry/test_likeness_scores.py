"""What sources say becomes one score that can be explained."""

import math
from uuid import UUID, uuid4

import pytest

from models_registry.likeness.scores import Opinion, blend, text_cosines, word_scores
from models_registry.likeness.texts import MOST_TRAINING_TAGS, text_of, training_tags


def ids(count: int) -> list[UUID]:
    """Return so many entries."""
    return [uuid4() for _ in range(count)]


def test_rare_words_count_for_more() -> None:
    """A word that every entry has tells little between them."""
    one, two, three = ids(3)
    found = word_scores(
        {one: frozenset({"the", "frame"}), two: frozenset({"the"}), three: frozenset({"the", "ground", "frame"})}
    )
    assert found[two] < found[one] < found[three] == pytest.approx(1.0)
    assert found[one] - found[two] > found[two] / 2
    assert word_scores({}) == {}


def test_texts_are_measured_from_their_middle() -> None:
    """In a narrow cone all cosines are near 1; from its middle they differ."""
    entries = ids(4)
    vectors = dict(zip(entries, ([10, 1, 0], [10, -1, 0], [10, 0, 1], [10, 0, -1]), strict=True))
    found = text_cosines([10.0, 0.9, 0.1], vectors)
    assert found[entries[0]] > 0.9
    assert found[entries[1]] < -0.9
    # Of three there is no middle to speak of.
    few = text_cosines([10.0, 0.9, 0.1], {entry: vectors[entry] for entry in entries[:3]})
    assert all(value > 0.9 for value in few.values())


def test_texts_all_alike_divide_by_nothing() -> None:
    """What lies in the middle itself is like nothing."""
    entries = ids(4)
    found = text_cosines([1.0, 0.0], {entry: [1.0, 0.0] for entry in entries})
    assert all(value == 0 and math.isfinite(value) for value in found.values())


def test_blend_is_the_mean_by_shares() -> None:
    """A source that knows nothing of an entry speaks against it, one without a share not at all."""
    known = {"weights": Opinion(1.0, ""), "text": Opinion(0.5, "")}
    assert blend(known, {"weights": 0.5, "text": 0.5}) == 0.75  # type: ignore[arg-type]  # its keys are sources
    assert blend(known, {"weights": 0.5, "use": 0.5}) == 0.5  # type: ignore[arg-type]
    assert blend(known, {"weights": 0.0, "text": 1.0}) == 0.5  # type: ignore[arg-type]
    assert blend(known, {}) == 0.0  # type: ignore[arg-type]


def test_text_of_an_entry_begins_with_what_says_most() -> None:
    """Name, trigger words, tags, description, then the training tags by frequency, each once."""
    entry = {
        "model_name": "shapes-frame_2",
        "trigger_words": ["framed"],
        "tags": ["style", "framed"],
        "description": "A black frame.",
        "metadata": {"ss_tag_frequency": '{"10_a": {"circle": 3, "ring": 9}, "5_b": {"circle": 7}}'},
    }
    assert text_of(entry) == "shapes frame 2, framed, style, A black frame., circle, ring"


@pytest.mark.parametrize("found", [None, "no json", "[1]", {"a": "x"}, {"a": {"b": 1.5}}, 7])
def test_training_tags_that_cannot_be_read_are_none(found: object) -> None:
    """Whatever a trainer, or somebody who hides as one, wrote there."""
    assert training_tags({"ss_tag_frequency": found}) == []


def test_training_tags_are_bounded() -> None:
    """Thousands of tags are a few."""
    tags = {f"tag {number}": number for number in range(1000)}
    found = training_tags({"ss_tag_frequency": {"a": tags}})
    assert len(found) == MOST_TRAINING_TAGS
    assert found[0] == "tag 999"
