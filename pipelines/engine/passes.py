"""What a run is made of: calls of diffusers pipelines one after another, each with a scheduler of its own.

Knows no task: what is handed from one pass to the next, and how, is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import torch

from pipelines.engine.asks import Ask, Kind


class Hand(Protocol):
    """What may be used between two passes: the run's noise, and calls that wait for the engine like all others."""

    @property
    def generator(self) -> torch.Generator:
        """Return the run's CPU generator."""
        ...

    def perform(self, kind: Kind, module: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Ask for a call and wait for its answer."""
        ...


def _nothing(_value: Any, _hand: Hand) -> Mapping[str, Any]:
    return {}


def _same(ask: Ask) -> Ask:
    return ask


def _as_they_are(latents: torch.Tensor) -> torch.Tensor:
    return latents


@dataclass(frozen=True)
class Pass:
    """One call of a pipeline."""

    #: The diffusers pipeline whose `__call__` is run.
    pipe: Any
    #: Keyword arguments of that call, `num_inference_steps` among them; the generator and the callback apart.
    arguments: Mapping[str, Any]
    #: How many steps it draws, as the user counts them; a pipeline that counts otherwise is refused.
    steps: int
    #: From the latents of its loop to channels x height x width: some pipelines keep them as a row of tokens.
    spatial: Callable[[torch.Tensor], torch.Tensor] = _as_they_are
    #: From a call of the denoiser to the one that is made in its place: a second model may take over.
    instead: Callable[[Ask], Ask] = _same
    #: Components that this call has instead of the pipeline's own: another VAE, ControlNets.
    components: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: From what the pass before returned (None for the first) to the tensors this one needs of it: a checkpoint keeps no more of it.
    carry: Callable[[Any, Hand], Mapping[str, torch.Tensor]] = _nothing
    #: From the carried tensors to further arguments.
    enter: Callable[[Mapping[str, torch.Tensor], Hand], Mapping[str, Any]] = _nothing
