"""Make the pictures that SDXL's size and crop conditions tell apart: sharp, enlarged, cropped, and of other sides."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reference_models.pictures import SIDE, Pixels, Scene, draw
from reference_models.training.family import Family
from reference_models.training.latents import Latents, Paint

ENLARGED: Final = 2000
CROPPED: Final = 2000
OTHER: Final = 600
OTHER_SIDES: Final = (96, 160, 192)
"""Sides of the pictures that come in batches of their own, as in SDXL's last stage of training."""

_SMALL: Final = (32, 40, 48, 64)
_WIDEST: Final = 192
_OTHER_SHARE: Final = 0.12
_EVERY: Final = 8
"""Of a batch of pictures one in so many is enlarged, and one in so many cropped."""


@dataclass(frozen=True, slots=True)
class Framing:
    """Say how large a picture was and what was cut off it, in pixels: what SDXL is told as time ids."""

    height: int = SIDE
    width: int = SIDE
    top: int = 0
    left: int = 0
    side: int = SIDE
    """Side of what was kept."""

    def ids(self) -> list[int]:
        """Return the six numbers in the order in which diffusers hands them over."""
        return [self.height, self.width, self.top, self.left, self.side, self.side]


@dataclass(frozen=True, slots=True)
class Shown:
    """Hold a batch: scenes, latents `[n, 4, h, w]` and time ids `[n, 6]`."""

    scenes: list[Scene]
    latents: Tensor
    ids: Tensor


def _luck(scene: Scene) -> np.random.Generator:
    # A painter is a function of the scene alone, so that its latents can be cached.
    return np.random.default_rng(int.from_bytes(sha256(repr(scene).encode()).digest()[:8], "little"))


def enlarged_framing(scene: Scene) -> Framing:
    """Return how small the picture of a scene was before it was enlarged."""
    side = int(_luck(scene).choice(_SMALL))
    return Framing(height=side, width=side)


def enlarged(scene: Scene) -> Pixels:
    """Paint the scene small and enlarge it, which leaves it soft."""
    small = enlarged_framing(scene).height
    picture = Image.fromarray(draw(scene, small, small))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def cropped_framing(scene: Scene) -> Framing:
    """Return how wide or high the picture of a scene was, and what was cut off before the square that is kept."""
    luck = _luck(scene)
    long = int(luck.integers(SIDE + 16, _WIDEST + 1))
    cut = int(luck.integers(8, long - SIDE + 1))
    wide = bool(luck.random() < 1 / 2)
    return Framing(width=long, left=cut) if wide else Framing(height=long, top=cut)


def cropped(scene: Scene) -> Pixels:
    """Paint the scene onto the first square of a longer picture, and cut off what the framing says."""
    framing = cropped_framing(scene)
    whole = draw(scene, framing.height, framing.width)
    return whole[framing.top : framing.top + SIDE, framing.left : framing.left + SIDE]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Hold the latents of every kind of picture."""

    plain: Latents
    enlarged: Latents
    cropped: Latents
    others: dict[int, Latents]

    def pick(self, rng: np.random.Generator, count: int) -> Shown:
        """Return a batch drawn at random; now and then all of it has another side."""
        if rng.random() < _OTHER_SHARE:
            side = OTHER_SIDES[rng.integers(len(OTHER_SIDES))]
            # About as many cells as in a batch of the usual side, for the sake of the time it takes.
            scenes, latents = self.others[side].pick(rng, max(1, min(count, count * SIDE**2 // side**2)))
            framings = [Framing(side, side, side=side)] * len(scenes)
            return Shown(scenes, latents, _ids(framings))
        few = count // _EVERY
        scenes, latents = self.plain.pick(rng, count - 2 * few)
        soft, soft_latents = self.enlarged.pick(rng, few)
        cut, cut_latents = self.cropped.pick(rng, few)
        framings = [
            *[Framing()] * len(scenes),
            *map(enlarged_framing, soft),
            *map(cropped_framing, cut),
        ]
        return Shown([*scenes, *soft, *cut], torch.cat([latents, soft_latents, cut_latents]), _ids(framings))


def usual_ids(count: int) -> Tensor:
    """Return the time ids of as many pictures that were neither enlarged nor cropped: `[n, 6]`."""
    return _ids([Framing()] * count)


def _ids(framings: list[Framing]) -> Tensor:
    return torch.tensor([framing.ids() for framing in framings], dtype=torch.float32)


def _of_side(side: int) -> Paint:
    def paint(scene: Scene) -> Pixels:
        return draw(scene, side, side)

    return paint


def prepared(family: Family) -> Pictures:
    """Return every kind of picture, encoded once."""
    return Pictures(
        plain=family.latents(),
        enlarged=family.latents(ENLARGED, enlarged),
        cropped=family.latents(CROPPED, cropped),
        others={side: family.latents(OTHER, _of_side(side)) for side in OTHER_SIDES},
    )
