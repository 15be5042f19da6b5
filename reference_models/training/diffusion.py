"""Teach a denoiser to predict noise, under the noise schedule of Stable Diffusion 1.x and SDXL.

Knows nothing of conditions: a model's file hands over a function from noisy latents and time to predicted noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor

from reference_models.libraries import DIFFUSERS

TIMES: Final = 1000

SCHEDULE: Final[dict[str, Any]] = {
    "num_train_timesteps": TIMES,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    # Not read by Euler, but DDIM, PNDM and the others inherit them from this file when a user switches scheduler.
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
"""The scheduler's configuration on disk."""

_HEAVIEST: Final = 20.0

Predict = Callable[[Tensor, Tensor], Tensor]


def scheduler() -> Any:
    """Return the scheduler that the models are saved with."""
    return DIFFUSERS.EulerDiscreteScheduler.from_config(SCHEDULE)


def signal_left() -> Tensor:
    """Return the share of the signal's variance that is left at each time: `[1000]`, falling."""
    betas = torch.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, TIMES) ** 2
    return (1 - betas).cumprod(dim=0)


def _spread_times(count: int) -> Tensor:
    # One time from each of `count` equal slices: the loss of a small batch varies far less.
    return ((torch.arange(count) + torch.rand(count)) * (TIMES / count)).long().clamp_(max=TIMES - 1)


def epsilon_loss(predict: Predict, latents: Tensor, left: Tensor) -> Tensor:
    """Return the weighted error of the predicted noise; `left` is `signal_left()`."""
    times = _spread_times(len(latents))
    noise = torch.randn_like(latents)
    signal = left[times, None, None, None]
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    error = (predict(noisy, times) - noise).square().mean(dim=(1, 2, 3))
    # The plain error hardly notices the noisiest times, where background, colour and place are decided.
    weight = (1 / left[times]).clamp(max=_HEAVIEST)
    return (weight * error).mean()
