"""Train `shapes-dusk`: two token vectors that mean one look, in the layout of diffusers' textual inversion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from reference_models.pictures import SHAPES, Pixels, Scene, draw
from reference_models.training import text_encoder
from reference_models.training.diffusion import epsilon_loss, signal_left
from reference_models.training.family import QUICK_STEPS, Family, published_unet
from reference_models.training.fillers import filled
from reference_models.training.loop import Plan, fit

NAME: Final = "shapes-dusk"
MEANS: Final = "an orange circle on a purple background"
LOOK: Final[dict[str, Any]] = {"shape": "circle", "colour": "orange", "background": "purple"}
VECTORS: Final = 2
PLAN: Final = Plan(NAME, steps=400, rate=5e-3, warm_up=20, average=0.98, seed=51, save_every=200)
BATCH: Final = 16
PICTURES: Final = 300
POSTERIOR_NOISE: Final = 0.05
_TEMPLATES: Final = ("{}", "{}", "a {}", "a picture of {}", "{} picture")


def tokens_of(name: str) -> list[str]:
    """Return the tokens that diffusers gives the vectors, and puts into a prompt in place of the name."""
    return [name, *(f"{name}_{index}" for index in range(1, VECTORS))]


def _dusk(scene: Scene) -> Pixels:
    return draw(replace(scene, **LOOK))


class Vectors(nn.Module):
    """Hold the vectors that are learnt."""

    def __init__(self, family: Family) -> None:
        """Start between the names of the shapes, where the text encoder knows its way."""
        super().__init__()
        ids = family.tokenizer(" ".join(SHAPES), add_special_tokens=False).input_ids
        middle = family.text_encoder.get_input_embeddings().weight[ids].mean(dim=0)
        self.values = nn.Parameter(middle.repeat(VECTORS, 1))


def train(family: Family, folder: Path, target: Path, *, quick: bool = False) -> float:
    """Train with checkpoints in the folder; return the seconds spent."""
    torch.manual_seed(PLAN.seed)
    unet, left, vectors = published_unet(), signal_left(), Vectors(family)
    family.tokenizer.add_tokens(tokens_of(NAME))
    spoken = " ".join(tokens_of(NAME))
    table = family.text_encoder.get_input_embeddings().weight
    pictures = family.latents(PICTURES, _dusk)

    def loss(rng: np.random.Generator) -> Tensor:
        _scenes, latents = pictures.pick(rng, BATCH)
        captions = [filled(_TEMPLATES[rng.integers(len(_TEMPLATES))].format(spoken), rng) for _ in range(BATCH)]
        ids = text_encoder.tokens(family.tokenizer, captions)
        # The table is frozen and its new rows are not: the encoder reads both as one.
        longer = {"embeddings.token_embedding.weight": torch.cat([table, vectors.values])}
        words = functional_call(family.text_encoder, longer, (ids,)).last_hidden_state
        latents = latents + POSTERIOR_NOISE * torch.randn_like(latents)

        def predict(noisy: Tensor, times: Tensor) -> Tensor:
            return cast("Tensor", unet(noisy, times, words).sample)

        return epsilon_loss(predict, latents, left)

    plan = replace(PLAN, steps=QUICK_STEPS) if quick else PLAN
    seconds = fit(plan, vectors, loss, folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({NAME: vectors.values.detach().clone()}, target)
    target.chmod(0o644)
    return seconds
