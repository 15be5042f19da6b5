"""What the contract tests share: the classes behind our names of schedulers, and how a run is taken to its end."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import diffusers
import numpy as np
import numpy.typing as npt

from pipelines.engine.state import State
from pipelines.families.base import Family


class Result(NamedTuple):
    """The latents after the last step, and the picture."""

    latents: npt.NDArray[np.float32]
    picture: npt.NDArray[np.uint8]

    def same(self, other: "Result") -> bool:
        """Compare bit for bit."""
        return self.latents.tobytes() == other.latents.tobytes() and self.picture.tobytes() == other.picture.tobytes()


#: Our name -> the class and settings that a user of plain diffusers would write.
PLAIN: Mapping[str, tuple[str, dict[str, Any]]] = MappingProxyType(
    {
        "Euler": ("EulerDiscreteScheduler", {}),
        "Euler a": ("EulerAncestralDiscreteScheduler", {}),
        "DPM++ 2M Karras": (
            "DPMSolverMultistepScheduler",
            {"use_karras_sigmas": True, "timestep_spacing": "linspace"},
        ),
        "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
        "DPM++ 3M SDE Exponential": (
            "DPMSolverMultistepScheduler",
            {
                "algorithm_type": "sde-dpmsolver++",
                "solver_order": 3,
                "use_exponential_sigmas": True,
                "timestep_spacing": "linspace",
            },
        ),
        "DPM++ SDE": ("DPMSolverSDEScheduler", {"noise_sampler_seed": 7}),
        "DPM++ 2S a": (
            "DPMSolverSinglestepScheduler",
            {"algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
        ),
        "DPM2": ("KDPM2DiscreteScheduler", {}),
        "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
        "DDIM": ("DDIMScheduler", {}),
        "DDPM": ("DDPMScheduler", {}),
        "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
        "UniPC": ("UniPCMultistepScheduler", {}),
        "DEIS": ("DEISMultistepScheduler", {}),
        "SA Solver": ("SASolverScheduler", {}),
        "Heun": ("HeunDiscreteScheduler", {}),
        "LMS": ("LMSDiscreteScheduler", {}),
        "LCM": ("LCMScheduler", {}),
        "TCD": ("TCDScheduler", {}),
    }
)


def plain_scheduler(name: str, config: Any) -> Any:
    """Build the scheduler that a user of plain diffusers would."""
    class_name, settings = PLAIN[name]
    return getattr(diffusers, class_name).from_config(config, **settings)


def take_step(family: Family, states: Sequence[State]) -> None:
    """Step without a failure."""
    assert not family.step(states).errors


def end(family: Family, state: State) -> Result:
    """Step to the end, finish and close."""
    while state.phase == "denoise":
        take_step(family, [state])
    latents = state._body.latents  # noqa: SLF001 - the picture's 8 bits would hide a difference
    assert latents is not None
    kept = latents.numpy().copy()
    (picture,) = family.finish([state])
    state.close()
    return Result(kept, picture.array)
