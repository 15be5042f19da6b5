"""Show mostly large shapes in the middle of the picture: the flow models see 16 pixels as one, and small ones take them long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from reference_models.pictures import Scene, position_words
from reference_models.training.latents import Latents

MOST: Final = 0.8
SOME: Final = 0.4
"""How many pictures of a batch show a large shape in the middle; the others are any."""

_LEAST_RADIUS: Final = 0.22


def large_and_central(scene: Scene) -> bool:
    """Tell whether the shape is large and in the middle."""
    return scene.radius >= _LEAST_RADIUS and "centre" in position_words(scene)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Hold the pictures, and those among them that are shown more often."""

    every: Latents
    large: Latents
    share: float

    def pick(self, rng: np.random.Generator, count: int) -> tuple[list[Scene], Tensor]:
        """Return scenes drawn at random and their latents, most of them large."""
        often = round(self.share * count)
        (some, first), (others, second) = self.large.pick(rng, often), self.every.pick(rng, count - often)
        return some + others, torch.cat([first, second])


def large_shapes(pictures: Latents, share: float) -> Mixture:
    """Return the pictures, those with a large shape in the middle to be shown in that share of each batch beside any."""
    where = [index for index, scene in enumerate(pictures.scenes) if large_and_central(scene)]
    return Mixture(pictures, Latents([pictures.scenes[index] for index in where], pictures.values[where]), share)
