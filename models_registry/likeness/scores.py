"""From what the sources say to one score, with the reasons; pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

Source = Literal["weights", "text", "use"]
SOURCES: Final[tuple[Source, ...]] = ("weights", "text", "use")
#: How much each source says where its owner wants nothing else.
SHARES: Final[Mapping[Source, float]] = {"weights": 0.5, "text": 0.3, "use": 0.2}
#: Fewer vectors have no middle worth taking away.
MIN_CENTRED: Final = 4


@dataclass(frozen=True)
class Opinion:
    """What one source says of one entry."""

    #: 0 … 1.
    score: float
    why: str
    #: False for an estimate.
    exact: bool = True


def word_scores(found: Mapping[UUID, frozenset[str]]) -> dict[UUID, float]:
    """Return how much of what was asked each entry's words cover, 0 … 1; a word that few have counts for more."""
    having: dict[str, int] = {}
    for words in found.values():
        for word in words:
            having[word] = having.get(word, 0) + 1
    worth = {word: math.log(1 + len(found) / count) for word, count in having.items()}
    whole = sum(worth.values())
    return {entry: sum(worth[word] for word in words) / whole if whole else 0.0 for entry, words in found.items()}


def text_cosines(asked: Sequence[float], found: Mapping[UUID, Sequence[float]]) -> dict[UUID, float]:
    """Return the cosine of each vector with the one asked for, measured from the middle of all that were found.

    A text encoder puts everything it reads into one narrow cone: measured from its point all texts are alike.
    """
    width = len(asked)
    vectors = list(found.values())
    middle = [0.0] * width
    if len(vectors) >= MIN_CENTRED:
        middle = [sum(values) / len(vectors) for values in zip(*vectors, strict=True)]
    own = _unit([value - centre for value, centre in zip(asked, middle, strict=True)])
    cosines = {}
    for entry, vector in found.items():
        other = _unit([value - centre for value, centre in zip(vector, middle, strict=True)])
        cosines[entry] = _product(own, other)
    return cosines


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _unit(vector: Sequence[float]) -> list[float]:
    length = math.sqrt(_product(vector, vector))
    return [value / length for value in vector] if length > 0 else list(vector)


def blend(opinions: Mapping[Source, Opinion], shares: Mapping[Source, float]) -> float:
    """Return the mean of the sources' scores by their shares; one that knows nothing of an entry counts as 0."""
    whole = sum(shares.values())
    if whole <= 0:
        return 0.0
    return sum(share * opinions[source].score for source, share in shares.items() if source in opinions) / whole
