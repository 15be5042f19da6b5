"""Fill in what denoising needs: scheduler, steps, guidance."""

from collections.abc import Mapping
from typing import Any

from broker_api.admission.refusals import ScheduleTypeUnknown, sentence
from jobs.contract import DiffusionRequest
from jobs.errors import SchedulerUnknown, SchedulerUnsupported
from jobs.parts import Refine
from models_registry.entries import ModelEntry
from models_registry.families import VariantFacts, facts_of
from models_registry.schedulers import SCHEDULERS, SchedulerNameError, SchedulerSpec, find_scheduler


def denoising(asked: DiffusionRequest | Refine, entry: ModelEntry, prefix: str = "") -> Mapping[str, Any]:
    """Return steps, guidance, scheduler and schedule type; `prefix` stands before the names of fields at fault."""
    usual = facts_of(entry)
    spec = _scheduler(asked, entry, prefix)
    guidance = asked.guidance_scale if asked.guidance_scale is not None else entry.default_guidance_scale
    return {
        "steps": asked.steps or entry.default_steps or usual.steps,
        # Not `or`: a guidance of 0 is a choice.
        "guidance_scale": usual.guidance_scale if guidance is None else guidance,
        "scheduler": spec.name,
        "schedule_type": spec.schedule_type,
    }


def _scheduler(asked: DiffusionRequest | Refine, entry: ModelEntry, prefix: str) -> SchedulerSpec:
    facts = facts_of(entry)
    usual = find_scheduler(entry.default_scheduler or facts.scheduler, prediction=facts.prediction)
    name = asked.scheduler
    if name is None and asked.schedule_type is None:
        return usual
    try:
        spec = find_scheduler(name or usual.name)
    except SchedulerNameError as error:
        raise SchedulerUnknown(sentence(error.message), field=f"{prefix}scheduler") from None
    if facts.prediction not in SCHEDULERS[spec.name].predictions:
        raise SchedulerUnsupported(_able(spec, facts), field=f"{prefix}scheduler")
    try:
        return find_scheduler(name or usual.name, asked.schedule_type, prediction=facts.prediction)
    except SchedulerNameError as error:
        field = "scheduler" if asked.schedule_type is None else "schedule_type"
        raise ScheduleTypeUnknown(sentence(error.message), field=f"{prefix}{field}") from None


def _able(spec: SchedulerSpec, facts: VariantFacts) -> str:
    able = ", ".join(each.name for each in SCHEDULERS.values() if facts.prediction in each.predictions)
    return f"{facts.title} cannot be drawn with {spec.name}; it can with: {able}."
