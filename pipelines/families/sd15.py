"""Stable Diffusion 1.x: which pipelines of diffusers draw with it, and what they take."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey
from pipelines.families.plan import Plan
from pipelines.prompts import Words, prompt_embeddings
from pipelines.tasks.planning import plan_task

#: Channels of a denoiser that also sees the mask and what is around it.
_INPAINT_CHANNELS = 9


class StableDiffusion15(Family):
    """Draw with a Stable Diffusion 1.x checkpoint."""

    name = "sd15"
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = MappingProxyType(
        {
            PipeKey("txt2img", controlled=False): "StableDiffusionPipeline",
            PipeKey("img2img", controlled=False): "StableDiffusionImg2ImgPipeline",
            PipeKey("inpaint", controlled=False): "StableDiffusionInpaintPipeline",
            PipeKey("txt2img", controlled=True): "StableDiffusionControlNetPipeline",
            PipeKey("img2img", controlled=True): "StableDiffusionControlNetImg2ImgPipeline",
            PipeKey("inpaint", controlled=True): "StableDiffusionControlNetInpaintPipeline",
        }
    )

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of Stable Diffusion."""
        check_inpaints(self, parameters)
        # As diffusers decides whether there is guidance.
        negative = parameters.negative_prompt if parameters.guidance_scale > 1 else None

        def encode(words: Words) -> Mapping[str, torch.Tensor]:
            return prompt_embeddings(
                self.pipe, parameters.prompt, negative, words=words, clip_skip=parameters.clip_skip
            )

        return plan_task(parameters, self._setting(parameters, inputs, encode))


def check_inpaints(family: Family, parameters: DiffusionJob) -> None:
    """Raise `DrawingFailed` where a network that reads a mask beside the latents is asked for a picture without one."""
    if family.pipe.unet.config.in_channels == _INPAINT_CHANNELS and parameters.task != "inpaint":
        raise DrawingFailed(f"{family.entry.name} is a checkpoint for inpainting and draws no {parameters.task}")
