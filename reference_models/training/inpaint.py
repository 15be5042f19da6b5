"""Train `shapes-sd15-inpaint`: the denoiser of `shapes-sd15` that also sees a mask and what lies outside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from reference_models.judge import Mask
from reference_models.libraries import DIFFUSERS
from reference_models.masks import random_mask
from reference_models.pictures import Scene, caption, draw, random_attributes
from reference_models.training import sd15
from reference_models.training.diffusion import epsilon_loss, signal_left
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.latents import Latents
from reference_models.training.loop import Plan, fit
from reference_models.training.vae import to_tensor

NAME: Final = "shapes-sd15-inpaint"
PLAN: Final = Plan(NAME, steps=1100, rate=6e-4, average=0.995, weight_decay=0.01, seed=41, save_every=250)
BATCH: Final = 32
PICTURES: Final = 6000
MASKS_EACH: Final = 2
POSTERIOR_NOISE: Final = 0.05
_PLACE_SAID: Final = 0.15
_TAGS: Final = 0.2
_ENCODED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Masked:
    """Hold what the denoiser sees beside the noise: masks `[n, 1, 16, 16]` and latents of what they leave."""

    masks: Tensor
    values: Tensor


def placeless_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Word the scene so that mostly the mask alone tells the place and size."""
    said = random_attributes(scene, rng)
    if rng.random() > _PLACE_SAID:
        said = replace(said, size=None, position=None)
    return caption(said, tags=bool(rng.random() < _TAGS))


@torch.no_grad()
def masked(vae: Any, scenes: list[Scene], masks: list[Mask]) -> Masked:
    """Encode the pictures with grey where the masks are, just as diffusers does."""
    values = []
    for first in range(0, len(scenes), _ENCODED_AT_ONCE):
        part = slice(first, first + _ENCODED_AT_ONCE)
        pictures = to_tensor(np.stack([draw(scene) for scene in scenes[part]]))
        left = torch.from_numpy(~np.stack(masks[part]))[:, None]
        values.append(vae.encode(pictures * left).latent_dist.mean * vae.config.scaling_factor)
    whole = torch.from_numpy(np.stack(masks)).float()[:, None]
    return Masked(interpolate(whole, size=(sd15.LATENT_SIDE, sd15.LATENT_SIDE)), torch.cat(values))


def build() -> Any:
    """Return the published denoiser with five more input channels, which count for nothing at first."""
    base = published_unet()
    unet = DIFFUSERS.UNet2DConditionModel.from_config({**base.config, "in_channels": 9})
    weights = base.state_dict()
    old = weights["conv_in.weight"]
    weights["conv_in.weight"] = torch.cat([old, torch.zeros(len(old), 5, *old.shape[2:])], dim=1)
    unet.load_state_dict(weights)
    return unet


def _prepared(family: Family) -> tuple[Latents, Masked]:
    """Return every scene as often as it has masks, with its latents, and the masked ones beside them."""
    once = family.latents(PICTURES)
    scenes = once.scenes * MASKS_EACH
    rng = np.random.default_rng(PLAN.seed)
    masks = [random_mask(scene, rng) for scene in scenes]
    return Latents(scenes, once.values.repeat(MASKS_EACH, 1, 1, 1)), masked(family.vae, scenes, masks)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    unet, left = build(), signal_left()
    whole, seen = _prepared(family)

    def loss(rng: np.random.Generator) -> Tensor:
        where = rng.integers(0, len(whole.scenes), size=BATCH)
        words = family.conditions([whole.scenes[index] for index in where], rng, placeless_caption)
        rows = torch.from_numpy(where)
        latents, rest = (
            values + POSTERIOR_NOISE * torch.randn(BATCH, *values.shape[1:])
            for values in (whole.values[rows], seen.values[rows])
        )

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            given = torch.cat([noisy, seen.masks[rows], rest], dim=1)
            return cast("Tensor", unet(given, times, words).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    kind = DIFFUSERS.StableDiffusionInpaintPipeline
    seconds = fit(plan, unet, loss, folder, on_save=lambda average, _step: sd15.save(family, average, target, kind))
    sd15.save(family, unet, target, kind)
    return seconds
