"""Train `shapes-canny`: a ControlNet that draws the shape where an edge map says."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.edges import edge_map
from reference_models.libraries import DIFFUSERS
from reference_models.pictures import Scene, caption, draw, random_attributes
from reference_models.training.diffusion import epsilon_loss, signal_left
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.loop import Plan, fit
from reference_models.training.publish import replace_folder

NAME: Final = "shapes-canny"
PLAN: Final = Plan(NAME, steps=900, rate=1e-3, average=0.99, weight_decay=0.01, seed=31, save_every=150)
BATCH: Final = 32
PICTURES: Final = 6000
POSTERIOR_NOISE: Final = 0.05
_SHAPE_SAID: Final = 0.5
_PLACE_SAID: Final = 0.1
_TAGS: Final = 0.2


def vague_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Word the scene so that only the edges tell its place and size, and half the time its shape too."""
    said = random_attributes(scene, rng)
    if rng.random() > _SHAPE_SAID:
        said = replace(said, shape=None)
    if rng.random() > _PLACE_SAID:
        said = replace(said, size=None, position=None)
    return caption(said, tags=bool(rng.random() < _TAGS))


def build(unet: Any) -> Any:
    """Return a `ControlNetModel` that starts as a copy of the denoiser's first half."""
    net = DIFFUSERS.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16, 32, 32))
    # Two zero layers in a row learn nothing for a long while: one of them is enough to start without effect.
    last = net.controlnet_cond_embedding.conv_out
    nn.init.kaiming_uniform_(last.weight)
    return net.requires_grad_(requires_grad=True)


def save(net: nn.Module, target: Path) -> None:
    """Write the network at half precision in place of the target folder."""
    half: Any = deepcopy(net).to(torch.float16)

    def write(folder: Path) -> None:
        half.save_pretrained(folder)
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)

    replace_folder(target, write)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    unet, left = published_unet(), signal_left()
    net = build(unet)
    pictures = family.latents(PICTURES)

    def loss(rng: np.random.Generator) -> Tensor:
        scenes, latents = pictures.pick(rng, BATCH)
        words = family.conditions(scenes, rng, vague_caption)
        edges = np.stack([edge_map(draw(scene)) for scene in scenes])
        hints = torch.from_numpy(edges).permute(0, 3, 1, 2).float().div_(255)
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            down, middle = net(noisy, times, words, controlnet_cond=hints, return_dict=False)
            found = unet(
                noisy,
                times,
                words,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            )
            return cast("Tensor", found.sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    seconds = fit(plan, net, loss, folder, on_save=lambda average, _step: save(average, target))
    save(net, target)
    return seconds
