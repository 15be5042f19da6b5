"""FLUX.1: which pipelines of diffusers draw with it, and what they take.

Four latents lie in one token, and the pipelines' loops hold a row of tokens; previews and second passes see them as pictures again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import diffusers
import torch

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.geometry import Size
from jobs.inputs import Inputs
from models_registry.entries import ModelEntry
from models_registry.families import Guidance, facts_of
from pipelines.adapters.keys import Component
from pipelines.engine.engine import Counters
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey, Pipes
from pipelines.families.plan import Plan
from pipelines.previews import PreviewMatrix
from pipelines.shelf import Shelf
from pipelines.t5 import plain_text, t5_embeddings
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import strength_by_levels

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers

_CLASSES: Final[Mapping[PipeKey, str | type]] = MappingProxyType(
    {
        PipeKey("txt2img", controlled=False): "FluxPipeline",
        PipeKey("img2img", controlled=False): "FluxImg2ImgPipeline",
        PipeKey("inpaint", controlled=False): "FluxInpaintPipeline",
        PipeKey("txt2img", controlled=True): "FluxControlNetPipeline",
        PipeKey("img2img", controlled=True): "FluxControlNetImg2ImgPipeline",
        PipeKey("inpaint", controlled=True): "FluxControlNetInpaintPipeline",
    }
)
#: Of the checkpoint whose first layer reads a masked picture and its mask beside the latents.
_FILL_CLASSES: Final[Mapping[PipeKey, str | type]] = MappingProxyType(
    {PipeKey("inpaint", controlled=False): "FluxFillPipeline"}
)
#: Of those whose first layer reads a control picture.
_CONTROL_CLASSES: Final[Mapping[PipeKey, str | type]] = MappingProxyType(
    {
        PipeKey("txt2img", controlled=False): "FluxControlPipeline",
        PipeKey("img2img", controlled=False): "FluxControlImg2ImgPipeline",
    }
)
#: Tokens of T5 that the published models are shown: the distilled one fewer.
_T5_TOKENS: Final = 512
_T5_TOKENS_DISTILLED: Final = 256
_PATCH: Final = 2


class Flux(Family):
    """Draw with a FLUX.1 checkpoint."""

    name = "flux"
    shared: ClassVar[frozenset[str]] = frozenset({"img_ids", "txt_ids"})
    hosted: ClassVar[tuple[Component, ...]] = ("transformer", "text_encoder")
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = _CLASSES

    def __init__(
        self, pipe: Any, entry: ModelEntry, preview_matrix: PreviewMatrix, counters: Counters, shelf: Shelf
    ) -> None:
        super().__init__(pipe, entry, preview_matrix, counters, shelf)
        read = pipe.transformer.config.in_channels // (_PATCH**2 * pipe.vae.config.latent_channels)
        #: Whether the first layer reads one control picture beside the latents.
        self.reads_control = read == 2  # noqa: PLR2004 - the latents and the control picture's
        if read > 1:
            self.pipes = Pipes(pipe, _CONTROL_CLASSES if self.reads_control else _FILL_CLASSES)

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of FLUX.1."""
        if not self.pipes.draws(parameters.task):
            raise DrawingFailed(f"{self.entry.name} draws no {parameters.task}")
        setting = self._setting(
            parameters, inputs, lambda _words: prompt_embeddings(self.pipe, parameters.prompt, self._tokens)
        )
        setting = replace(
            setting,
            strength=strength_by_levels(self._spec(parameters).calls_per_step),
            sized=frozenset({"txt2img", "img2img", "inpaint"}),
            reads_control=self.reads_control,
            plain_controls=frozenset(),
            together=_together,
            spatial=self._spatial,
            takes_latents=lambda pipe: isinstance(pipe, _DIFFUSERS.FluxImg2ImgPipeline),
        )
        return plan_task(parameters, setting)

    @property
    def _tokens(self) -> int:
        return _T5_TOKENS_DISTILLED if facts_of(self.entry).guidance is Guidance.NONE else _T5_TOKENS

    def _spatial(self, size: Size) -> Callable[[torch.Tensor], torch.Tensor]:
        factor = self.pipe.vae_scale_factor
        return lambda latents: unpacked(latents, Size(size.width // factor, size.height // factor))


def unpacked(tokens: torch.Tensor, cells: Size) -> torch.Tensor:
    """Return a row of tokens (n x places x 4 channels) as latents, n x channels x height x width; `cells` counts latents."""
    rows, columns = cells.height // _PATCH, cells.width // _PATCH
    count, _, width = tokens.shape
    split = tokens.view(count, rows, columns, width // _PATCH**2, _PATCH, _PATCH).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(count, width // _PATCH**2, rows * _PATCH, columns * _PATCH)


def prompt_embeddings(pipe: Any, prompt: str, t5_tokens: int) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of a FLUX.1 pipeline: what T5 says of each token, and CLIP of the beginning as a whole."""
    ids = pipe.tokenizer(
        plain_text(prompt),
        padding="max_length",
        max_length=pipe.tokenizer.model_max_length,
        truncation=True,
        verbose=False,
        return_tensors="pt",
    ).input_ids
    pooled = pipe.text_encoder(ids.to(pipe.text_encoder.device)).pooler_output
    t5 = t5_embeddings(pipe.tokenizer_2, pipe.text_encoder_2, {"": prompt}, t5_tokens)
    return {"prompt_embeds": t5[""], "pooled_prompt_embeds": pooled}


def _together(networks: Sequence[Any]) -> tuple[Any, Mapping[str, Any]]:
    # Each pipeline reads a list, and some read nothing else.
    return _DIFFUSERS.FluxMultiControlNetModel(list(networks)), {"control_mode": [None] * len(networks)}
