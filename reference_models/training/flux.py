"""Train `shapes-flux`: text to image in the layout of FLUX.1 dev, whose guidance is an input of the denoiser."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS
from reference_models.training import sides, t5, text_encoder
from reference_models.training.family import PUBLISHED as FAMILY
from reference_models.training.family import QUICK_STEPS, Family
from reference_models.training.flow import flow_loss, matrices, noise_levels, noised, start_quiet
from reference_models.training.flow import scheduler as flow_scheduler
from reference_models.training.latents import Latents
from reference_models.training.loop import Plan, fit
from reference_models.training.mixture import MOST, Mixture, large_shapes
from reference_models.training.publish import LENGTH_HINT, save_pipeline
from reference_models.training.teacher import Teacher, trust
from reference_models.training.wording import worded

NAME: Final = "shapes-flux"
PLAN: Final = Plan(
    NAME, steps=1400, rate=2e-3, final_rate=0.5, warm_up=150, average=0.998, weight_decay=0.01, seed=71, save_every=100
)
"""The first stage: pictures and noise alone, without guidance."""

TAUGHT: Final = Plan(
    f"{NAME}-taught",
    steps=400,
    rate=2e-3,
    final_rate=0.8,
    warm_up=20,
    average=0.998,
    weight_decay=0.01,
    seed=72,
    save_every=100,
)
"""The second stage: `shapes-sd15` tells what guidance makes of a prediction."""

LAST: Final = Plan(
    f"{NAME}-last", steps=1150, rate=2e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=73, save_every=100
)
"""The third stage: as the second, but mostly with large shapes in the middle."""

FINE: Final = Plan(
    f"{NAME}-fine", steps=700, rate=1.5e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=74, save_every=100
)
"""The fourth stage: the third once more, from a lower rate."""

SIDES: Final = Plan(
    f"{NAME}-sides", steps=3600, rate=1.5e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=76, save_every=100
)
"""The fifth stage: half of the batches have another side than 128 pixels."""

POLISHED: Final = Plan(
    f"{NAME}-polished", steps=2400, rate=1.5e-3, warm_up=20, average=0.997, weight_decay=0.01, seed=77, save_every=100
)
"""The sixth stage: the fifth once more."""

BATCH: Final = 24
POSTERIOR_NOISE: Final = 0.05
GUIDANCE: Final = (1.0, 6.0)
"""Range of the guidance that the second stage learns."""

PUBLISHED: Final = FAMILY.with_name(NAME)
RECOMMENDED: Final[dict[str, Any]] = {"steps": 20, "guidance_scale": 5.0, "scheduler": "Euler", LENGTH_HINT: t5.LENGTH}
_OTHER_SIDES: Final = 0.5
"""Share of the last stages' batches that have another side."""
_OTHER_PICTURES: Final = 2000

Shows = Latents | Mixture | sides.Pictures
"""What a stage draws its batches from."""


class Words(NamedTuple):
    """What the denoiser sees of captions: T5's states `[n, length, 128]` and CLIP's pooled one `[n, 64]`."""

    states: Tensor
    pooled: Tensor


def build(*, guided: bool = False) -> Any:
    """Return a new `FluxTransformer2DModel` (2.3 million parameters); a guided one takes the guidance as an input."""
    return DIFFUSERS.FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=t5.WIDTH,
        pooled_projection_dim=text_encoder.WIDTH,
        axes_dims_rope=(8, 12, 12),
        guidance_embeds=guided,
    )


def guided_from(teacher: nn.Module) -> Any:
    """Return a guided transformer that starts as the teacher, whatever the guidance."""
    net = build(guided=True)
    net.load_state_dict(teacher.state_dict(), strict=False)
    nn.init.zeros_(net.time_text_embed.guidance_embedder.linear_2.weight)
    nn.init.zeros_(net.time_text_embed.guidance_embedder.linear_2.bias)
    return net


def published(model: Path = PUBLISHED) -> Any:
    """Return the transformer of the published model, frozen and in single precision."""
    net = DIFFUSERS.FluxTransformer2DModel.from_pretrained(model / "transformer", torch_dtype=torch.float32)
    return net.requires_grad_(requires_grad=False).eval()


def packed(latents: Tensor) -> Tensor:
    """Turn latents `[n, 4, 2 h, 2 w]` into tokens `[n, h w, 16]`, as `FluxPipeline` does."""
    count, _, rows, columns = latents.shape
    cells = latents.view(count, 4, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, -1, 16)


def unpacked(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """Turn tokens `[n, h w, 16]` into latents `[n, 4, rows, columns]`."""
    cells = tokens.view(len(tokens), rows // 2, columns // 2, 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(len(tokens), 4, rows, columns)


def _places(rows: int, columns: int) -> Tensor:
    across, down = torch.meshgrid(torch.arange(rows // 2), torch.arange(columns // 2), indexing="ij")
    return torch.stack([torch.zeros_like(across), across, down], dim=-1).view(-1, 3).float()


def velocity(net: Any, noisy: Tensor, levels: Tensor, words: Words, guidance: Tensor | None = None) -> Tensor:
    """Return the predicted velocity of latents of any size: `[n, 4, rows, columns]`."""
    rows, columns = noisy.shape[2:]
    found = net(
        hidden_states=packed(noisy),
        timestep=levels,
        guidance=guidance,
        encoder_hidden_states=words.states,
        pooled_projections=words.pooled,
        img_ids=_places(rows, columns),
        txt_ids=torch.zeros(words.states.shape[1], 3),
        return_dict=False,
    )[0]
    return unpacked(found, rows, columns)


@torch.no_grad()
def encoded(family: Family, reader: t5.T5, captions: list[str], length: int) -> Words:
    """Return the captions as the pipeline shows them to the denoiser, T5's part padded to `length`."""
    states = reader.encode(captions, length)
    ids = text_encoder.tokens(family.tokenizer, captions)
    # What stands after the end token does not change it: CLIP looks backwards only.
    longest = int(ids.eq(family.text_encoder.config.eos_token_id).int().argmax(dim=1).max()) + 1
    return Words(states, cast("Tensor", family.text_encoder(ids[:, :longest]).pooler_output))


def save(family: Family, reader: t5.T5, net: nn.Module, target: Path) -> None:
    """Write the whole pipeline at half precision in place of the target folder."""
    # Copies, because the originals go on learning in single precision.
    vae = deepcopy(family.vae)
    vae.register_to_config(shift_factor=0.0)
    pipeline = DIFFUSERS.FluxPipeline(
        scheduler=flow_scheduler(),
        vae=vae,
        text_encoder=deepcopy(family.text_encoder),
        tokenizer=family.tokenizer,
        text_encoder_2=deepcopy(reader.encoder),
        tokenizer_2=reader.tokenizer,
        transformer=deepcopy(net),
    )
    save_pipeline(pipeline, target, RECOMMENDED)


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder, saving the model to the target as it grows; return the seconds spent."""
    reader, teacher = t5.shared(folder, quick=quick), Teacher(family)
    torch.manual_seed(0)
    plain = build()
    start_quiet(plain)
    pictures = family.latents()
    large = large_shapes(pictures, MOST)
    elsewhere = {side: large_shapes(others, MOST) for side, others in sides.others(family, _OTHER_PICTURES).items()}
    every = sides.Pictures(large, elsewhere, _OTHER_SIDES)
    shows: tuple[Shows, ...] = (pictures, large, large, every, every)

    def batch(rng: np.random.Generator, shown: Shows = pictures) -> tuple[Tensor, list[str], Words]:
        scenes, latents, *_ = shown.pick(rng, BATCH)
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)
        captions, length = worded(scenes, rng)
        return latents, captions, encoded(family, reader, captions, length)

    def plain_loss(rng: np.random.Generator) -> Tensor:
        latents, _captions, words = batch(rng)
        return flow_loss(lambda noisy, levels: velocity(plain, noisy, levels, words), latents)

    def keep(average: nn.Module, _step: int) -> None:
        save(family, reader, average, target)

    first, *others = (
        replace(plan, steps=QUICK_STEPS) if quick else plan for plan in (PLAN, TAUGHT, LAST, FINE, SIDES, POLISHED)
    )
    seconds = fit(first, plain, plain_loss, folder, on_save=keep)
    net = guided_from(plain)

    def taught_loss(rng: np.random.Generator, shown: Shows) -> Tensor:
        latents, captions, words = batch(rng, shown)
        count, side = len(latents), latents.shape[-1]
        levels, noise = noise_levels(count), torch.randn_like(latents)
        noisy, share = noised(latents, levels, noise), trust(levels, side)
        guidance = torch.empty(count).uniform_(*GUIDANCE)
        taught = teacher.velocity(noisy, levels, captions, 1 + (guidance - 1) * share.flatten())
        wanted = share * taught + (1 - share) * (noise - latents)
        with torch.autocast("cpu", torch.bfloat16):
            found = velocity(net, noisy, levels, words, guidance)
        return (found.float() - wanted).square().mean()

    for plan, shown in zip(others, shows, strict=True):
        loss = partial(taught_loss, shown=shown)
        seconds += fit(plan, net, loss, folder, matrices=matrices(net), on_save=keep)
    # Once more, because a run that finds its training finished has saved nothing yet.
    save(family, reader, net, target)
    return seconds
