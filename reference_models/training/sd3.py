"""Train `shapes-sd3`: text to image in the layout of Stable Diffusion 3, with three text encoders."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS, TRANSFORMERS
from reference_models.training import t5, text_encoder
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.flow import flow_loss, start_quiet
from reference_models.training.flow import scheduler as flow_scheduler
from reference_models.training.loop import Plan, fit
from reference_models.training.publish import LENGTH_HINT, save_pipeline
from reference_models.training.tokenizer import LENGTH as CLIP_LENGTH
from reference_models.training.wording import SHORT, worded

NAME: Final = "shapes-sd3"
PLAN: Final = Plan(NAME, steps=2400, rate=2e-3, warm_up=150, average=0.998, weight_decay=0.01, seed=81, save_every=100)
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


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    reader = t5.shared(folder, quick=quick)
    torch.manual_seed(0)
    net, encoder = build(), clip(family.text_encoder)
    pictures = family.latents()

    def loss(rng: np.random.Generator) -> Tensor:
        scenes, latents = pictures.pick(rng, BATCH)
        words = encoded(encoder, family.tokenizer, reader, *worded(scenes, rng))
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, levels: Tensor) -> Tensor:
            found = net(
                hidden_states=noisy,
                timestep=1000 * levels,
                encoder_hidden_states=words.states,
                pooled_projections=words.pooled,
                return_dict=False,
            )
            return cast("Tensor", found[0])

        return flow_loss(predict, latents)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    seconds = fit(plan, net, loss, folder, on_save=lambda average, _: save(family, reader, average, target))
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, reader, net, target)
    return seconds
