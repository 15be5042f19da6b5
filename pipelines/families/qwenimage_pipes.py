"""Pipelines for Qwen-Image that diffusers lacks, around those that it has: ControlNets over a picture, and several of them at once."""

import functools
import operator
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import diffusers
import torch

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
#: What a ControlNet is told of the transformer's arguments.
_TOLD: Final = ("timestep", "encoder_hidden_states", "encoder_hidden_states_mask", "img_shapes")


class SeveralControlNets(_DIFFUSERS.QwenImageMultiControlNetModel):  # type: ignore[misc]
    """Add up what several ControlNets say; the class of diffusers takes one alone, for several pictures."""

    def forward(
        self, *, controlnet_cond: Sequence[torch.Tensor], conditioning_scale: Sequence[float], **arguments: Any
    ) -> list[torch.Tensor]:
        """Return what is added behind each block of the transformer."""
        said = [
            network(controlnet_cond=picture, conditioning_scale=scale, **arguments)
            for network, picture, scale in zip(self.nets, controlnet_cond, conditioning_scale, strict=True)
        ]
        return [functools.reduce(operator.add, block) for block in zip(*said, strict=True)]


class _Weight(NamedTuple):
    """How strongly a control picture is heard, and in which part of the rounds."""

    scale: float
    start: float
    end: float

    def at(self, index: int, rounds: int) -> float:
        """Return the scale in a round, counted as the pipelines of diffusers do."""
        return self.scale * (1.0 - float(index / rounds < self.start or (index + 1) / rounds > self.end))


class _Guided:
    """Guide a pipeline over a picture by ControlNets; it does nothing else that it would not do without them."""

    def __call__(
        self,
        *,
        control_image: Any,
        controlnet_conditioning_scale: Any,
        control_guidance_start: Any,
        control_guidance_end: Any,
        **arguments: Any,
    ) -> Any:
        """Draw as the pipeline without ControlNets does, by a transformer that hears them."""
        own: Any = self
        parent: Any = super()
        weights = zip(
            *map(_listed, (controlnet_conditioning_scale, control_guidance_start, control_guidance_end)), strict=True
        )
        self._pictures = _listed(control_image)
        self._hearing = _Hearing(own, [_Weight(*each) for each in weights])
        # Through the dict, because assigning would register it in the configuration.
        vars(own)["transformer"] = self._hearing
        return parent.__call__(**arguments)

    def prepare_latents(self, *form: Any) -> Any:
        """Return what the pipeline begins with, and encode the control pictures behind it: the noise is that of a run without them."""
        own: Any = self
        parent: Any = super()
        begun = parent.prepare_latents(*form)
        _image, _timestep, count, channels, height, width, dtype, device, generator, *_ = form
        for picture in self._pictures:
            pixels = own.image_processor.preprocess(picture, height=height, width=width).to(device, dtype)
            cells = own._encode_vae_image(pixels[:, :, None], generator).transpose(1, 2)  # noqa: SLF001 - its own
            packed = own._pack_latents(cells, count, channels, *cells.shape[-2:])  # noqa: SLF001
            self._hearing.conditions.append(packed.to(dtype))
        return begun


class _Hearing:
    """A transformer that hears ControlNets: they are asked once a round, with the prompt, and heard under either prompt."""

    def __init__(self, pipe: Any, weights: Sequence[_Weight]) -> None:
        self.conditions: list[torch.Tensor] = []
        self._pipe = pipe
        self._transformer = pipe.transformer
        self._weights = weights
        self._index = -1
        self._said: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transformer, name)

    def cache_context(self, name: str) -> Any:
        """Begin a round where the pipeline turns to the prompt."""
        if name == "cond":
            self._index += 1
            self._said = None
        return self._transformer.cache_context(name)

    def __call__(self, *, hidden_states: torch.Tensor, **arguments: Any) -> Any:
        if self._said is None:
            self._said = self._ask(hidden_states, arguments)
        return self._transformer(hidden_states=hidden_states, **arguments, controlnet_block_samples=self._said)

    def _ask(self, hidden_states: torch.Tensor, arguments: Any) -> Any:
        scales = [weight.at(self._index, self._pipe.num_timesteps) for weight in self._weights]
        # A single network is called without the wrapper, and takes single values.
        alone = len(scales) == 1
        return self._pipe.controlnet(
            hidden_states=hidden_states,
            controlnet_cond=self.conditions[0] if alone else self.conditions,
            conditioning_scale=scales[0] if alone else scales,
            **{name: arguments[name] for name in _TOLD},
            return_dict=False,
        )


class QwenImageControlNetRedraw(_Guided, _DIFFUSERS.QwenImageImg2ImgPipeline):  # type: ignore[misc]
    """Draw over a picture, guided by ControlNets."""


class QwenImageControlNetInpaint(_Guided, _DIFFUSERS.QwenImageInpaintPipeline):  # type: ignore[misc]
    """Draw what a mask covers, guided by ControlNets."""


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
