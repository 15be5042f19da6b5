"""Train `shapes-sd3`: text to image in the layout of Stable Diffusion 3, with three text encoders."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS, TRANSFORMERS
from reference_models.training import t5, text_encoder
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.flow import flow_loss, matrices, noise_levels, noised, start_quiet
from reference_models.training.flow import scheduler as flow_scheduler
from reference_models.training.latents import Latents
from reference_models.training.loop import Plan, fit
from reference_models.training.mixture import MOST, SOME, Mixture, large_shapes
from reference_models.training.publish import LENGTH_HINT, save_pipeline
from reference_models.training.teacher import Teacher, trust
from reference_models.training.tokenizer import LENGTH as CLIP_LENGTH
from reference_models.training.wording import SHORT, worded

NAME: Final = "shapes-sd3"
PLAN: Final = Plan(
    NAME, steps=1500, rate=2e-3, final_rate=0.35, warm_up=150, average=0.998, weight_decay=0.01, seed=81, save_every=100
)
"""The first stage: pictures and noise alone."""

TAUGHT: Final = Plan(
    f"{NAME}-taught",
    steps=500,
    rate=2e-3,
    final_rate=0.8,
    warm_up=20,
    average=0.998,
    weight_decay=0.01,
    seed=82,
    save_every=100,
)
"""The second stage: `shapes-sd15` tells what the best prediction is."""

LAST: Final = Plan(
    f"{NAME}-last", steps=1150, rate=2e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=83, save_every=100
)
"""The third stage: as the second, but mostly with large shapes in the middle, and with some guidance."""

WIDE: Final = Plan(
    f"{NAME}-wide", steps=500, rate=1.5e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=84, save_every=100
)
"""The fourth stage: small shapes and all places come oftener again."""

GUIDANCE: Final = 2.0
"""What the teacher adds from the third stage on: less is left to a caller's guidance, and captions weigh more."""

BATCH: Final = 24
POSTERIOR_NOISE: Final = 0.05
RECOMMENDED: Final[dict[str, Any]] = {"steps": 20, "guidance_scale": 4.0, "scheduler": "Euler", LENGTH_HINT: t5.LENGTH}
_LATENT_SIDE: Final = 16
_LARGEST: Final = 32
"""Patches a side of the largest picture that has positions: 512 pixels."""


class Words(NamedTuple):
    """What the denoiser sees of captions: the states of CLIP and T5 `[n, length, 128]`, and CLIP's pooled `[n, 128]`."""

    states: Tensor
    pooled: Tensor


def clip(shared: Any) -> Any:
    """Return the family's text encoder with a projection, the identity, as both CLIP encoders of the layout have one."""
    found = TRANSFORMERS.CLIPTextModelWithProjection(deepcopy(shared.config))
    found.text_model.load_state_dict(shared.state_dict())
    with torch.no_grad():
        nn.init.eye_(found.text_projection.weight)
    return found.requires_grad_(requires_grad=False).eval()


def build() -> Any:
    """Return a new `SD3Transformer2DModel` (2.4 million parameters)."""
    net = DIFFUSERS.SD3Transformer2DModel(
        sample_size=_LATENT_SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=t5.WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=2 * text_encoder.WIDTH,
        pos_embed_max_size=_LARGEST,
        qk_norm="rms_norm",
    )
    start_quiet(net)
    return net


@torch.no_grad()
def encoded(encoder: Any, tokenizer: Any, reader: t5.T5, captions: list[str], length: int) -> Words:
    """Return the captions as the pipeline shows them to the denoiser, T5's part padded to `length`."""
    ids = text_encoder.tokens(tokenizer, captions)
    # Padding is most of what CLIP has to say: a short batch does without it, and costs half.
    found = encoder(ids[:, : SHORT if length == SHORT else CLIP_LENGTH], output_hidden_states=True)
    state = found.hidden_states[-2]
    states = torch.cat([torch.cat([state, state], dim=-1), reader.encode(captions, length)], dim=1)
    return Words(states, torch.cat([found.text_embeds, found.text_embeds], dim=-1))


def save(family: Family, reader: t5.T5, net: nn.Module, target: Path) -> None:
    """Write the whole pipeline at half precision in place of the target folder."""
    # Copies, because the originals go on learning in single precision.
    vae = deepcopy(family.vae)
    vae.register_to_config(shift_factor=0.0)
    pipeline = DIFFUSERS.StableDiffusion3Pipeline(
        transformer=deepcopy(net),
        scheduler=flow_scheduler(),
        vae=vae,
        text_encoder=clip(family.text_encoder),
        tokenizer=family.tokenizer,
        text_encoder_2=clip(family.text_encoder),
        tokenizer_2=family.tokenizer,
        text_encoder_3=deepcopy(reader.encoder),
        tokenizer_3=reader.tokenizer,
    )
    save_pipeline(pipeline, target, RECOMMENDED)


def velocity(net: Any, noisy: Tensor, levels: Tensor, words: Words) -> Tensor:
    """Return the predicted velocity: `[n, 4, 16, 16]`."""
    found = net(
        hidden_states=noisy,
        timestep=1000 * levels,
        encoder_hidden_states=words.states,
        pooled_projections=words.pooled,
        return_dict=False,
    )
    return cast("Tensor", found[0])


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    reader, teacher = t5.shared(folder, quick=quick), Teacher(family)
    torch.manual_seed(0)
    net, encoder = build(), clip(family.text_encoder)
    pictures = family.latents()

    def batch(rng: np.random.Generator, shown: Latents | Mixture = pictures) -> tuple[Tensor, list[str], Words]:
        scenes, latents = shown.pick(rng, BATCH)
        captions, length = worded(scenes, rng)
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)
        return latents, captions, encoded(encoder, family.tokenizer, reader, captions, length)

    def plain_loss(rng: np.random.Generator) -> Tensor:
        latents, _captions, words = batch(rng)
        return flow_loss(lambda noisy, levels: velocity(net, noisy, levels, words), latents)

    def taught_loss(rng: np.random.Generator, shown: Latents | Mixture, guidance: float) -> Tensor:
        latents, captions, words = batch(rng, shown)
        levels, noise = noise_levels(BATCH), torch.randn_like(latents)
        noisy, share = noised(latents, levels, noise), trust(levels)
        scale = None if guidance == 1 else 1 + (guidance - 1) * share.flatten()
        wanted = share * teacher.velocity(noisy, levels, captions, scale) + (1 - share) * (noise - latents)
        with torch.autocast("cpu", torch.bfloat16):
            found = velocity(net, noisy, levels, words)
        return (found.float() - wanted).square().mean()

    def keep(average: nn.Module, _step: int) -> None:
        save(family, reader, average, target)

    first, *others = (replace(plan, steps=QUICK_STEPS) if quick else plan for plan in (PLAN, TAUGHT, LAST, WIDE))
    seconds = fit(first, net, plain_loss, folder, on_save=keep)
    shows: tuple[tuple[Latents | Mixture, float], ...] = (
        (pictures, 1.0),
        (large_shapes(pictures, MOST), GUIDANCE),
        (large_shapes(pictures, SOME), GUIDANCE),
    )
    for plan, (shown, guidance) in zip(others, shows, strict=True):
        loss = partial(taught_loss, shown=shown, guidance=guidance)
        seconds += fit(plan, net, loss, folder, matrices=matrices(net), on_save=keep)
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, reader, net, target)
    return seconds
