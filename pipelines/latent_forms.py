"""What latents of a VAE are like, and how they become those that a denoiser sees: by one shift and scale, or a mean and spread a channel.

Where a denoiser sees several cells as one, each place in it has a mean and a spread of its own.

VAEs that were made for films have an axis for frames before height and width; a picture is a film of one.
"""

from typing import Any

import torch


def has_frames(vae: Any) -> bool:
    """Tell whether a VAE takes films."""
    return hasattr(vae.config, "z_dim")


def channels_of(vae: Any) -> int:
    """Return how many channels the latents have."""
    return int(vae.config.z_dim if has_frames(vae) else vae.config.latent_channels)


def factor_of(vae: Any) -> int:
    """Return the pixels per latent cell."""
    levels = vae.config.dim_mult if has_frames(vae) else vae.config.block_out_channels
    return int(2 ** (len(levels) - 1))


def encoded(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Return the latents of pictures (n x 3 x height x width, -1 to 1) as a denoiser sees them: n x channels x height x width, float32."""
    given = pictures.to(vae.device, vae.dtype)
    if has_frames(vae):
        given = given[:, :, None]
    latents: torch.Tensor = vae.encode(given).latent_dist.mode().float().cpu()
    if has_frames(vae):
        latents = latents[:, :, 0]
    mean, spread = _mean_and_spread(vae, latents)
    seen: torch.Tensor = (latents - mean) / spread
    return seen


def for_decoding(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return latents as a denoiser sees them (n x channels x height x width) as the VAE decodes them, with frames where it has such."""
    seen = latents.to(vae.device, vae.dtype)
    mean, spread = _mean_and_spread(vae, seen)
    own: torch.Tensor = seen * spread + mean
    return own[:, :, None] if has_frames(vae) else own


def pictures_in(vae: Any, decoded: torch.Tensor) -> torch.Tensor:
    """Return what a VAE decoded as n x 3 x height x width."""
    return decoded[:, :, 0] if has_frames(vae) else decoded


def _mean_and_spread(vae: Any, latents: torch.Tensor) -> tuple[Any, Any]:
    """Return what lies in the middle of a VAE's latents, and how far they spread, by channel and place where they differ."""
    if hasattr(vae, "bn"):
        deviation = torch.sqrt(vae.bn.running_var + vae.config.batch_norm_eps)
        return _tiled(vae, vae.bn.running_mean, latents), _tiled(vae, deviation, latents)
    if not has_frames(vae):
        return getattr(vae.config, "shift_factor", None) or 0.0, 1 / vae.config.scaling_factor
    mean, spread = (
        torch.tensor(figures, device=latents.device, dtype=latents.dtype)[:, None, None]
        for figures in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, spread


def _tiled(vae: Any, figures: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Return figures of the cells that are seen as one, channel by channel, laid over latents."""
    rows, columns = vae.config.patch_size
    channels, height, width = latents.shape[-3:]
    cell = figures.to(latents.device, latents.dtype).view(channels, rows, columns)
    return cell.repeat(1, height // rows, width // columns)
