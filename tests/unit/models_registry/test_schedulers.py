"""Scheduler names as people write them."""

import pytest

from models_registry.families import FAMILIES
from models_registry.schedulers import (
    SCHEDULE_TYPES,
    SCHEDULERS,
    Scheduler,
    SchedulerNameError,
    find_schedule_type,
    find_scheduler,
)


@pytest.mark.parametrize(
    ("name", "schedule_type", "label"),
    [
        ("Euler", None, "Euler"),
        ("euler a", None, "Euler a"),
        ("Euler ancestral", None, "Euler a"),
        ("k_euler_a", None, "Euler a"),
        ("EulerDiscreteScheduler", None, "Euler"),
        ("eulerdiscretescheduler", "karras", "Euler Karras"),
        ("DPM++ 2M Karras", None, "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M Karras", "automatic", "DPM++ 2M Karras"),
        ("dpmpp_2m", "karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "Automatic", "DPM++ 2M Karras"),
        ("DPM++ 2M SDE", "automatic", "DPM++ 2M SDE Exponential"),
        ("DPM++ 2M SDE Heun Exponential", None, "DPM++ 2M SDE Heun Exponential"),
        ("DPMSolverMultistepScheduler", None, "DPM++ 2M"),
        ("DPM++ 3M SDE Exponential", None, "DPM++ 3M SDE Exponential"),
        ("Euler SGM Uniform", None, "Euler SGM Uniform"),
        ("Euler Polyexponential", None, "Euler Exponential"),
        ("DPM2", None, "DPM2"),
        ("DPM2 a Karras", None, "DPM2 a Karras"),
        ("DDIM", None, "DDIM"),
        ("DDIM", "ddim_uniform", "DDIM DDIM"),
        ("PNDM", None, "PLMS"),
        ("PNDMScheduler", None, "PLMS"),
        ("LCM", "automatic", "LCM"),
        ("Heun Beta", None, "Heun Beta"),
        ("  unipc ", None, "UniPC"),
    ],
)
def test_find_scheduler_knows_a_name(name: str, schedule_type: str | None, label: str) -> None:
    """A1111, ComfyUI and diffusers names, in any case, with the schedule behind them or apart."""
    assert find_scheduler(name, schedule_type).label == label


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=lambda scheduler: scheduler.name)
def test_every_scheduler_finds_itself_with_every_schedule_it_has(scheduler: Scheduler) -> None:
    """No alias hides another scheduler, and each label leads back to its spec."""
    found = SCHEDULERS[scheduler.name]
    assert find_scheduler(found.name).name == found.name
    for kind in found.schedule_types:
        spec = find_scheduler(found.name, kind)
        assert (spec.name, spec.schedule_type) == (found.name, kind)
        assert find_scheduler(spec.label) == spec


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=lambda scheduler: scheduler.name)
def test_automatic_is_something_the_scheduler_can_follow(scheduler: Scheduler) -> None:
    """A1111's Automatic never leads to a refusal."""
    assert find_scheduler(scheduler.name, "automatic").name == scheduler.name


def test_find_scheduler_names_the_nearest_for_an_unknown_name() -> None:
    """A typing error is answered with what was probably meant."""
    with pytest.raises(SchedulerNameError) as caught:
        find_scheduler("DPM++ 2N Karras")
    assert "DPM++ 2M" in caught.value.nearest
    assert "DPM++ 2M" in str(caught.value)
    with pytest.raises(KeyError):
        find_scheduler("\N{SNOWMAN}" * 10_000)


def test_find_schedule_type_names_the_nearest_for_an_unknown_name() -> None:
    """The same for schedule types."""
    assert find_schedule_type("SGM Uniform") == "sgm_uniform"
    with pytest.raises(SchedulerNameError) as caught:
        find_scheduler("Euler", "karas")
    assert caught.value.nearest[0] == "karras"


@pytest.mark.parametrize(
    ("name", "schedule_type"),
    [("Euler a Karras", None), ("LCM", "karras"), ("DPM++ 2M Karras", "Exponential"), ("DDIM", "beta")],
)
def test_find_scheduler_refuses_an_impossible_pair(name: str, schedule_type: str | None) -> None:
    """What the scheduler cannot do is refused instead of silently ignored."""
    with pytest.raises(SchedulerNameError):
        find_scheduler(name, schedule_type)


def test_every_family_default_is_a_known_scheduler() -> None:
    """The defaults of `families.py` can be built."""
    for family in FAMILIES.values():
        for variant in family.variants.values():
            assert find_scheduler(variant.scheduler).label == variant.scheduler
    assert SCHEDULE_TYPES
