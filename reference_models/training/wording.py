"""Word batches of scenes for the flow models, whose time goes with the length of the padded captions.

Most batches are short and plain; some are as long as a pipeline pads, or longer, and full of other words.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from reference_models.pictures import Scene
from reference_models.training.family import DROPPED, usual_caption
from reference_models.training.fillers import filled
from reference_models.training.t5 import LENGTH

SHORT: Final = 16
"""Tokens that hold any caption without other words, for either tokenizer."""

_LENGTHS: Final = (SHORT,) * 7 + (LENGTH,) * 2 + (2 * LENGTH,)
_FILLED: Final = 0.6


def worded(scenes: list[Scene], rng: np.random.Generator) -> tuple[list[str], int]:
    """Return captions of the scenes, now and then empty, and how many tokens to pad them to."""
    length = _LENGTHS[rng.integers(len(_LENGTHS))]
    share = 0.0 if length == SHORT else _FILLED
    captions = ["" if rng.random() < DROPPED else filled(usual_caption(scene, rng), rng, share) for scene in scenes]
    return captions, length
