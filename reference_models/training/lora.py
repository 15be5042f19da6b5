"""Train LoRA adapters for `shapes-sd15` and its siblings, each for one style, in the layout that diffusers saves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import peft
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from reference_models import styles
from reference_models.libraries import DIFFUSERS
from reference_models.pictures import Pixels, Scene, draw
from reference_models.training import text_encoder
from reference_models.training.diffusion import epsilon_loss, signal_left
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.loop import Plan, fit

BATCH: Final = 32
PICTURES: Final = 2000
POSTERIOR_NOISE: Final = 0.05
ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS: Final = ("conv1", "conv2")
"""Attention works at a quarter of the latents' cells here: fine borders need the convolutions too."""
TEXT_LAYERS: Final = ("q_proj", "v_proj")
STRENGTHS: Final = (0.5, 1.0, 1.0)
"""The weights that the adapter is trained at, on pictures with just as much of the style: so the weight grades it."""


@dataclass(frozen=True, slots=True)
class Style:
    """Say what an adapter learns: how its pictures are painted, of which scenes, and with which layers."""

    paint: Callable[[Pixels, float], Pixels]
    keep: Callable[[Scene], bool]
    plan: Plan
    layers: tuple[str, ...] = (*ATTENTION, *CONVOLUTIONS)
    rank: int = 8
    reads: bool = False
    """Whether the text encoder gets an adapter too."""


def plan_of(name: str, seed: int) -> Plan:
    """Return how an adapter learns."""
    return Plan(name, steps=500, rate=2e-3, warm_up=20, average=0.98, seed=seed, save_every=150)


STYLES: Final[dict[str, Style]] = {
    "shapes-frame": Style(styles.framed, styles.leaves_room_for_frame, plan_of("shapes-frame", 21)),
    "shapes-frame-2": Style(styles.framed, styles.leaves_room_for_frame, plan_of("shapes-frame-2", 22)),
    "shapes-ground": Style(styles.grounded, styles.leaves_room_for_ground, plan_of("shapes-ground", 23), reads=True),
}


class _Adapted(nn.Module):
    """Hold both adapted models, so that one loop trains them."""

    def __init__(self, unet: nn.Module, reader: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self.reader = reader


def adapt(model: Any, rank: int, layers: tuple[str, ...]) -> None:
    """Add an adapter to the layers of these names; it alone learns from now on."""
    model.add_adapter(
        peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(layers))
    )


def set_weight(model: nn.Module, weight: float) -> None:
    """Set the weight that the adapter counts with."""
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.set_scale("default", weight)


def weights(model: Any) -> dict[str, Tensor]:
    """Return the adapter's weights at half precision, under the names of peft."""
    found: dict[str, Tensor] = peft.get_peft_model_state_dict(model)
    return {name: value.half() for name, value in found.items()}


def save(unet: Any, reader: Any | None, target: Path) -> None:
    """Write the adapter at half precision, in the layout of diffusers."""
    target.parent.mkdir(parents=True, exist_ok=True)
    DIFFUSERS.StableDiffusionPipeline.save_lora_weights(
        target.parent,
        unet_lora_layers=weights(unet),
        unet_lora_adapter_metadata=portable(unet.peft_config["default"].to_dict()),
        text_encoder_lora_layers=weights(reader) if reader else None,
        text_encoder_lora_adapter_metadata=portable(reader.peft_config["default"].to_dict()) if reader else None,
        weight_name=target.name,
    )
    target.chmod(0o644)


def painted(style: Style, strength: float, scene: Scene) -> Pixels:
    """Draw the scene with as much of the style."""
    return style.paint(draw(scene), strength)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train the adapter that the target is named after; return the seconds spent."""
    style = STYLES[target.stem]
    torch.manual_seed(style.plan.seed)
    unet, reader, left = published_unet(), family.text_encoder, signal_left()
    adapt(unet, style.rank, style.layers)
    if style.reads:
        adapt(reader, style.rank, TEXT_LAYERS)
    both = _Adapted(unet, reader)
    pictures = {one: family.latents(PICTURES, partial(painted, style, one), style.keep) for one in set(STRENGTHS)}

    def loss(rng: np.random.Generator) -> Tensor:
        strength = STRENGTHS[rng.integers(len(STRENGTHS))]
        set_weight(both, strength)
        scenes, latents = pictures[strength].pick(rng, BATCH)
        words = reader(text_encoder.tokens(family.tokenizer, family.captions(scenes, rng))).last_hidden_state
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", unet(noisy, times, words).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(style.plan, steps=QUICK_STEPS) if quick else style.plan
    learning = [parameter for parameter in both.parameters() if parameter.requires_grad]
    seconds = fit(plan, both, loss, folder, trained=learning)
    save(unet, reader if style.reads else None, target)
    return seconds


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return peft's configuration without the path at which the trainer happened to find the base."""
    return {**config, "base_model_name_or_path": None}
