"""Judge what went wrong while a job was drawn: whose fault it was, and whether another try may help."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from jobs.errors import (
    DrawingFailed,
    EngineDied,
    JobFailure,
    ModelDamaged,
    ModelMissing,
    OutOfMemory,
    PhaseTimeout,
    PictureInvalid,
    PictureUnreadable,
)
from workers.engines.interface import Failed
from workers.phases import Stage

#: What an engine may report.
FAILURES: Final[Mapping[str, type[JobFailure]]] = MappingProxyType(
    {
        failure.code: failure
        for failure in (OutOfMemory, ModelDamaged, ModelMissing, DrawingFailed, PictureInvalid, PictureUnreadable)
    }
)


def judge(report: Failed) -> JobFailure:
    """Return the failure an engine reported; a code it should not use counts as an internal error."""
    return FAILURES.get(report.code, JobFailure)(report.message)


def died(exit_code: int) -> JobFailure:
    """Return the failure of the job that was being drawn when the engine ended."""
    how = f"killed by signal {-exit_code}" if exit_code < 0 else f"exit status {exit_code}"
    return EngineDied(f"The engine process ended while it drew this job ({how}).")


def overdue(stage: Stage, limit: float) -> JobFailure:
    """Return the failure of a job whose phase passed its limit, seconds."""
    return PhaseTimeout(f"The phase '{stage}' made no progress for {limit:g} s, so the engine was replaced.")
