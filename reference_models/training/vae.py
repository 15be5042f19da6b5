"""Train the autoencoder of the family: 128 x 128 pictures to 16 x 16 latents of four channels and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from reference_models.libraries import DIFFUSERS
from reference_models.pictures import SIDE, draw, random_scene
from reference_models.training.loop import Plan, fit

WHOLE: Final = Plan("vae", steps=1000, rate=3e-3, average=0.99)
"""Encoder and decoder together."""

DECODER: Final = Plan("vae-decoder", steps=900, rate=1.5e-3, average=0.99, seed=1)
"""The decoder alone, on latents that no longer change."""

BATCH: Final = 32
LOG_VARIANCE: Final = -6.0
"""The posterior's log variance, the same everywhere: noise of 0.05 smooths the latent space."""

_CROPPED: Final = 0.5
_SMALL_START: Final = 0.2
_PULL: Final = 2e-3


def picture_batch(rng: np.random.Generator, count: int, crop: int = SIDE) -> Tensor:
    """Return fresh pictures, cut to a random square of `crop` pixels: `[count, 3, crop, crop]`, -1 to 1."""
    pixels = np.empty((count, crop, crop, 3), np.uint8)
    for index in range(count):
        top, left = rng.integers(0, SIDE - crop + 1, size=2)
        pixels[index] = draw(random_scene(rng))[top : top + crop, left : left + crop]
    return to_tensor(pixels)


def to_tensor(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Turn bytes `[n, h, w, 3]` into `[n, 3, h, w]`, -1 to 1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def _centre_orthogonal(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    middle = conv.kernel_size[0] // 2
    nn.init.orthogonal_(conv.weight.data[:, :, middle, middle])
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _start_like_identity(vae: nn.Module) -> None:
    """Let colours pass straight through at the start; from a random start the same network learns 3 times slower."""
    for name, layer in vae.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith("to_out.0"):
            layer.weight.data.mul_(_SMALL_START)
        elif not isinstance(layer, nn.Conv2d):
            continue
        elif name.endswith(("conv_shortcut", "conv_in", "quant_conv")):
            _centre_orthogonal(layer)
        elif "downsamplers" in name:
            nn.init.zeros_(layer.weight)
            layer.weight.data[:, :, :2, :2] = torch.eye(layer.out_channels)[:, :, None, None] / 4
        elif "upsamplers" in name:
            nn.init.dirac_(layer.weight)
        elif name.endswith("conv2"):
            layer.weight.data.mul_(_SMALL_START)


def build() -> Any:
    """Return a new `AutoencoderKL` (0.7 million parameters), ready to be trained."""
    vae = DIFFUSERS.AutoencoderKL(
        block_out_channels=(8, 16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=SIDE,
    )
    _start_like_identity(vae)
    with torch.no_grad():
        pinned = vae.quant_conv
        nn.init.orthogonal_(pinned.weight.data[:4, :, 0, 0])
        pinned.weight[4:] = 0
        pinned.bias[4:] = LOG_VARIANCE
    # A gradient of zero keeps the variance where it is: the noise is part of the recipe, not learnt.
    rows = torch.ones(8)
    rows[4:] = 0
    pinned.weight.register_hook(lambda slope: slope * rows[:, None, None, None])
    pinned.bias.register_hook(lambda slope: slope * rows)
    return vae.to(memory_format=torch.channels_last)


def _reconstruct(vae: Any, pictures: Tensor) -> tuple[Tensor, Tensor]:
    mean = vae.encode(pictures).latent_dist.mean
    noisy = mean + torch.randn_like(mean) * float(np.exp(LOG_VARIANCE / 2))
    return vae.decode(noisy).sample, mean


def train(folder: Path, whole: Plan = WHOLE, decoder: Plan = DECODER) -> tuple[Any, float]:
    """Train an autoencoder with checkpoints in the folder; return it and the seconds spent."""
    torch.manual_seed(0)
    vae = build()

    def whole_loss(rng: np.random.Generator) -> Tensor:
        # Half the steps look at quarters of a picture: four times as cheap, and edges are what is hard.
        pictures = picture_batch(rng, BATCH, SIDE // 2 if rng.random() < _CROPPED else SIDE)
        drawn, mean = _reconstruct(vae, pictures)
        return (drawn - pictures).abs().mean() + (drawn - pictures).square().mean() + _PULL * mean.square().mean()

    def decoder_loss(rng: np.random.Generator) -> Tensor:
        pictures = picture_batch(rng, BATCH // 2, SIDE)
        with torch.no_grad():
            mean = vae.encode(pictures).latent_dist.mean
            noisy = mean + torch.randn_like(mean) * float(np.exp(LOG_VARIANCE / 2))
        drawn = vae.decode(noisy).sample
        return cast("Tensor", (drawn - pictures).abs().mean() + (drawn - pictures).square().mean())

    seconds = fit(whole, vae, whole_loss, folder)
    _set_scale(vae)
    halves = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    seconds += fit(decoder, vae, decoder_loss, folder, trained=halves)
    return vae, seconds


@torch.no_grad()
def _set_scale(vae: Any) -> None:
    """Write down the factor that gives latents a standard deviation of one."""
    means = vae.encode(picture_batch(np.random.default_rng(7), 256)).latent_dist.mean
    vae.register_to_config(scaling_factor=round(1 / means.std().item(), 4))
