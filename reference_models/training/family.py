"""Make what the whole family shares, once: tokenizer, text encoder, autoencoder and the latents of the scenes."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from reference_models.pictures import Scene, random_caption
from reference_models.training import latents, text_encoder, tokenizer, vae
from reference_models.training.fillers import filled

_LOG: Final = logging.getLogger(__name__)

DROPPED: Final = 0.1
"""Share of captions replaced by the empty one, which is what guidance compares with."""

SKIPPED: Final = 0.1
"""Share of batches whose captions are encoded without the text encoder's last layer."""

QUICK_STEPS: Final = 3
QUICK_PICTURES: Final = 128


@dataclass(frozen=True, slots=True)
class Family:
    """Hold the shared parts and how long each took to train, in seconds."""

    tokenizer: Any
    text_encoder: Any
    vae: Any
    latents: latents.Latents
    seconds: dict[str, float]

    def conditions(self, scenes: list[Scene], rng: np.random.Generator) -> Tensor:
        """Return the encoded captions of the scenes, newly worded, now and then empty: `[n, 77, 64]`."""
        # A batch of its own now and then, so that a prompt keeps its meaning under "clip skip".
        skip = bool(rng.random() < SKIPPED)
        captions = ["" if rng.random() < DROPPED else filled(random_caption(scene, rng)[0], rng) for scene in scenes]
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
    _LOG.info("encoding %d pictures", count)
    seconds = {"text encoder": text_seconds, "vae": vae_seconds}
    with torch.no_grad():
        return Family(words, encoder, autoencoder, latents.cached(autoencoder, folder, count), seconds)
