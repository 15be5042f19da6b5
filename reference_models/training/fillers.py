"""Wrap captions in words that mean nothing here, so that models learn to pass over what they do not know.

Users write "masterpiece, best quality", trigger words, names of styles; long prompts consist of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_WORDS: Final = (
    "masterpiece best quality photo of picture drawing painting image with and no not one two in the style color frame "
    "dark light bright inverted stripes dots pattern blurry big tiny middle"
)
WORDS: Final = tuple(_WORDS.split())

SHARE: Final = 0.3
"""How many captions have other words around them."""

_MOST: Final = 6
_MADE_UP: Final = 0.4
_BOTH_SIDES: Final = 0.5
_LETTERS: Final = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def _word(rng: np.random.Generator) -> str:
    if rng.random() < _MADE_UP:
        return "".join(rng.choice(_LETTERS, size=rng.integers(3, 8)))
    return WORDS[rng.integers(len(WORDS))]


def _run(rng: np.random.Generator) -> str:
    joint = ", " if rng.random() < _BOTH_SIDES else " "
    return joint.join(_word(rng) for _ in range(rng.integers(0, _MOST)))


def filled(words: str, rng: np.random.Generator, share: float = SHARE) -> str:
    """Return the caption as it is, or now and then with up to five other words before it and after it."""
    if rng.random() >= share:
        return words
    before, after = _run(rng), _run(rng)
    return ", ".join(part for part in (before, words, after) if part)
