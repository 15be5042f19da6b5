"""Teach a denoiser to predict noise or velocity, under the noise schedule of Stable Diffusion 1.x, 2.x and SDXL.

Knows nothing of conditions: a model's file hands over a function from noisy latents and time to the prediction.
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


def scheduler(**changes: Any) -> Any:
    """Return the scheduler that the models are saved with, with changes to its configuration."""
    return DIFFUSERS.EulerDiscreteScheduler.from_config(SCHEDULE | changes)


def signal_left() -> Tensor:
    """Return the share of the signal's variance that is left at each time: `[1000]`, falling."""
    betas = torch.linspace(SCHEDULE["beta_start"] ** 0.5, SCHEDULE["beta_end"] ** 0.5, TIMES) ** 2
    return (1 - betas).cumprod(dim=0)


def spread_times(count: int) -> Tensor:
    """Return as many times: one from each of `count` equal slices, which makes the loss of a small batch vary less."""
    return ((torch.arange(count) + torch.rand(count)) * (TIMES / count)).long().clamp_(max=TIMES - 1)


def epsilon_loss(predict: Predict, latents: Tensor, left: Tensor) -> Tensor:
    """Return the weighted error of the predicted noise; `left` is `signal_left()`."""
    return epsilon_error(predict, latents, torch.randn_like(latents), spread_times(len(latents)), left)


def epsilon_error(predict: Predict, latents: Tensor, noise: Tensor, times: Tensor, left: Tensor) -> Tensor:
    """Return the weighted error of the predicted noise at the given times `[n]`."""
    signal = left[times, None, None, None]
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    error = (predict(noisy, times) - noise).square().mean(dim=(1, 2, 3))
    # The plain error hardly notices the noisiest times, where background, colour and place are decided.
    weight = (1 / left[times]).clamp(max=_HEAVIEST)
    return (weight * error).mean()


def velocity_loss(predict: Predict, latents: Tensor, left: Tensor) -> Tensor:
    """Return the error of the predicted velocity, which weighs all times alike; `left` is `signal_left()`."""
    times = spread_times(len(latents))
    noise = torch.randn_like(latents)
    signal = left[times, None, None, None]
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    wanted = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    return (predict(noisy, times) - wanted).square().mean()
