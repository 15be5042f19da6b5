"""Limits of phases: progress starts them anew, waiting has none."""

import math

from infra.settings import Settings
from workers.phases import PhaseClock, PhaseLimits

LIMITS = PhaseLimits.of(Settings(step_limit_seconds=10, load_limit_seconds=100, store_limit_seconds=5))


def test_phase_clock_lets_a_waiting_job_wait() -> None:
    """A job behind another one is never overdue."""
    clock = PhaseClock(LIMITS)
    assert not clock.is_overdue(1e9)
    assert clock.limit == math.inf


def test_phase_clock_starts_anew_with_each_step() -> None:
    """Steps that advance may go on for ever; one that does not is overdue at its limit."""
    clock = PhaseClock(LIMITS)
    for now in range(0, 100, 9):
        clock.begin("step", now)
        assert not clock.is_overdue(now + 9.9)
    assert clock.is_overdue(99 + 10)


def test_phase_clock_counts_each_phase_by_its_own_limit() -> None:
    """A load may take longer than a step."""
    clock = PhaseClock(LIMITS)
    clock.begin("load", 0)
    assert not clock.is_overdue(99)
    clock.begin("store", 99)
    assert not clock.is_overdue(108)  # storing and recording have 5 s each
    assert clock.is_overdue(109)
