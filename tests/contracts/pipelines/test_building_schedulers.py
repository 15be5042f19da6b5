"""Every scheduler by name, over a model's own settings."""

import logging
from collections.abc import Callable
from typing import Any

import diffusers
import pytest

from jobs.contract import Txt2ImgParameters
from models_registry.schedulers import SCHEDULERS, find_scheduler
from pipelines.families.base import Family
from pipelines.schedulers import build_scheduler, seed_scheduler

Make = Callable[..., Txt2ImgParameters]

#: As Stable Diffusion 1.5 is published, and as fine-tuned models leave it behind.
_PLMS = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1, "skip_prk_steps": True}
_DPM = {
    "_class_name": "DPMSolverMultistepScheduler",
    "beta_schedule": "scaled_linear",
    "solver_order": 3,
    "algorithm_type": "sde-dpmsolver++",
    "solver_type": "heun",
    "use_karras_sigmas": True,
    "timestep_spacing": "trailing",
    "skip_prk_steps": True,
}
_EVERY = [(name, kind) for name, each in SCHEDULERS.items() for kind in (None, *sorted(each.schedule_types))]


@pytest.mark.parametrize(("name", "kind"), _EVERY)
def test_every_scheduler_draws_at_every_number_of_steps(
    family: Family, parameters: Make, name: str, kind: str | None
) -> None:
    """One step, two, an odd number: none fails, none is NaN."""
    for steps in (1, 2) if kind else (1, 2, 5):
        state = family.prepare(parameters(scheduler=name, schedule_type=kind, steps=steps), 0)
        while state.phase == "denoise":
            assert not family.step([state]).errors
        assert state.step == state.total == steps
        family.finish([state])
        state.close()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_settings_of_another_method_are_overruled(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A model saved with an exotic scheduler still gives the method that was named, without complaints in the log."""
    with caplog.at_level(logging.WARNING):
        built = [build_scheduler(find_scheduler(name), config, 20) for config in (_PLMS, _DPM)]
    assert not caplog.records
    for setting in ("algorithm_type", "solver_order", "solver_type"):
        values = [scheduler.config[setting] for scheduler in built if setting in scheduler.config]
        assert len(set(values)) <= 1, setting
    assert {scheduler.config["beta_schedule"] for scheduler in built} == {"scaled_linear"}


def test_schedule_type_overrules_the_model_and_none_keeps_it() -> None:
    """The model's own spacing holds until another is named."""
    own = build_scheduler(find_scheduler("Euler"), _DPM, 20)
    assert (own.config["use_karras_sigmas"], own.config["timestep_spacing"]) == (True, "trailing")
    uniform = build_scheduler(find_scheduler("Euler", "uniform"), _DPM, 20)
    assert (uniform.config["use_karras_sigmas"], uniform.config["timestep_spacing"]) == (False, "linspace")


def test_few_step_schedulers_take_as_many_steps_as_wanted(family: Family, parameters: Make) -> None:
    """LCM picks from 50 original steps unless more are asked for."""
    for name in ("LCM", "TCD"):
        state = family.prepare(parameters(scheduler=name, steps=120), 0)
        assert state.total == 120
        state.close()


def test_seeded_scheduler_takes_any_seed() -> None:
    """Schedulers with noise of their own are tied to the seed; the others are left alone."""
    sde: Any = build_scheduler(find_scheduler("DPM++ SDE"), _PLMS, 20)
    assert seed_scheduler(sde, 2**64 - 1).noise_sampler_seed == 2**63 - 1
    euler = diffusers.EulerDiscreteScheduler()
    assert seed_scheduler(euler, 3) is euler
