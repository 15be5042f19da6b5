"""Bring what the whole family shares: tokenizer, text encoder, autoencoder and the latents of the scenes.

It is trained once, with the first model; what adds to that model takes it from the published folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reference_models.libraries import DIFFUSERS, TRANSFORMERS
from reference_models.pictures import Scene, draw, random_caption
from reference_models.training import latents, text_encoder, tokenizer, vae
from reference_models.training.fillers import filled

_LOG: Final = logging.getLogger(__name__)

DROPPED: Final = 0.1
"""Share of captions replaced by the empty one, which is what guidance compares with."""

SKIPPED: Final = 0.1
"""Share of batches whose captions are encoded without the text encoder's last layer."""

QUICK_STEPS: Final = 3
QUICK_PICTURES: Final = 128

PUBLISHED: Final = Path(__file__).parents[1] / "shapes-sd15"
"""The model that everything else adds to."""

Caption = Callable[[Scene, np.random.Generator], str]


def usual_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Word the scene as the family's captions do."""
    return random_caption(scene, rng)[0]


@dataclass(frozen=True, slots=True)
class Family:
    """Hold the shared parts and how long each took to train, in seconds."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    work: Path
    pictures: int = latents.COUNT
    """How many scenes are encoded at most."""
    seconds: dict[str, float] = field(default_factory=dict)

    def latents(
        self, count: int = latents.COUNT, paint: latents.Paint = draw, keep: latents.Keep | None = None
    ) -> latents.Latents:
        """Return scenes worth keeping and the latents of their pictures, encoded once."""
        count = min(count, self.pictures)
        _LOG.info("encoding %d pictures", count)
        return latents.cached(self.vae, self.work, count, paint, keep)

    def captions(self, scenes: list[Scene], rng: np.random.Generator, caption: Caption = usual_caption) -> list[str]:
        """Return the captions of the scenes, newly worded, now and then empty."""
        return ["" if rng.random() < DROPPED else filled(caption(scene, rng), rng) for scene in scenes]

    def conditions(self, scenes: list[Scene], rng: np.random.Generator, caption: Caption = usual_caption) -> Tensor:
        """Return the encoded captions of the scenes: `[n, 77, 64]`."""
        # A batch of its own now and then, so that a prompt keeps its meaning under "clip skip".
        skip = bool(rng.random() < SKIPPED)
        captions = self.captions(scenes, rng, caption)
        return text_encoder.encode(self.text_encoder, self.tokenizer, captions, skip=skip)


def prepare(folder: Path, *, quick: bool = False) -> Family:
    """Train the shared parts, or take them from the folder; `quick` only proves that the code runs."""
    words = tokenizer.build()
    reader_plan, whole, decoder, count = text_encoder.PLAN, vae.WHOLE, vae.DECODER, latents.COUNT
    if quick:
        reader_plan, whole, decoder = (replace(plan, steps=QUICK_STEPS) for plan in (reader_plan, whole, decoder))
        count = QUICK_PICTURES
    encoder, text_seconds = text_encoder.train(folder, words, reader_plan)
    autoencoder, vae_seconds = vae.train(folder, whole, decoder)
    autoencoder.requires_grad_(requires_grad=False)
    return Family(words, encoder, autoencoder, folder, count, {"text encoder": text_seconds, "vae": vae_seconds})


def published(work: Path, *, quick: bool = False, model: Path = PUBLISHED) -> Family:
    """Take the shared parts, frozen and in single precision, from a published model."""
    count = QUICK_PICTURES if quick else latents.COUNT
    return Family(
        tokenizer=TRANSFORMERS.CLIPTokenizer.from_pretrained(model / "tokenizer"),
        text_encoder=_frozen(TRANSFORMERS.CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32)),
        vae=_frozen(DIFFUSERS.AutoencoderKL.from_pretrained(model / "vae", torch_dtype=torch.float32)),
        work=work,
        pictures=count,
    )


def published_unet(model: Path = PUBLISHED) -> Any:
    """Return the denoiser of a published model, frozen and in single precision."""
    return _frozen(DIFFUSERS.UNet2DConditionModel.from_pretrained(model / "unet", torch_dtype=torch.float32))


def _frozen(module: Any) -> Any:
    return module.requires_grad_(requires_grad=False).eval()
