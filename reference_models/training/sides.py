"""Mix in pictures of other sides, as SDXL's last stage of training does, and tell a network that reads them the sizes of all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reference_models.pictures import SIDE, Pixels, Scene, draw
from reference_models.training.family import Family
from reference_models.training.latents import Latents
from reference_models.training.mixture import Mixture

OTHER_SIDES: Final = (96, 160, 192)
PICTURES: Final = 600
"""How many there are of each of these sides."""

SHARE: Final = 0.2
"""Share of the batches that have another side."""


class Shown(NamedTuple):
    """Hold a batch: scenes, latents `[n, 4, side, side]` and time ids `[n, 6]`."""

    scenes: list[Scene]
    latents: Tensor
    ids: Tensor


def time_ids(count: int, side: int = SIDE) -> Tensor:
    """Return what SDXL is told of as many square pictures: size before, corner of the cut, size after; `[n, 6]` pixels."""
    return torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32).repeat(count, 1)


@dataclass(frozen=True, slots=True)
class Pictures:
    """Hold the latents of the pictures of every side."""

    usual: Latents | Mixture
    others: Mapping[int, Latents | Mixture]
    share: float = SHARE

    def pick(self, rng: np.random.Generator, count: int) -> Shown:
        """Return a batch drawn at random, all of one side."""
        if rng.random() >= self.share:
            scenes, latents = self.usual.pick(rng, count)
            return Shown(scenes, latents, time_ids(count))
        side = OTHER_SIDES[rng.integers(len(OTHER_SIDES))]
        # No more cells than in a batch of the usual side, for the sake of the time it takes.
        fewer = max(1, min(count, count * SIDE**2 // side**2))
        scenes, latents = self.others[side].pick(rng, fewer)
        return Shown(scenes, latents, time_ids(fewer, side))


def _paint(side: int, scene: Scene) -> Pixels:
    return draw(scene, side, side)


def others(family: Family, count: int = PICTURES) -> dict[int, Latents]:
    """Return as many pictures of each other side, encoded once."""
    return {side: family.latents(count, partial(_paint, side)) for side in OTHER_SIDES}
