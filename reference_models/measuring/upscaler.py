"""Measure the upscalers: how near they come to pictures drawn large, compared with bicubic enlarging."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reference_models.measuring.figures import Figures
from reference_models.pictures import Pixels, draw, random_scene
from reference_models.training.upscaler import SCALES, Compact, load, shrunk

SMALL: Final = 64
_SEED: Final = 2025


def large_pictures(scale: int, count: int, small: int = SMALL) -> list[Pixels]:
    """Return pictures that no upscaler was trained on, `scale` times as large as the small ones."""
    rng = np.random.default_rng(_SEED)
    return [draw(random_scene(rng), small * scale, small * scale) for _ in range(count)]


def made_small(large: Pixels, scale: int) -> Pixels:
    """Return the picture made smaller by the mean of each square of pixels."""
    tensor = torch.from_numpy(large).permute(2, 0, 1)[None].float() / 255
    return _pixels(shrunk(tensor, scale))


def _pixels(tensor: Any) -> Pixels:
    pixels: Pixels = (tensor[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


@torch.no_grad()
def enlarged(net: Compact, small: Pixels) -> Pixels:
    """Return what the network makes of the small picture."""
    return _pixels(net(torch.from_numpy(small.copy()).permute(2, 0, 1)[None].float() / 255))


def bicubic(small: Pixels, scale: int) -> Pixels:
    """Return the small picture enlarged by bicubic interpolation."""
    height, width = small.shape[:2]
    return np.asarray(Image.fromarray(small).resize((width * scale, height * scale), Image.Resampling.BICUBIC))


def psnr(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio in decibels."""
    error = float(np.square(found.astype(np.float64) - wanted).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def measure(target: Path, count: int) -> Figures:
    """Return the mean PSNR of the upscaler and of bicubic enlarging."""
    scale, net = SCALES[target.stem], load(target)
    ours, plain = [], []
    for large in large_pictures(scale, count):
        small = made_small(large, scale)
        ours.append(psnr(enlarged(net, small), large))
        plain.append(psnr(bicubic(small, scale), large))
    return {"mean PSNR in dB": float(np.mean(ours)), "bicubic enlarging": float(np.mean(plain))}
