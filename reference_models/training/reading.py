"""Ask a text encoder which attributes a caption names: what every encoder of the family learns before it is frozen."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from reference_models.pictures import COLOURS, POSITIONS, SHAPES, SIZES, Attributes, random_caption, random_scene
from reference_models.training.fillers import filled

_CHOICES: Final = (SHAPES, COLOURS, COLOURS, SIZES, tuple(POSITIONS))
_EMPTY: Final = 0.05

ANSWERS: Final = sum(len(names) + 1 for names in _CHOICES)
"""How many scores answer for one caption: for each attribute one for every name, and one for "not said"."""


def _labels(said: Attributes) -> list[int]:
    values = (said.shape, said.colour, said.background, said.size, said.position)
    return [0 if value is None else names.index(value) + 1 for names, value in zip(_CHOICES, values, strict=True)]


def reading_batch(rng: np.random.Generator, count: int) -> tuple[list[str], Tensor]:
    """Return captions and what they name: `[count, 5]`, 0 where an attribute is not said."""
    captions, labels = [], []
    for _ in range(count):
        words, said = random_caption(random_scene(rng), rng)
        if rng.random() < _EMPTY:
            words, said = "", Attributes()
        captions.append(filled(words, rng))
        labels.append(_labels(said))
    return captions, torch.tensor(labels)


def wrongness(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the summed cross entropy of the scores `[n, ANSWERS]`."""
    parts = torch.split(scores, [len(names) + 1 for names in _CHOICES], dim=1)
    return torch.stack([cross_entropy(part, labels[:, column]) for column, part in enumerate(parts)]).sum()
