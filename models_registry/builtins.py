"""What works without any model file: resamplers in place of an upscaler; pure."""

from typing import Final

#: In place of a registered upscaler. `latent` resamples latents and serves a second pass alone.
PIXEL_RESAMPLERS: Final = ("lanczos", "bicubic", "nearest")
LATENT_RESAMPLER: Final = "latent"
_RESAMPLERS: Final = frozenset({*PIXEL_RESAMPLERS, LATENT_RESAMPLER})


def is_resampler(name: str) -> bool:
    """Tell whether a name in an upscaler's place means a resampler."""
    return name.casefold() in _RESAMPLERS
