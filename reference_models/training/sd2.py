"""Train `shapes-sd2`: text to image in the layout of Stable Diffusion 2.x, from the weights of `shapes-sd15`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS
from reference_models.training import sd15
from reference_models.training.diffusion import scheduler, signal_left, velocity_loss
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.loop import Plan, fit

NAME: Final = "shapes-sd2"
PLAN: Final = Plan(NAME, steps=1200, rate=8e-4, average=0.995, weight_decay=0.01, seed=61, save_every=300)
BATCH: Final = 32
POSTERIOR_NOISE: Final = 0.05


def linear(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a denoiser's weights with the 1 x 1 convolutions around its transformers written as linear layers."""
    around = (".proj_in.weight", ".proj_out.weight")
    return {name: value[:, :, 0, 0] if name.endswith(around) else value for name, value in weights.items()}


def build() -> Any:
    """Return the published denoiser in the layout of 2.x; its output still means noise."""
    base = published_unet()
    unet = DIFFUSERS.UNet2DConditionModel.from_config({**base.config, "use_linear_projection": True})
    unet.load_state_dict(linear(base.state_dict()))
    return unet


def save(family: Family, unet: nn.Module, target: Path) -> None:
    """Write the whole pipeline at half precision in place of the target folder."""
    sd15.save(family, unet, target, schedule=scheduler(prediction_type="v_prediction"))


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    unet, left = build(), signal_left()
    pictures = family.latents()

    def loss(rng: np.random.Generator) -> Tensor:
        scenes, latents = pictures.pick(rng, BATCH)
        words = family.conditions(scenes, rng)
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", unet(noisy, times, words).sample)

        return velocity_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    seconds = fit(plan, unet, loss, folder, on_save=lambda average, _step: save(family, average, target))
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, unet, target)
    return seconds
