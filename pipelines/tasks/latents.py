"""From latents to the pixels they stand for, between two calls of a pipeline."""

from typing import Any

import torch

from pipelines.engine.passes import Hand
from pipelines.pictures import Pixels, to_pixels


def decoded(vae: Any, latents: torch.Tensor, hand: Hand) -> Pixels:
    """Return what a VAE makes of latents (1 x channels x height x width) as the denoiser sees them."""
    own = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
    own = own + (getattr(vae.config, "shift_factor", None) or 0.0)
    (floats,) = hand.perform("decode", vae, "decode", own, return_dict=False)
    return to_pixels((floats[0].float().cpu() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
