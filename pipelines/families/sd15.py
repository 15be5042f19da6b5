"""Stable Diffusion 1.x: how its parameters become the arguments of diffusers' pipeline."""

from typing import Any

from jobs.contract import DiffusionParameters
from pipelines.families.base import Family
from pipelines.prompts import long_embeddings


class StableDiffusion15(Family):
    """Draw with a Stable Diffusion 1.x checkpoint."""

    name = "sd15"

    def arguments(self, parameters: DiffusionParameters) -> dict[str, Any]:
        """Return the arguments of `StableDiffusionPipeline.__call__`."""
        return {
            **long_embeddings(self.pipe, parameters.prompt, parameters.negative_prompt),
            "width": parameters.width,
            "height": parameters.height,
            "num_inference_steps": parameters.steps,
            "guidance_scale": parameters.guidance_scale,
        }
