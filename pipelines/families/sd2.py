"""Stable Diffusion 2.x: the pipelines of 1.x around another text encoder.

What the network predicts, and whether the noise ends in a signal of zero, comes with the scheduler's configuration.
"""

from pipelines.families.sd15 import StableDiffusion15


class StableDiffusion2(StableDiffusion15):
    """Draw with a Stable Diffusion 2.x checkpoint."""

    name = "sd2"
