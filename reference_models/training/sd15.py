"""Train `shapes-sd15`: text to image in the layout of Stable Diffusion 1.5."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS
from reference_models.training import text_encoder
from reference_models.training.diffusion import epsilon_loss, scheduler, signal_left
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.loop import Plan, fit
from reference_models.training.publish import save_pipeline

NAME: Final = "shapes-sd15"
PLAN: Final = Plan(NAME, steps=4500, rate=1e-3, average=0.998, weight_decay=0.01, seed=3, save_every=500)
BATCH: Final = 32
LATENT_SIDE: Final = 16
POSTERIOR_NOISE: Final = 0.05
#: What Imagefleet fills in where a request says nothing: at small strengths these keep most of a source picture.
RECOMMENDED: Final[dict[str, Any]] = {"steps": 20, "guidance_scale": 4.0, "scheduler": "Euler Karras"}


def build() -> Any:
    """Return a new `UNet2DConditionModel` (1.6 million parameters)."""
    return DIFFUSERS.UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(48, 48, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=text_encoder.WIDTH,
        # Diffusers reads this as the number of heads, for the sake of old files.
        attention_head_dim=4,
        norm_num_groups=16,
    )


def save(family: Family, unet: nn.Module, target: Path, kind: Any = None, schedule: Any = None) -> None:
    """Write the whole pipeline, text to image unless told otherwise, at half precision in place of the target folder."""
    # Copies, because the originals go on learning in single precision.
    pipeline = (kind or DIFFUSERS.StableDiffusionPipeline)(
        vae=deepcopy(family.vae),
        text_encoder=deepcopy(family.text_encoder),
        tokenizer=family.tokenizer,
        unet=deepcopy(unet),
        scheduler=schedule or scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_pipeline(pipeline, target, RECOMMENDED)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    torch.manual_seed(0)
    unet = build()
    left = signal_left()
    pictures = family.latents()

    def loss(rng: np.random.Generator) -> Tensor:
        scenes, latents = pictures.pick(rng, BATCH)
        words = family.conditions(scenes, rng)
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", unet(noisy, times, words).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    seconds = fit(plan, unet, loss, folder, on_save=lambda average, _step: save(family, average, target))
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, unet, target)
    return seconds
