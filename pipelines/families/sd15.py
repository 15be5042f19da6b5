"""Stable Diffusion 1.x: which pipelines of diffusers draw with it, and what they take."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey
from pipelines.families.plan import Plan
from pipelines.prompts import prompt_embeddings
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import Setting

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
        return plan_task(parameters, self._setting(parameters, inputs))

    def _setting(self, parameters: DiffusionJob, inputs: Inputs) -> Setting:
        adapted = self.adapters.adapt(
            parameters,
            inputs,
            lambda words: prompt_embeddings(
                self.pipe,
                parameters.prompt,
                # As diffusers decides whether there is guidance.
                parameters.negative_prompt if parameters.guidance_scale > 1 else None,
                words=words,
                clip_skip=parameters.clip_skip,
            ),
        )
        return Setting(
            self.pipes,
            inputs,
            self.shelf,
            self.facts.size_step,
            {**adapted.embeddings, "guidance_scale": parameters.guidance_scale},
            adapted.components,
            adapted.applied,
        )


def check_inpaints(family: Family, parameters: DiffusionJob) -> None:
    """Raise `DrawingFailed` where a network that reads a mask beside the latents is asked for a picture without one."""
    if family.pipe.unet.config.in_channels == _INPAINT_CHANNELS and parameters.task != "inpaint":
        raise DrawingFailed(f"{family.entry.name} is a checkpoint for inpainting and draws no {parameters.task}")
