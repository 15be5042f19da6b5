"""A second SDXL checkpoint that draws the last of the noise away, in the same loop: its network is called in place of the first one's.

So any scheduler goes on as if nothing had happened, and where it remembers nothing the picture is that of diffusers' two calls with
`denoising_end` and `denoising_start`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from jobs.contract import DiffusionJob, Txt2ImgParameters
from jobs.errors import DrawingFailed
from jobs.inputs import Inputs
from models_registry.entries import Kind, ModelEntry
from pipelines.checkpoints import read_pipe
from pipelines.components import parts_of
from pipelines.engine.asks import Ask
from pipelines.families.plan import Plan
from pipelines.prompts import Words
from pipelines.shelf import Shelf

#: How little what the negative prompt says should please, and how much the picture: diffusers' own defaults.
_SCORES: Final = (2.5, 6.0)
#: Original size and crop, which come before the target size that a score replaces.
_SIZE_AND_CROP: Final = 4
#: What a ControlNet for the first network hands to it.
_RESIDUALS: Final = ("down_block_additional_residuals", "mid_block_additional_residual")

#: From a pipeline and words to the prompt's arguments.
Encode = Callable[[Any, Words], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Refiner:
    """A checkpoint that is kept for taking over."""

    pipe: Any

    @property
    def parts(self) -> Mapping[str, torch.nn.Module]:
        """Return what it is made of, by the names of components; the first model may have some of it too."""
        return parts_of(self.pipe)


def refined(plan: Plan, parameters: DiffusionJob, inputs: Inputs, shelf: Shelf, words: Words, encode: Encode) -> Plan:
    """Return the plan with the job's refiner, where it has one, in its last pass."""
    asked = parameters.refiner if isinstance(parameters, Txt2ImgParameters) else None
    if asked is None:
        return plan
    refiner = take_refiner(inputs.model(Kind.CHECKPOINT, asked.model), shelf)
    *before, last = plan.passes
    steps = last.pipe.scheduler.config.num_train_timesteps
    # As diffusers rounds it.
    turn = _Turn(refiner.pipe, round(steps - asked.switch_at * steps), encode(refiner.pipe, words))
    return replace(plan, passes=[*before, replace(last, instead=turn)])


def take_refiner(entry: ModelEntry, shelf: Shelf) -> Refiner:
    """Return a refiner from the shelf, raising `ModelMissing`, `ModelDamaged` or `OutOfMemory`."""

    def read(entry: ModelEntry, _device: torch.device, dtype: torch.dtype) -> Refiner:
        pipe = read_pipe(entry, shelf.components, dtype)
        # The first model decodes.
        pipe.vae = None
        return Refiner(pipe)

    refiner = shelf.take(entry, read)
    if not isinstance(refiner, Refiner):
        raise DrawingFailed(f"{entry.name} is not loaded as a refiner")
    return refiner


@dataclass(frozen=True)
class _Turn:
    """From a call of the first network to one of the second, once the noise is low enough."""

    pipe: Any
    #: Timesteps below it are the second one's.
    cutoff: int
    prompts: Mapping[str, torch.Tensor]

    def __call__(self, ask: Ask) -> Ask:
        """Return the call that is made."""
        if float(ask.args[1]) >= self.cutoff:
            return ask
        times = ask.kwargs["added_cond_kwargs"]["time_ids"]
        conditions = {"text_embeds": self._rows("pooled_prompt_embeds", times), "time_ids": self._times(times)}
        kwargs = {
            **{name: value for name, value in ask.kwargs.items() if name not in _RESIDUALS},
            "encoder_hidden_states": self._rows("prompt_embeds", times),
            "timestep_cond": None,
            "added_cond_kwargs": conditions,
        }
        return ask._replace(module=self.pipe.unet, kwargs=kwargs)

    def _rows(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Return one row, or the negative prompt's before it where there is guidance."""
        rows = [self.prompts[name]] if len(like) == 1 else [self.prompts[f"negative_{name}"], self.prompts[name]]
        return torch.cat(rows).to(like.device)

    def _times(self, times: torch.Tensor) -> torch.Tensor:
        if not self.pipe.config.get("requires_aesthetics_score"):
            return times
        scores = torch.tensor(_SCORES[-len(times) :])
        return torch.cat([times[:, :_SIZE_AND_CROP], scores[:, None].to(times)], dim=1)
