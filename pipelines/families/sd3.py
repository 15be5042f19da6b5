"""Stable Diffusion 3 and 3.5: which pipelines of diffusers draw with them, and what they take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import diffusers
import torch
from torch.nn import functional

from jobs.contract import DiffusionJob
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from pipelines.adapters.keys import Component
from pipelines.families.base import Family
from pipelines.families.pipes import PipeKey
from pipelines.families.plan import Plan
from pipelines.families.sd3_pipes import Sd3ControlNetRedraw, Sd3Inpaint, SettledVae
from pipelines.prompts import encode_prompts, text_encoders
from pipelines.t5 import t5_embeddings
from pipelines.tasks.planning import plan_task
from pipelines.tasks.setting import strength_for_flows

#: Tokens of T5 that the published models are shown.
_T5_TOKENS: Final = 256


class StableDiffusion3(Family):
    """Draw with a Stable Diffusion 3 or 3.5 checkpoint."""

    name = "sd3"
    hosted: ClassVar[tuple[Component, ...]] = ("transformer", "text_encoder", "text_encoder_2")
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]] = MappingProxyType(
        {
            PipeKey("txt2img", controlled=False): "StableDiffusion3Pipeline",
            PipeKey("img2img", controlled=False): "StableDiffusion3Img2ImgPipeline",
            PipeKey("inpaint", controlled=False): Sd3Inpaint,
            PipeKey("txt2img", controlled=True): "StableDiffusion3ControlNetPipeline",
            PipeKey("img2img", controlled=True): Sd3ControlNetRedraw,
            PipeKey("inpaint", controlled=True): Sd3ControlNetRedraw,
        }
    )

    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture is drawn with the pipelines of Stable Diffusion 3."""
        negative = parameters.negative_prompt if parameters.guidance_scale > 1 else None
        setting = self._setting(
            parameters, inputs, lambda _words: prompt_embeddings(self.pipe, parameters.prompt, negative)
        )
        components = dict(setting.components)
        if parameters.controls:
            # Control pictures are encoded without the run's generator.
            components["vae"] = SettledVae(components.get("vae", self.pipe.vae))
        setting = replace(
            setting,
            components=components,
            strength=strength_for_flows,
            sized=frozenset({"txt2img", "img2img", "inpaint"}),
            plain_controls=frozenset(),
            together=_together,
        )
        return plan_task(parameters, setting)


def prompt_embeddings(pipe: Any, prompt: str, negative_prompt: str | None) -> dict[str, torch.Tensor]:
    """Return the prompt arguments of a Stable Diffusion 3 pipeline; None for `negative_prompt` is without guidance.

    What both CLIP encoders say lies before what T5 says, filled up to its width. A checkpoint without T5 has zeros there.
    """
    texts = {"": prompt} if negative_prompt is None else {"": prompt, "negative_": negative_prompt}
    clip = encode_prompts(text_encoders(pipe, penultimate=True), texts)
    t5 = _t5(pipe, texts)
    arguments = {}
    for start, encoded in clip.items():
        missing = t5[start].shape[-1] - encoded.hidden.shape[-1]
        arguments[f"{start}prompt_embeds"] = torch.cat([functional.pad(encoded.hidden, (0, missing)), t5[start]], dim=1)
        arguments[f"{start}pooled_prompt_embeds"] = torch.cat(_pooled(encoded.pooled), dim=-1)
    return arguments


def _t5(pipe: Any, texts: Mapping[str, str]) -> dict[str, torch.Tensor]:
    if pipe.text_encoder_3 is not None:
        return t5_embeddings(pipe.tokenizer_3, pipe.text_encoder_3, texts, _T5_TOKENS)
    width = pipe.transformer.config.joint_attention_dim
    nothing = torch.zeros(1, _T5_TOKENS, width, device=pipe.text_encoder.device, dtype=pipe.text_encoder.dtype)
    return dict.fromkeys(texts, nothing)


def _pooled(each: Sequence[torch.Tensor | None]) -> list[torch.Tensor]:
    found = [one for one in each if one is not None]
    if len(found) != len(each) or not found:
        raise DrawingFailed("a text encoder says nothing of a prompt as a whole: it has no projection")
    return found


def _together(networks: Sequence[Any]) -> tuple[Any, Mapping[str, Any]]:
    cls: Any = diffusers.SD3MultiControlNetModel
    return cls(list(networks)), {}
