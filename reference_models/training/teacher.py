"""Let `shapes-sd15` say what velocity a flow model should predict: the same picture on the same way to noise, seen by it.

A random noise tells little about the best prediction at one point; a model that already draws tells nearly all of it.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from reference_models.training import text_encoder
from reference_models.training.diffusion import signal_left
from reference_models.training.family import Family, published_unet

_TRUSTED: Final = 0.8
_IGNORED: Final = 0.9
"""Between these noise levels the teacher fades out: beyond, its predictions of noise tell little of the picture."""


_FULL_SIDE: Final = 20
"""The teacher learnt from 16 places a side. With so many it still composes a picture; with more it only knows what is near each place,"""

_NEAR: Final = 0.3
"""so it fades out that much earlier."""


def trust(levels: Tensor, side: int = 16) -> Tensor:
    """Return how much the teacher counts at these noise levels, for latents of that side, from 1 to 0: `[n, 1, 1, 1]`."""
    earlier = _NEAR if side > _FULL_SIDE else 0.0
    return ((_IGNORED - earlier - levels) / (_IGNORED - _TRUSTED)).clamp(0, 1)[:, None, None, None]


class Teacher:
    """Answer for the published `shapes-sd15`."""

    def __init__(self, family: Family) -> None:
        """Take the denoiser, frozen."""
        self._family = family
        self._unet = published_unet()
        self._left = signal_left()

    def _states(self, captions: list[str]) -> Tensor:
        return text_encoder.encode(self._family.text_encoder, self._family.tokenizer, captions)

    @torch.no_grad()
    def velocity(self, noisy: Tensor, levels: Tensor, captions: list[str], guidance: Tensor | None = None) -> Tensor:
        """Return the velocity that the teacher predicts, with this guidance `[n]` if any, for latents of any size."""
        states = self._states(captions)
        if guidance is None:
            return self._velocity(noisy, levels, states)
        nothing = self._states([""]).expand_as(states)
        both = self._velocity(noisy.repeat(2, 1, 1, 1), levels.repeat(2), torch.cat([nothing, states]))
        without, towards = both.chunk(2)
        return without + guidance[:, None, None, None] * (towards - without)

    def _velocity(self, noisy: Tensor, levels: Tensor, states: Tensor) -> Tensor:
        # The two kinds of noising differ by a factor only: where as much of the picture is left, they meet.
        whole = (1 - levels) ** 2 + levels**2
        times = torch.searchsorted(-self._left, -((1 - levels) ** 2 / whole)).clamp_(max=len(self._left) - 1)
        scaled = noisy / whole.sqrt()[:, None, None, None]
        noise: Tensor = self._unet(scaled, times, states).sample
        left = self._left[times][:, None, None, None]
        return noise - (scaled - (1 - left).sqrt() * noise) / left.sqrt()
