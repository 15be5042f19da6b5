"""Keep the latents of a fixed set of scenes, so that no denoiser pays for the encoder again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_models.pictures import Pixels, Scene, draw, random_scene
from reference_models.training.vae import to_tensor

COUNT: Final = 12_000
_BATCH: Final = 64
_SEED: Final = 11
_LOOKED_AT: Final = 8

Paint = Callable[[Scene], Pixels]
Keep = Callable[[Scene], bool]


@dataclass(frozen=True, slots=True)
class Latents:
    """Hold scenes and their latents `[n, 4, 16, 16]`, already scaled to a standard deviation of one."""

    scenes: list[Scene]
    values: Tensor

    def pick(self, rng: np.random.Generator, count: int) -> tuple[list[Scene], Tensor]:
        """Return scenes drawn at random and their latents."""
        where = rng.integers(0, len(self.scenes), size=count)
        return [self.scenes[index] for index in where], self.values[torch.from_numpy(where)]


def _fingerprint(vae: Any, scenes: list[Scene], paint: Paint) -> str:
    """Name what the latents depend on: a stale file beside changed scenes would pair pictures with wrong captions."""
    digest = sha256(repr(scenes).encode())
    for scene in scenes[:_LOOKED_AT]:
        digest.update(paint(scene).tobytes())
    for weights in vae.encoder.state_dict().values():
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def scenes_of(count: int, keep: Keep | None = None) -> list[Scene]:
    """Return the first `count` scenes of the fixed series that are worth keeping."""
    rng = np.random.default_rng(_SEED)
    series = (random_scene(rng) for _ in iter(int, 1))
    return list(islice(filter(keep, series), count) if keep else islice(series, count))


@torch.no_grad()
def encoded(vae: Any, pixels: list[Pixels]) -> Tensor:
    """Return the scaled latents of the pictures: `[n, 4, 16, 16]`."""
    parts = []
    for first in range(0, len(pixels), _BATCH):
        pictures = to_tensor(np.stack(pixels[first : first + _BATCH]))
        parts.append(vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor)
    return torch.cat(parts).contiguous()


def cached(vae: Any, folder: Path, count: int = COUNT, paint: Paint = draw, keep: Keep | None = None) -> Latents:
    """Return the latents of the first `count` scenes, painted, from the folder where they were made before."""
    scenes = scenes_of(count, keep)
    path = folder / f"latents-{_fingerprint(vae, scenes, paint)}.safetensors"
    if path.exists():
        return Latents(scenes, load_file(path)["latents"])
    values = encoded(vae, [paint(scene) for scene in scenes])
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": values}, path)
    return Latents(scenes, values)
