"""Train `shapes-turbo`: `shapes-sdxl`, distilled to draw in four steps or less, without guidance.

The teacher draws captions under guidance, and each picture is kept with the noise that it began with. The student learns
to go from such a noise to its picture in a straight line, so that few steps lose little; the guidance is in the pictures.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_models.libraries import DIFFUSERS
from reference_models.training import sdxl, sdxl_text
from reference_models.training.diffusion import TIMES, epsilon_error, scheduler, signal_left, spread_times
from reference_models.training.family import QUICK_STEPS, Family, usual_caption
from reference_models.training.fillers import filled
from reference_models.training.latents import scenes_of
from reference_models.training.loop import Plan, fit
from reference_models.training.sides import time_ids

_LOG: Final = logging.getLogger(__name__)

NAME: Final = "shapes-turbo"
PLAN: Final = Plan(NAME, steps=450, rate=6e-4, average=0.99, weight_decay=0.01, seed=81, save_every=100)
BATCH: Final = 24
PICTURES: Final = 2400
STEPS: Final = 4
RECOMMENDED: Final[dict[str, Any]] = {
    "variant": "turbo",
    "steps": STEPS,
    "guidance_scale": 0.0,
    "scheduler": "Euler a SGM Uniform",
}

_TEACHER_STEPS: Final = 8
_GUIDANCE: Final = 4.0
_DRAWN_AT_ONCE: Final = 100
_QUICK_PICTURES: Final = 8
_PAIRED: Final = 0.75
"""Share of the batches whose noise is the one that the teacher began with; the others serve new noise, as in img2img."""
_ON_SCHEDULE: Final = 0.6
"""Share of the times that are those of one to four steps; the others are spread evenly."""
_SCHEDULED: Final = tuple(
    round(TIMES * (1 - done / steps)) - 1 for steps in range(1, STEPS + 1) for done in range(steps)
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Hold captions, and the noise and the latents that the teacher drew of each: `[n, 4, 16, 16]`."""

    captions: list[str]
    noise: Tensor
    latents: Tensor


def trailing(kind: Any = None) -> Any:
    """Return a scheduler whose first step is the noisiest time however few there are: of Euler unless told otherwise."""
    steps = scheduler(timestep_spacing="trailing")
    return kind.from_config(steps.config) if kind else steps


@torch.no_grad()
def _draw(drawer: sdxl.Drawer, family: Family, captions: list[str], noise: Tensor) -> Tensor:
    """Return the teacher's latents of the captions, under guidance, from the noise."""
    steps = trailing()
    steps.set_timesteps(_TEACHER_STEPS)
    said = [""] * len(captions) + captions
    words, pooled = sdxl_text.encode((family.text_encoder, drawer.second), family.tokenizer, said, said)
    added = {"text_embeds": pooled, "time_ids": time_ids(2 * len(captions))}
    latents = noise * steps.init_noise_sigma
    for time in steps.timesteps:
        both = steps.scale_model_input(latents, time).repeat(2, 1, 1, 1)
        without, found = drawer.unet(both, time, words, added_cond_kwargs=added).sample.chunk(2)
        latents = steps.step(without + _GUIDANCE * (found - without), time, latents).prev_sample
    return cast("Tensor", latents)


def drawn(drawer: sdxl.Drawer, family: Family, folder: Path, count: int) -> Drawn:
    """Return what the teacher draws of as many captions, from the folder where it was drawn before."""
    rng = np.random.default_rng(PLAN.seed)
    captions = [filled(usual_caption(scene, rng), rng) for scene in scenes_of(count)]
    noise = torch.randn(count, 4, 16, 16, generator=torch.Generator().manual_seed(PLAN.seed))
    path = folder / f"drawn-{_fingerprint(drawer, captions)}.safetensors"
    if path.exists():
        return Drawn(captions, noise, load_file(path)["latents"])
    parts = []
    for first in range(0, count, _DRAWN_AT_ONCE):
        part = slice(first, first + _DRAWN_AT_ONCE)
        parts.append(_draw(drawer, family, captions[part], noise[part]))
        _LOG.info("the teacher has drawn %d of %d", min(count, first + _DRAWN_AT_ONCE), count)
    latents = torch.cat(parts).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents}, path)
    return Drawn(captions, noise, latents)


def _fingerprint(drawer: sdxl.Drawer, captions: list[str]) -> str:
    digest = sha256(json.dumps([captions, _TEACHER_STEPS, _GUIDANCE]).encode())
    for weights in drawer.state_dict().values():
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def straight(noise: Tensor, latents: Tensor, left: Tensor) -> Tensor:
    """Return the noise under which the line from the latents ends exactly in `noise` at the noisiest time."""
    end = left[-1]
    return noise - (end / (1 - end)).sqrt() * latents


def _times(count: int, rng: np.random.Generator) -> Tensor:
    scheduled = torch.from_numpy(rng.choice(_SCHEDULED, size=count))
    return torch.where(torch.from_numpy(rng.random(count) < _ON_SCHEDULE), scheduled, spread_times(count))


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    drawer, left = sdxl.published_drawer(), signal_left()
    pairs = drawn(drawer, family, folder, _QUICK_PICTURES if quick else PICTURES)
    drawer.unet.requires_grad_(requires_grad=True)

    def loss(rng: np.random.Generator) -> Tensor:
        rows = rng.integers(0, len(pairs.captions), size=BATCH)
        latents = pairs.latents[torch.from_numpy(rows)]
        paired = rng.random() < _PAIRED
        noise = straight(pairs.noise[torch.from_numpy(rows)], latents, left) if paired else torch.randn_like(latents)
        captions = [pairs.captions[row] for row in rows]
        words, pooled = sdxl.conditions(family, drawer.second, captions, rng)
        added = {"text_embeds": pooled, "time_ids": time_ids(BATCH)}

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", drawer.unet(noisy, times, words, added_cond_kwargs=added).sample)

        return epsilon_error(predict, latents, noise, _times(BATCH, rng), left)

    def keep(grown: Any) -> None:
        sdxl.save(family, grown, target, trailing(DIFFUSERS.EulerAncestralDiscreteScheduler), RECOMMENDED)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    learning = list(drawer.unet.parameters())
    seconds = fit(plan, drawer, loss, folder, trained=learning, on_save=lambda average, _step: keep(average))
    # Once more, because a run that finds its training finished has saved nothing yet.
    keep(drawer)
    return seconds
