"""Qwen-Image: which pipelines of diffusers draw with it, and what they take.

As in FLUX.1, four latents lie in one token. Under guidance each step is two calls, because the prompts differ in length.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import torch

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.geometry import Size
from jobs.inputs import Inputs
from jobs.prompts.attention import unmarked
from models_registry.vocabularies.chats import CHATS
from pipelines.adapters.keys import Component
from pipelines.families.base import Family
from pipelines.families.flux import unpacked
from pipelines.families.pipes import PipeKey
from pipelines.families.plan import Plan
from pipelines.families.qwenimage_pipes import QwenImageControlNetInpaint, QwenImageControlNetRedraw, SeveralControlNets
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import strength_by_levels

#: Tokens that the transformer reads: what lies before the prompt is not among them.
_MOST: Final = 1024


class QwenImage(Family):
    """Draw with a Qwen-Image checkpoint."""

    name = "qwenimage"
    asks_apart = True
    hosted: ClassVar[tuple[Component, ...]] = ("transformer",)
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = MappingProxyType(
        {
            PipeKey("txt2img", controlled=False): "QwenImagePipeline",
            PipeKey("img2img", controlled=False): "QwenImageImg2ImgPipeline",
            PipeKey("inpaint", controlled=False): "QwenImageInpaintPipeline",
            PipeKey("txt2img", controlled=True): "QwenImageControlNetPipeline",
            PipeKey("img2img", controlled=True): QwenImageControlNetRedraw,
            PipeKey("inpaint", controlled=True): QwenImageControlNetInpaint,
        }
    )

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of Qwen-Image."""
        scale = parameters.guidance_scale
        negative = parameters.negative_prompt if scale > 1 else None
        setting = self._setting(
            parameters, inputs, lambda _words: prompt_embeddings(self.pipe, parameters.prompt, negative)
        )
        # Its pipelines have that name for guidance a model was distilled for.
        arguments = {name: value for name, value in setting.arguments.items() if name != "guidance_scale"}
        setting = replace(
            setting,
            arguments={**arguments, "true_cfg_scale": scale, "max_sequence_length": _MOST},
            strength=strength_by_levels(self._spec(parameters).calls_per_step),
            sized=frozenset({"txt2img", "img2img", "inpaint"}),
            plain_controls=frozenset(),
            together=_together,
            spatial=self._spatial,
        )
        return plan_task(parameters, setting)

    def _spatial(self, size: Size) -> Callable[[torch.Tensor], torch.Tensor]:
        factor = self.pipe.vae_scale_factor
        return lambda latents: unpacked(latents, Size(size.width // factor, size.height // factor))


def prompt_embeddings(pipe: Any, prompt: str, negative_prompt: str | None) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of a Qwen-Image pipeline, as diffusers' `encode_prompt` makes them, bit for bit.

    None for `negative_prompt` is without guidance. The transformer brings each token's vector to one length before it reads it, so that
    weighing them would do nothing: the marks of emphasis are left out. Raises `DrawingFailed` for more tokens than the model knows.
    """
    texts = {"": prompt} if negative_prompt is None else {"": prompt, "negative_": negative_prompt}
    arguments = {}
    for start, text in texts.items():
        hidden = _encode(pipe, unmarked(text))
        arguments[f"{start}prompt_embeds"] = hidden
        # Every token is there to be read; diffusers would wonder aloud without being told.
        arguments[f"{start}prompt_embeds_mask"] = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
    return arguments


def _encode(pipe: Any, text: str) -> torch.Tensor:
    """Return what is said of each token of a prompt within its template, 1 x tokens x width."""
    chat = CHATS["qwenimage"]
    tokens = pipe.tokenizer([chat.before + text + chat.behind], return_tensors="pt", verbose=False)
    count = tokens.input_ids.shape[1]
    if count > chat.longest:
        around = len(pipe.tokenizer(chat.before + chat.behind).input_ids)
        raise DrawingFailed(
            f"the prompt has {count - around} tokens, of which this model reads at most {chat.longest - around}"
        )
    encoder = pipe.text_encoder
    tokens = tokens.to(encoder.device)
    # Without the last layer, which says for each token what word could follow: it is large, and nobody asks.
    hidden = encoder.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, use_cache=False)[0]
    said: torch.Tensor = hidden[:, chat.longest - _MOST :]
    return said


def _together(networks: Sequence[Any]) -> tuple[Any, Mapping[str, Any]]:
    if len({len(each.controlnet_blocks) for each in networks}) > 1:
        raise DrawingFailed("these ControlNets have different numbers of layers: what they say cannot be added up")
    return SeveralControlNets(list(networks)), {}
