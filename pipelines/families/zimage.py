"""Z-Image: which pipelines of diffusers draw with it, and what they take.

Its transformer reads and answers lists, a row each: prompts of different lengths lie side by side.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import torch

from jobs.contract import DiffusionJob
from jobs.inputs import Inputs
from models_registry.families import is_guided
from models_registry.vocabularies.chats import CHATS
from pipelines.adapters.keys import Component
from pipelines.chats import chat_states
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey
from pipelines.families.plan import Plan
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import strength_by_levels

#: Of the text encoder, the layer before its last one is read.
_LAYER: Final = -2


class ZImage(Family):
    """Draw with a Z-Image checkpoint."""

    name = "zimage"
    hosted: ClassVar[tuple[Component, ...]] = ("transformer",)
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = MappingProxyType(
        {
            PipeKey("txt2img", controlled=False): "ZImagePipeline",
            PipeKey("img2img", controlled=False): "ZImageImg2ImgPipeline",
            PipeKey("inpaint", controlled=False): "ZImageInpaintPipeline",
        }
    )

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of Z-Image."""
        guided = is_guided(self.entry, parameters.guidance_scale)
        negative = parameters.negative_prompt if guided else None
        setting = self._setting(
            parameters, inputs, lambda _words: prompt_embeddings(self.pipe, parameters.prompt, negative)
        )
        setting = replace(
            setting,
            # At any scale above it the pipelines ask for the negative prompt's row.
            arguments={**setting.arguments, "guidance_scale": parameters.guidance_scale if guided else 0.0},
            strength=strength_by_levels(self._spec(parameters).calls_per_step),
            sized=frozenset({"txt2img", "img2img", "inpaint"}),
            # Its pipeline takes latents of four channels for latents, and all others for pictures.
            takes_latents=lambda _pipe: False,
        )
        return plan_task(parameters, setting)


def prompt_embeddings(pipe: Any, prompt: str, negative_prompt: str | None) -> dict[str, list[torch.Tensor]]:
    """Return the prompt arguments of a Z-Image pipeline, a list of one each; None for `negative_prompt` is without guidance."""
    texts = {"": prompt} if negative_prompt is None else {"": prompt, "negative_": negative_prompt}
    return {
        f"{start}prompt_embeds": [chat_states(pipe.tokenizer, pipe.text_encoder, text, CHATS[ZImage.name], _LAYER)]
        for start, text in texts.items()
    }
