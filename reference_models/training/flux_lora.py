"""Train the LoRA adapter `shapes-flux-frame` for `shapes-flux`, in the layout that diffusers saves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reference_models.libraries import DIFFUSERS
from reference_models.styles import framed, leaves_room_for_frame
from reference_models.training import flux
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.flow import noise_levels, noised
from reference_models.training.flux import velocity
from reference_models.training.loop import Plan, fit
from reference_models.training.lora import (
    ATTENTION,
    PICTURES,
    STRENGTHS,
    Style,
    adapt,
    painted,
    portable,
    set_weight,
    weights,
)
from reference_models.training.t5 import published as published_t5
from reference_models.training.wording import worded

NAME: Final = "shapes-flux-frame"
STYLE: Final = Style(
    framed,
    leaves_room_for_frame,
    Plan(NAME, steps=1800, rate=2e-3, warm_up=20, average=0.98, seed=75, save_every=100),
    layers=(*ATTENTION, "proj_mlp", "ff.net.0.proj", "ff.net.2"),
)
BATCH: Final = 16


def save(transformer: Any, target: Path) -> None:
    """Write the adapter at half precision, in the layout of diffusers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    DIFFUSERS.FluxPipeline.save_lora_weights(
        target.parent,
        transformer_lora_layers=weights(transformer),
        transformer_lora_adapter_metadata=portable(transformer.peft_config["default"].to_dict()),
        weight_name=target.name,
    )
    target.chmod(0o644)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder; return the seconds spent."""
    torch.manual_seed(STYLE.plan.seed)
    reader = published_t5(flux.PUBLISHED)
    net = flux.published()
    adapt(net, STYLE.rank, STYLE.layers)
    pictures = {
        strength: family.latents(PICTURES, partial(painted, STYLE, strength), STYLE.keep)
        for strength in {0.0, *STRENGTHS}
    }

    def loss(rng: np.random.Generator) -> Tensor:
        strength, where = STRENGTHS[rng.integers(len(STRENGTHS))], rng.integers(2**32)
        # The same places in both lists: so a scene meets itself with the style.
        (scenes, plain), (_, styled) = (
            pictures[weight].pick(np.random.default_rng(where), BATCH) for weight in (0.0, strength)
        )
        words = flux.encoded(family, reader, *worded(scenes, rng))
        levels, noise = noise_levels(BATCH), torch.randn_like(plain)
        guidance = torch.empty(BATCH).uniform_(*flux.GUIDANCE)
        # What the model draws without the adapter, and the style upon it: nothing else is to change.
        set_weight(net, 0.0)
        with torch.no_grad():
            wanted = velocity(net, noised(plain, levels, noise), levels, words, guidance) + (plain - styled)
        set_weight(net, strength)
        return (velocity(net, noised(styled, levels, noise), levels, words, guidance) - wanted).square().mean()

    plan = replace(STYLE.plan, steps=QUICK_STEPS) if quick else STYLE.plan
    learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
    seconds = fit(plan, net, loss, folder, trained=learning)
    save(net, target)
    return seconds
