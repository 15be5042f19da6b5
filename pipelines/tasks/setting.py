"""What a family brings to every task, and how a pass is made of it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import diffusers
import torch

from jobs.geometry import Size
from jobs.inputs import Inputs
from pipelines.engine.passes import Pass
from pipelines.families.pipes import Pipes
from pipelines.pictures import Pixels
from pipelines.shelf import Shelf


def strength_for(count: int, steps: int) -> float:
    """Return the strength at which diffusers' pipelines with a UNet draw exactly `count` of `steps`, however its product rounds."""
    return 1.0 if count >= steps else (count + 0.5) / steps


def strength_for_flows(count: int, steps: int) -> float:
    """Return the same for pipelines that round what they leave out: those with a transformer."""
    return 1.0 if count >= steps else (count - 0.5) / steps


def strength_by_levels(calls_per_step: int) -> Callable[[int, int], float]:
    """Return the same for pipelines that hand a scheduler its noise levels: they take each of its rounds for a step."""

    def strength(count: int, steps: int) -> float:
        rounds = calls_per_step * steps - (calls_per_step - 1)
        return 1.0 if count >= steps else 1 - (steps - count + 0.5) / rounds

    return strength


def _together(networks: Sequence[Any]) -> tuple[Any, Mapping[str, Any]]:
    cls: Any = diffusers.MultiControlNetModel
    return cls(list(networks)), {}


def _plain_latents(_size: Size) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda latents: latents


def _always(_pipe: Any) -> bool:
    return True


@dataclass(frozen=True)
class Setting:
    """Everything of a plan that does not depend on the task."""

    pipes: Pipes
    inputs: Inputs
    shelf: Shelf
    #: Sides of what is drawn must be multiples of this many pixels.
    size_step: int
    #: Arguments that every pipeline takes: the prompts or their embeddings, guidance.
    arguments: Mapping[str, Any]
    #: Components in place of the pipelines' own.
    components: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: Entered around each model call.
    applied: Callable[[], AbstractContextManager[object]] = nullcontext
    #: From `count` of `steps` to the strength at which the family's pipelines draw exactly that many.
    strength: Callable[[int, int], float] = strength_for
    #: Tasks whose pipelines are told the size; the others take that of the picture.
    sized: frozenset[str] = frozenset({"txt2img", "inpaint"})
    #: Whether the denoiser reads one control picture by itself, without a ControlNet.
    reads_control: bool = False
    #: Tasks whose ControlNet pipelines call the control pictures `image`; for the others they are `control_image`.
    plain_controls: frozenset[str] = frozenset({"txt2img"})
    #: How several ControlNets are made one component, and what pipelines must be told of them beside it.
    together: Callable[[Sequence[Any]], tuple[Any, Mapping[str, Any]]] = _together
    #: From a size to how its latents are seen as channels x height x width.
    spatial: Callable[[Size], Callable[[torch.Tensor], torch.Tensor]] = _plain_latents
    #: Whether a pipeline for drawing over a picture takes its latents in its place.
    takes_latents: Callable[[Any], bool] = _always

    def vae(self, pipe: Any) -> Any:
        """Return the VAE that a pass of this pipeline uses."""
        return self.components.get("vae", pipe.vae)


@dataclass(frozen=True)
class Guided:
    """ControlNets with their pictures at the size that is drawn, as a pipeline takes them; empty without any."""

    networks: Sequence[Any] = ()
    pictures: Sequence[Pixels] = ()
    arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    components: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


def make_pass(
    setting: Setting,
    task: str,
    guided: Guided,
    size: Size,
    *,
    steps: int,
    count: int,
    arguments: Mapping[str, Any],
    **between: Any,
) -> Pass:
    """Return a pass that draws the last `count` of `steps` at a size; `between` says what it takes over from the one before."""
    return Pass(
        setting.pipes.take(task, controlled=bool(guided.networks)),
        {
            "num_inference_steps": steps,
            **setting.arguments,
            **guided.arguments,
            **(native(size) if task in setting.sized else {}),
            **arguments,
        },
        count,
        spatial=setting.spatial(size),
        components={**setting.components, **guided.components},
        **between,
    )


def native(size: Size) -> Mapping[str, int]:
    """Return a size as the arguments of a pipeline."""
    return {"width": size.width, "height": size.height}
