"""Stable Diffusion 1.x: how its parameters become the arguments of diffusers' pipeline."""

from jobs.contract import DiffusionParameters
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.families.plan import Plan
from pipelines.prompts import long_embeddings


class StableDiffusion15(Family):
    """Draw with a Stable Diffusion 1.x checkpoint."""

    name = "sd15"

    def plan(self, parameters: DiffusionParameters, inputs: Inputs) -> Plan:  # noqa: ARG002 - nothing is referred to yet
        """Return how a picture is drawn with `StableDiffusionPipeline`."""
        return Plan(
            self.pipe,
            {
                **long_embeddings(self.pipe, parameters.prompt, parameters.negative_prompt),
                "width": parameters.width,
                "height": parameters.height,
                "num_inference_steps": parameters.steps,
                "guidance_scale": parameters.guidance_scale,
            },
        )
