"""SDXL, its refiner and its distilled kin: which pipelines of diffusers draw with them, and what they take.

Sizes are told to the network as diffusers does by itself: original and target are the size that is drawn, and nothing is cropped.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from pipelines.adapters.keys import Component
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey, Pipes
from pipelines.families.plan import Plan
from pipelines.families.refining import refined
from pipelines.families.sd15 import check_inpaints
from pipelines.previews import PreviewMatrix
from pipelines.prompts import NO_WORDS, Encoded, Words, encode_prompts, text_encoders
from pipelines.shelf import Shelf
from pipelines.tasks.planning import plan_task

_CLASSES: Mapping[PipeKey, str | type] = MappingProxyType(
    {
        PipeKey("txt2img", controlled=False): "StableDiffusionXLPipeline",
        PipeKey("img2img", controlled=False): "StableDiffusionXLImg2ImgPipeline",
        PipeKey("inpaint", controlled=False): "StableDiffusionXLInpaintPipeline",
        PipeKey("txt2img", controlled=True): "StableDiffusionXLControlNetPipeline",
        PipeKey("img2img", controlled=True): "StableDiffusionXLControlNetImg2ImgPipeline",
        PipeKey("inpaint", controlled=True): "StableDiffusionXLControlNetInpaintPipeline",
    }
)
#: The refiner is given a score where the others are given a second size, which only this pipeline knows how to.
_REFINER_CLASSES: Mapping[PipeKey, str | type] = MappingProxyType(
    {key: name for key, name in _CLASSES.items() if key == PipeKey("img2img", controlled=False)}
)


class StableDiffusionXL(Family):
    """Draw with an SDXL checkpoint."""

    name = "sdxl"
    hosted: ClassVar[tuple[Component, ...]] = ("unet", "text_encoder", "text_encoder_2")
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = _CLASSES

    def __init__(
        self, pipe: Any, entry: ModelEntry, preview_matrix: PreviewMatrix, counters: Counters, shelf: Shelf
    ) -> None:
        super().__init__(pipe, entry, preview_matrix, counters, shelf)
        if pipe.config.get("requires_aesthetics_score"):
            self.pipes = Pipes(pipe, _REFINER_CLASSES)

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of SDXL."""
        check_inpaints(self, parameters)
        if not self.pipes.draws(parameters.task):
            raise DrawingFailed(f"{self.entry.name} is a refiner and draws no {parameters.task}")
        negative = parameters.negative_prompt if is_guided(self.pipe, parameters.guidance_scale) else None

        def encode(pipe: Any, words: Words) -> Mapping[str, torch.Tensor]:
            return prompt_embeddings(pipe, parameters.prompt, negative, words=words, clip_skip=parameters.clip_skip)

        plan = plan_task(parameters, self._setting(parameters, inputs, lambda words: encode(self.pipe, words)))
        return refined(plan, parameters, inputs, self.shelf, self.adapters.words(parameters, inputs), encode)


def is_guided(pipe: Any, guidance_scale: float) -> bool:
    """Tell whether each call has a second row for the negative prompt; a network that reads the scale itself needs none."""
    return guidance_scale > 1 and pipe.unet.config.time_cond_proj_dim is None


def prompt_embeddings(
    pipe: Any, prompt: str, negative_prompt: str | None, *, words: Words = NO_WORDS, clip_skip: int = 1
) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of an SDXL pipeline; None for `negative_prompt` is without guidance.

    An empty negative prompt is nothing at all where the model was trained so: zeros, as A1111 has them, and diffusers where none is given.
    """
    nothing = negative_prompt == "" and bool(pipe.config.get("force_zeros_for_empty_prompt"))
    texts = {"": prompt}
    if negative_prompt is not None and not nothing:
        texts["negative_"] = negative_prompt
    encoded = encode_prompts(text_encoders(pipe, penultimate=True), texts, words=words, clip_skip=clip_skip)
    arguments = {name: each for start, one in encoded.items() for name, each in _named(start, one).items()}
    if nothing:
        arguments |= {f"negative_{name}": torch.zeros_like(each) for name, each in arguments.items()}
    return arguments


def _named(start: str, encoded: Encoded) -> dict[str, torch.Tensor]:
    pooled = encoded.pooled[-1]
    if pooled is None:
        raise DrawingFailed("the second text encoder says nothing of a prompt as a whole: it has no projection")
    return {f"{start}prompt_embeds": encoded.hidden, f"{start}pooled_prompt_embeds": pooled}
