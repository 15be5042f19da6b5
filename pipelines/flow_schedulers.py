"""Schedulers for models that predict a flow, as every pipeline of such models calls them.

The classes of diffusers each fit some of its pipelines: one takes no noise levels, another no shift by the picture's size, a third
cannot noise a picture to begin from. These fit all; where a class of diffusers is called as it can be, the numbers are its own.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import diffusers
import numpy as np
import torch

#: The library ships no types for these classes.
_DIFFUSERS: Any = diffusers
#: Settings by which pipelines compute the shift of a picture's size, and the noise level that the last step begins at; they are looked
#: for in the scheduler's configuration.
_SHIFTING = (
    "use_dynamic_shifting",
    "time_shift_type",
    "base_image_seq_len",
    "max_image_seq_len",
    "base_shift",
    "max_shift",
    "shift_terminal",
)
_TRAILING = "trailing"


class _Flow:
    """What a run may set beside what the classes of diffusers know."""

    #: `trailing` ends one step above no noise, `linspace` at the least noise of the training; None leaves it to the pipeline.
    spacing: str | None = None
    #: How many steps from noise are left out before those that are drawn, for pipelines that have no strength of their own.
    left_out: int = 0

    def stretch_shift_to_terminal(self, t: Any) -> Any:
        """Return the steps' noise levels with the last one where the model's own scheduler wants it; one step alone begins at noise."""
        return t if len(t) == 1 else super().stretch_shift_to_terminal(t)  # type: ignore[misc]

    def _leave_out(self) -> None:
        if self.left_out:
            own: Any = self
            own.num_inference_steps -= self.left_out
            begin = self.left_out * own.order
            own.timesteps = own.timesteps[begin:]
            own.set_begin_index(begin)


class FlowEuler(_Flow, _DIFFUSERS.FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Take straight steps, spaced as the pipeline wants it or as was asked."""

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """Choose the noise levels of a run."""
        if num_inference_steps is not None:
            num_inference_steps += self.left_out
        if self.spacing is not None:
            # Pipelines that bring levels of their own do not say how many.
            num_inference_steps = len(sigmas) if num_inference_steps is None else num_inference_steps
            sigmas = _trailing(num_inference_steps) if self.spacing == _TRAILING else None
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu, timesteps=timesteps)
        self._leave_out()


class FlowHeun(_Flow, _DIFFUSERS.FlowMatchHeunDiscreteScheduler):  # type: ignore[misc]
    """Ask twice a step, at noise levels that may be given and shifted by the picture's size."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        """Choose the noise levels of a run; all but the first are asked for twice."""
        if num_inference_steps is None:
            num_inference_steps = len(sigmas)
        num_inference_steps += self.left_out
        if self.spacing is not None:
            sigmas = _trailing(num_inference_steps) if self.spacing == _TRAILING else None
        super().set_timesteps(num_inference_steps, device=device)
        if sigmas is None:
            # Euler's too are shifted twice where the shift does not depend on the size.
            least = 1 / self.config.num_train_timesteps if _by_size(self.config) else self.sigma_min
            sigmas = np.linspace(self.sigma_max, least, num_inference_steps)
        shift = _shift(self.config, mu)
        levels = np.asarray(sigmas, np.float64)
        levels = _stretched(shift * levels / (1 + (shift - 1) * levels), self.config)
        once = torch.from_numpy(levels).to(dtype=torch.float32, device=device)
        twice = torch.cat([once[:1], once[1:].repeat_interleave(2)])
        self.timesteps = twice * self.config.num_train_timesteps
        self.sigmas = torch.cat([twice, twice.new_zeros(1)])
        self._leave_out()


class FlowLcm(_Flow, _DIFFUSERS.FlowMatchLCMScheduler):  # type: ignore[misc]
    """Guess the end at each step and noise it again."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        """Choose the noise levels of a run."""
        if num_inference_steps is not None:
            num_inference_steps += self.left_out
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu)
        self._leave_out()


class _Multistep(_Flow):
    """What the solvers that were made for noise lack for flows."""

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        """Choose the noise levels of a run: the solver's own, because it cannot begin at noise alone."""
        if num_inference_steps is None:
            num_inference_steps = len(sigmas)
        num_inference_steps += self.left_out
        parent: Any = super()
        if _by_size(self.config):  # type: ignore[attr-defined]
            parent.set_timesteps(num_inference_steps, device=device, mu=mu)
        else:
            parent.set_timesteps(num_inference_steps, device=device)
        self._stretch()
        self._leave_out()

    def _stretch(self) -> None:
        """Bring the last step's noise level to where the model's own scheduler has it."""
        own: Any = self
        if own.config.get("shift_terminal"):
            levels = _stretched(own.sigmas[:-1], own.config)
            own.timesteps = (levels * own.config.num_train_timesteps).to(own.timesteps)
            own.sigmas = torch.cat([levels, own.sigmas[-1:]])

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return a picture's latents at the noise level where the run stands."""
        own: Any = self
        place = own.step_index
        if place is None:
            place = own.begin_index
        if place is None:
            place = own.index_for_timestep(timestep.flatten()[0])
        sigma = own.sigmas[place].to(sample.device, sample.dtype)
        scaled: torch.Tensor = sigma * noise + (1.0 - sigma) * sample
        return scaled


class FlowMultistep(_Multistep, _DIFFUSERS.DPMSolverMultistepScheduler):  # type: ignore[misc]
    """DPM++ 2M and 2M SDE."""


class FlowSinglestep(_Multistep, _DIFFUSERS.DPMSolverSinglestepScheduler):  # type: ignore[misc]
    """DPM++ 2S."""


class FlowUniPc(_Multistep, _DIFFUSERS.UniPCMultistepScheduler):  # type: ignore[misc]
    """UniPC."""

    def _stretch(self) -> None:
        """Do nothing: the class has done it."""


#: By the class of diffusers that each is.
FLOW_CLASSES: Mapping[str, Any] = MappingProxyType(
    {
        "FlowMatchEulerDiscreteScheduler": FlowEuler,
        "FlowMatchHeunDiscreteScheduler": FlowHeun,
        "FlowMatchLCMScheduler": FlowLcm,
        "DPMSolverMultistepScheduler": FlowMultistep,
        "DPMSolverSinglestepScheduler": FlowSinglestep,
        "UniPCMultistepScheduler": FlowUniPc,
    }
)


def flow_settings(model_config: Mapping[str, Any], cls: Any) -> dict[str, Any]:
    """Return what makes a class step along the flow that a model was trained on."""
    shift = model_config.get("shift", model_config.get("flow_shift", 1.0))
    if issubclass(cls, _Multistep):
        return {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return {"shift": shift}


def keep_shifting(scheduler: Any, model_config: Mapping[str, Any]) -> None:
    """Let pipelines find the settings of the shift whatever the class."""
    scheduler.register_to_config(**{name: model_config[name] for name in _SHIFTING if name in model_config})


def _trailing(steps: int) -> Any:
    return np.linspace(1.0, 1 / steps, steps)


def _stretched(levels: Any, config: Any) -> Any:
    """Return noise levels, falling, with the last at the configured one, as the classes that know of it do."""
    terminal = config.get("shift_terminal")
    if not terminal or len(levels) == 1:
        return levels
    return 1 - (1 - levels) * ((1 - terminal) / (1 - levels[-1]))


def _by_size(config: Any) -> bool:
    return bool(config.get("use_dynamic_shifting"))


def _shift(config: Any, mu: float | None) -> float:
    """Return the shift as one number; the one by size is the same curve with another number."""
    if mu is None or not _by_size(config):
        return float(config.shift)
    return math.exp(mu) if config.get("time_shift_type", "exponential") == "exponential" else float(mu)
