"""FLUX.2: which pipelines of diffusers draw with it, and what they take.

Their loops hold a row of tokens, each of them four latents; previews and second passes see the latents that the VAE makes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import torch

from jobs.contract import DiffusionJob
from jobs.geometry import Size
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from models_registry.families import is_guided
from models_registry.vocabularies import mistral
from models_registry.vocabularies.chats import CHATS
from pipelines.adapters.keys import Component
from pipelines.chats import chat_embeddings
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.families.flux2_latents import PATCH, laid_out, unpatched
from pipelines.families.flux2_pipes import Flux2Dev, Flux2DevRedraw, Flux2Redraw
from pipelines.families.pipes import PipeKey, Pipes
from pipelines.families.plan import Plan
from pipelines.previews import PreviewMatrix
from pipelines.shelf import Shelf
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import strength_by_levels

#: Layers of the text encoder that are read side by side: of klein, and of dev.
_LAYERS: Final = (9, 18, 27)
_DEV_LAYERS: Final = (10, 20, 30)
_DEV_CLASSES: Final[Mapping[PipeKey, str | type]] = MappingProxyType(
    {
        PipeKey("txt2img", controlled=False): Flux2Dev,
        PipeKey("img2img", controlled=False): Flux2DevRedraw,
        PipeKey("inpaint", controlled=False): Flux2DevRedraw,
    }
)
#: Dimensions of latents that are no row of tokens.
_SPATIAL: Final = 4


class Flux2(Family):
    """Draw with a FLUX.2 checkpoint."""

    name = "flux2"
    asks_apart = True
    shared: ClassVar[frozenset[str]] = frozenset({"img_ids", "txt_ids"})
    hosted: ClassVar[tuple[Component, ...]] = ("transformer",)
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = MappingProxyType(
        {
            PipeKey("txt2img", controlled=False): "Flux2KleinPipeline",
            PipeKey("img2img", controlled=False): Flux2Redraw,
            PipeKey("inpaint", controlled=False): Flux2Redraw,
        }
    )

    def __init__(
        self, pipe: Any, entry: ModelEntry, preview_matrix: PreviewMatrix, counters: Counters, shelf: Shelf
    ) -> None:
        super().__init__(pipe, entry, preview_matrix, counters, shelf)
        if _reads_guidance(pipe):
            self.pipes = Pipes(pipe, _DEV_CLASSES)

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of FLUX.2."""
        guided = is_guided(self.entry, parameters.guidance_scale)
        negative = parameters.negative_prompt if guided else None
        setting = self._setting(
            parameters, inputs, lambda _words: prompt_embeddings(self.pipe, parameters.prompt, negative)
        )
        setting = replace(
            setting,
            strength=strength_by_levels(self._spec(parameters).calls_per_step),
            sized=frozenset({"txt2img", "img2img", "inpaint"}),
            spatial=self._spatial,
        )
        return plan_task(parameters, setting)

    def _spatial(self, size: Size) -> Callable[[torch.Tensor], torch.Tensor]:
        side = self.pipe.vae_scale_factor * PATCH
        rows, columns = size.height // side, size.width // side

        def spatial(latents: torch.Tensor) -> torch.Tensor:
            # What a pipeline returns undecoded is laid out already.
            return latents if latents.ndim == _SPATIAL else unpatched(laid_out(latents, rows, columns))

        return spatial


def prompt_embeddings(pipe: Any, prompt: str, negative_prompt: str | None) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of a FLUX.2 pipeline; None for `negative_prompt` is without guidance."""
    texts = {"prompt_embeds": prompt}
    if negative_prompt is not None:
        texts["negative_prompt_embeds"] = negative_prompt
    chat, layers = (mistral.CHAT, _DEV_LAYERS) if _reads_guidance(pipe) else (CHATS[Flux2.name], _LAYERS)
    # Its body alone: what its head says of the next word is not read.
    return chat_embeddings(pipe.tokenizer, pipe.text_encoder.model, texts, chat, layers)


def _reads_guidance(pipe: Any) -> bool:
    """Tell dev from klein."""
    return bool(pipe.transformer.config.guidance_embeds)
