"""Keep the latents of a fixed set of scenes, so that no denoiser pays for the encoder again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from reference_models.pictures import Scene, draw, random_scene
from reference_models.training.vae import to_tensor

COUNT: Final = 12_000
_BATCH: Final = 64
_SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Latents:
    """Hold scenes and their latents `[n, 4, 16, 16]`, already scaled to a standard deviation of one."""

    scenes: list[Scene]
    values: Tensor

    def pick(self, rng: np.random.Generator, count: int) -> tuple[list[Scene], Tensor]:
        """Return scenes drawn at random and their latents."""
        where = rng.integers(0, len(self.scenes), size=count)
        return [self.scenes[index] for index in where], self.values[torch.from_numpy(where)]


def _fingerprint(vae: Any, scenes: list[Scene]) -> str:
    """Name what the latents depend on: a stale file beside changed scenes would pair pictures with wrong captions."""
    digest = sha256(repr(scenes).encode())
    for weights in vae.encoder.state_dict().values():
        digest.update(weights.contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


@torch.no_grad()
def cached(vae: Any, folder: Path, count: int = COUNT) -> Latents:
    """Return the latents of the first `count` scenes, from the folder where they were made before."""
    rng = np.random.default_rng(_SEED)
    scenes = [random_scene(rng) for _ in range(count)]
    path = folder / f"latents-{_fingerprint(vae, scenes)}.safetensors"
    if path.exists():
        return Latents(scenes, load_file(path)["latents"])
    parts = []
    for first in range(0, count, _BATCH):
        pictures = to_tensor(np.stack([draw(scene) for scene in scenes[first : first + _BATCH]]))
        parts.append(vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor)
    values = torch.cat(parts).contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"latents": values}, path)
    return Latents(scenes, values)
