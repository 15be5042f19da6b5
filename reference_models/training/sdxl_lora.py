"""Train a LoRA adapter for `shapes-sdxl`, in the layout that diffusers saves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from reference_models import styles
from reference_models.libraries import DIFFUSERS
from reference_models.training import lora, sdxl
from reference_models.training.diffusion import epsilon_loss, signal_left
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.loop import fit
from reference_models.training.sides import time_ids

STYLES: Final[dict[str, lora.Style]] = {
    "shapes-sdxl-frame": lora.Style(styles.framed, styles.leaves_room_for_frame, lora.plan_of("shapes-sdxl-frame", 91)),
}


def save(unet: Any, target: Path) -> None:
    """Write the adapter at half precision, in the layout of diffusers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    DIFFUSERS.StableDiffusionXLPipeline.save_lora_weights(
        target.parent,
        unet_lora_layers=lora.weights(unet),
        unet_lora_adapter_metadata=lora.portable(unet.peft_config["default"].to_dict()),
        weight_name=target.name,
    )
    target.chmod(0o644)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train the adapter that the target is named after; return the seconds spent."""
    style = STYLES[target.stem]
    torch.manual_seed(style.plan.seed)
    drawer, left = sdxl.published_drawer(), signal_left()
    lora.adapt(drawer.unet, style.rank, style.layers)
    pictures = {
        one: family.latents(lora.PICTURES, partial(lora.painted, style, one), style.keep) for one in set(lora.STRENGTHS)
    }

    def loss(rng: np.random.Generator) -> Tensor:
        strength = lora.STRENGTHS[rng.integers(len(lora.STRENGTHS))]
        lora.set_weight(drawer.unet, strength)
        scenes, latents = pictures[strength].pick(rng, lora.BATCH)
        words, pooled = sdxl.conditions(family, drawer.second, family.captions(scenes, rng), rng)
        latents = latents + lora.POSTERIOR_NOISE * torch.randn_like(latents)
        added = {"text_embeds": pooled, "time_ids": time_ids(len(scenes))}

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", drawer.unet(noisy, times, words, added_cond_kwargs=added).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(style.plan, steps=QUICK_STEPS) if quick else style.plan
    learning = [parameter for parameter in drawer.parameters() if parameter.requires_grad]
    seconds = fit(plan, drawer, loss, folder, trained=learning)
    save(drawer.unet, target)
    return seconds
