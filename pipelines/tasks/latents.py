"""From latents to the pixels they stand for, between two calls of a pipeline."""

from typing import Any

import torch

from pipelines.engine.passes import Hand
from pipelines.latent_forms import for_decoding, pictures_in
from pipelines.pictures import Pixels, to_pixels


def decoded(vae: Any, latents: torch.Tensor, hand: Hand) -> Pixels:
    """Return what a VAE makes of latents (1 x channels x height x width) as the denoiser sees them."""
    (decoding,) = hand.perform("decode", vae, "decode", for_decoding(vae, latents), return_dict=False)
    floats = pictures_in(vae, decoding)
    return to_pixels((floats[0].float().cpu() / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy())
