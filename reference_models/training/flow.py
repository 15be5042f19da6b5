"""Teach a denoiser the velocity from picture to noise along straight lines (rectified flow), as FLUX and SD 3 do.

Knows nothing of conditions: a model's file hands over a function from noisy latents and noise level to velocity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS

SHIFT: Final = 2.0
"""How far noise levels are moved towards noise, where background, colour and place are decided."""

_SPREAD: Final = 1.4
_EDGE: Final = 1e-3

Velocity = Callable[[Tensor, Tensor], Tensor]


def scheduler() -> Any:
    """Return the scheduler that the flow models are saved with."""
    return DIFFUSERS.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT)


def noise_levels(count: int) -> Tensor:
    """Return noise levels between 0 and 1, logit-normal around two thirds: `[count]`."""
    # One from each of `count` equal slices: the loss of a small batch varies far less.
    slices = ((torch.arange(count) + torch.rand(count)) / count).clamp_(_EDGE, 1 - _EDGE)
    normal = torch.special.ndtri(slices)
    return torch.sigmoid(_SPREAD * normal + torch.tensor(SHIFT).log())


def noised(latents: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
    """Return the points on the way from the latents to the noise."""
    share = levels[:, None, None, None]
    return (1 - share) * latents + share * noise


def flow_loss(predict: Velocity, latents: Tensor) -> Tensor:
    """Return the mean squared error of the predicted velocity."""
    levels, noise = noise_levels(len(latents)), torch.randn_like(latents)
    found = predict(noised(latents, levels, noise), levels)
    return (found - (noise - latents)).square().mean()


@torch.no_grad()
def start_quiet(net: nn.Module) -> None:
    """Let every block of a transformer pass its input on at the start, and the whole predict nothing."""
    for name, layer in net.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(layer, nn.Linear) and ((last == "proj_out" and "." not in name) or ".norm" in f".{name}"):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


def matrices(net: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a transformer that Muon trains: those of attention and of the layers after it."""
    return [
        parameter
        for name, parameter in net.named_parameters()
        if parameter.ndim == 2 and "transformer_blocks" in name and ".norm" not in name  # noqa: PLR2004  # a matrix
    ]
