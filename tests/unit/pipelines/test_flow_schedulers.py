"""Schedulers for flows, on a flow whose end is known: from noise to a normal distribution of another mean and width."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from models_registry.families import Prediction
from models_registry.schedulers import SCHEDULERS, SchedulerNameError, find_scheduler
from pipelines.schedulers import build_scheduler

_MEAN, _WIDTH = 1.5, 0.5
#: As Stable Diffusion 3 is published, and FLUX.1 dev.
_SHIFTED = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
_BY_SIZE = {**_SHIFTED, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
_FLOWING = [name for name, each in SCHEDULERS.items() if each.flow is not None]
#: Those that add noise on their way, so that they end elsewhere in the same distribution.
_NOISY = frozenset({"DPM++ 2M SDE", "LCM"})


def build(name: str, config: Mapping[str, Any] = _SHIFTED, kind: str | None = None) -> Any:
    """Build a scheduler as a family does."""
    return build_scheduler(find_scheduler(name, kind, prediction=Prediction.FLOW), config, 20)


def velocity(sample: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return the flow where a sample is: the expected noise less the expected picture."""
    clean = 1 - sigma
    variance = (clean * _WIDTH) ** 2 + sigma**2
    off = sample - clean * _MEAN
    return sigma / variance * off - (_MEAN + clean * _WIDTH**2 / variance * off)


def follow(scheduler: Any, steps: int, noise: torch.Tensor, **shift: float) -> torch.Tensor:
    """Take all steps from noise."""
    scheduler.set_timesteps(steps, **shift)
    sample, generator = noise, torch.Generator().manual_seed(3)
    own = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for timestep in scheduler.timesteps:
        flow = velocity(sample.double(), float(timestep) / 1000).float()
        (sample,) = scheduler.step(flow, timestep, sample, return_dict=False, **own)
    return sample


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    """Return enough noise for a mean."""
    return torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [name for name in _FLOWING if name not in _NOISY])
def test_more_steps_come_nearer_to_the_end_of_the_flow(name: str, noise: torch.Tensor) -> None:
    """Every exact method ends where the flow does, and the nearer the more steps it takes."""
    end = _MEAN + _WIDTH * noise
    errors = [float((follow(build(name), steps, noise) - end).square().mean().sqrt()) for steps in (10, 40, 160)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


@pytest.mark.parametrize("name", sorted(_NOISY))
def test_noisy_methods_end_in_the_same_distribution(name: str, noise: torch.Tensor) -> None:
    """Noise on the way moves each place, and the whole stays where it belongs."""
    drawn = follow(build(name), 160, noise)
    assert float(drawn.mean()) == pytest.approx(_MEAN, abs=0.02)
    assert float(drawn.std()) == pytest.approx(_WIDTH, abs=0.03 if name != "LCM" else 0.2)
    assert float((drawn - (_MEAN + _WIDTH * noise)).abs().mean()) > 0.1


@pytest.mark.parametrize("name", _FLOWING)
def test_shift_by_size_is_a_shift(name: str, noise: torch.Tensor) -> None:
    """`mu` of a large picture begins more steps where there is much noise; that of none is no shift at all."""
    levels = []
    for mu in (0.0, 1.15):
        scheduler = build(name, _BY_SIZE)
        follow(scheduler, 8, noise, mu=mu)
        levels.append(scheduler.sigmas[4])
    plain = build(name, {**_SHIFTED, "shift": 1.0})
    plain.set_timesteps(8)
    assert levels[0] == pytest.approx(float(plain.sigmas[4]), abs=1e-5)
    assert levels[1] > levels[0] + 0.1
    # Pipelines compute mu from these.
    assert build(name, _BY_SIZE).config.get("max_shift") == 1.15


@pytest.mark.parametrize("name", _FLOWING)
def test_last_step_begins_where_the_models_own_scheduler_has_it(name: str, noise: torch.Tensor) -> None:
    """Qwen-Image was trained to end at a noise level of 0.02 whatever the number of steps; one step alone begins at noise."""
    scheduler = build(name, {**_BY_SIZE, "shift_terminal": 0.02})
    for steps in (1, 8):
        drawn = follow(scheduler, steps, noise, mu=0.9)
        assert drawn.isfinite().all()
        assert float(scheduler.sigmas[0]) > 0.98
    levels = scheduler.sigmas[:-1].double()
    assert float(levels[-1]) == pytest.approx(0.02, abs=1e-4)
    assert torch.equal(levels, levels.sort(descending=True).values)
    assert torch.allclose(scheduler.timesteps.double(), 1000 * levels, atol=1)


def test_heun_without_given_levels_is_that_of_diffusers(noise: torch.Tensor) -> None:
    """Where the class of diffusers can be called, the numbers are its own."""
    plain: Any = diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)
    ours = build("Heun")
    assert torch.equal(follow(ours, 7, noise), follow(plain, 7, noise))
    assert torch.equal(ours.sigmas, plain.sigmas)


@pytest.mark.parametrize("name", ["Euler", "Heun"])
def test_simple_spacing_is_that_of_flux_and_normal_that_of_stable_diffusion(name: str) -> None:
    """A schedule type holds whatever levels the pipeline brings."""
    given = np.linspace(1.0, 1 / 6, 6)
    built = {kind: build(name, kind=kind) for kind in (None, "simple", "normal")}
    for kind, scheduler in built.items():
        scheduler.set_timesteps(6, sigmas=None if kind == "simple" else given)
    assert torch.equal(built["simple"].sigmas, built[None].sigmas)
    plain = build(name)
    plain.set_timesteps(6)
    assert torch.equal(built["normal"].sigmas, plain.sigmas)
    assert not torch.equal(built["normal"].sigmas, built["simple"].sigmas)


@pytest.mark.parametrize("name", ["Euler", "Heun"])
@pytest.mark.parametrize("kind", [None, "simple", "normal"])
def test_levels_without_their_number_are_as_many_steps(name: str, kind: str | None) -> None:
    """Pipelines that bring levels do not say how many there are."""
    given = np.linspace(1.0, 1 / 6, 6)
    one, other = build(name, kind=kind), build(name, kind=kind)
    one.set_timesteps(sigmas=given)
    other.set_timesteps(6, sigmas=given)
    assert torch.equal(one.sigmas, other.sigmas)


@pytest.mark.parametrize("name", _FLOWING)
def test_pictures_are_noised_to_where_the_run_begins(name: str) -> None:
    """Whatever the class, a run over a picture begins at the level of its first step."""
    scheduler = build(name)
    scheduler.set_timesteps(8)
    scheduler.set_begin_index(3 * scheduler.order)
    picture, noise = torch.full((1, 2), 2.0), torch.full((1, 2), -1.0)
    sigma = float(scheduler.sigmas[3 * scheduler.order])
    noised = scheduler.scale_noise(picture, scheduler.timesteps[3 * scheduler.order][None], noise)
    assert torch.allclose(noised, torch.full((1, 2), 2.0 - 3 * sigma), atol=1e-5)


def test_what_cannot_follow_a_flow_is_refused_with_what_can() -> None:
    """The refusal names every method that works, and the schedule types of one that does."""
    with pytest.raises(SchedulerNameError) as refused:
        find_scheduler("DPM++ 3M SDE Karras", prediction=Prediction.FLOW)
    assert sorted(refused.value.nearest) == sorted(_FLOWING)
    with pytest.raises(SchedulerNameError, match="it can follow: SGM Uniform, Simple"):
        find_scheduler("DPM++ 2M Karras", prediction=Prediction.FLOW)
    assert find_scheduler("DPM++ 2M", "automatic", prediction=Prediction.FLOW).schedule_type is None
    assert find_scheduler("FlowMatchEulerDiscreteScheduler").name == "Euler"
