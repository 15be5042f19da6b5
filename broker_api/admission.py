"""Decide whether a job can be done at all, and fill in every default: a job that is stored is one that can be drawn. Pure."""

import difflib
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from jobs.contract import PARAMETERS, DiffusionRequest, JobParameters, JobRequest, Txt2ImgRequest
from jobs.errors import (
    ModelUnknown,
    RequestRefused,
    SchedulerUnknown,
    SchedulerUnsupported,
    SizeUnsupported,
    TaskUnsupported,
)
from jobs.fleet import Fleet
from jobs.intake import NewJob
from jobs.routing import route
from models_registry.catalogue import Catalogue
from models_registry.entries import Kind, ModelEntry, ModelRef
from models_registry.families import FAMILIES, FamilyFacts, tasks_of
from models_registry.memory import needs_memory
from models_registry.schedulers import SCHEDULERS, SchedulerNameError, SchedulerSpec, find_scheduler

#: A drawn seed has 32 bits, as A1111's have: JavaScript reads larger numbers inexactly.
DRAWN_SEEDS: Final = 2**32
#: Previews of a job whose request does not say how often.
PREVIEWS: Final = 8
#: So many names are listed to someone who asked for one that does not exist.
LISTED_NAMES: Final = 10


class ScheduleTypeUnknown(RequestRefused):
    """No schedule type has this name, or the scheduler cannot follow it."""

    code = "schedule_type_unknown"


class NoModels(RequestRefused):
    """No model is registered, so nothing can be drawn."""

    code = "no_models"


def _draw() -> int:
    return secrets.randbelow(DRAWN_SEEDS)


@dataclass(frozen=True)
class Admission:
    """Admit requests by what the models and the fleet can do."""

    catalogue: Catalogue
    fleet: Fleet
    max_pixels: int
    draw_seed: Callable[[], int] = _draw

    def admit(self, request: JobRequest, *, owner: str, idempotency_key: str | None = None) -> NewJob:
        """Return the job to store, raising a `RequestRefused` that names the field at fault."""
        entry = self._model(request.model)
        family = FAMILIES[entry.family]
        tasks = tasks_of(entry)
        if request.task not in tasks:
            known = ", ".join(sorted(tasks))
            raise TaskUnsupported(f"{entry.name} ({family.title}) can do: {known}.", field="task")
        if not isinstance(request, Txt2ImgRequest):
            raise TaskUnsupported(f"{request.task} is not there yet.", field="task")
        parameters = self._resolve(request, entry, family)
        memory = needs_memory(entry, parameters.width, parameters.height)
        return NewJob(
            owner=owner,
            parameters=parameters,
            model_key=entry.model_key,
            needs_memory=memory,
            hardware=route(request.task, memory, request.hardware, self.fleet),
            idempotency_key=idempotency_key,
            request_hash=request_hash(request),
        )

    def _model(self, name: str | None) -> ModelEntry:
        if name is None:
            found = self.catalogue.default()
            if found is None:
                raise NoModels("No model is registered yet: `imagefleet models scan` looks for some.", field="model")
            return found
        found = self.catalogue.find(name)
        if found is not None:
            return found
        if ModelRef(Kind.CHECKPOINT, name) in self.catalogue.missing:
            raise ModelUnknown(f"The files of the model {name!r} are away.", field="model")
        known = [entry.name for entry in self.catalogue.of_kind(Kind.CHECKPOINT)]
        raise ModelUnknown(f"No model is named {name[:100]!r}. {_suggest(name, known)}", field="model")

    def _resolve(self, request: DiffusionRequest, entry: ModelEntry, family: FamilyFacts) -> JobParameters:
        width = self._side("width", request.width, entry, family)
        height = self._side("height", request.height, entry, family)
        if width * height > self.max_pixels:
            raise SizeUnsupported(
                f"{width} x {height} is {width * height} pixels; this server draws at most {self.max_pixels}.",
                field="width",
            )
        spec = _scheduler(request, entry, family)
        # Not `or`: a guidance of 0 is a choice.
        guidance = request.guidance_scale if request.guidance_scale is not None else entry.default_guidance_scale
        steps = request.steps or entry.default_steps or family.default_steps
        return PARAMETERS[request.task](
            **{
                **{name: getattr(request, name) for name in type(request).model_fields},
                "model": entry.name,
                "width": width,
                "height": height,
                "steps": steps,
                "guidance_scale": family.default_guidance_scale if guidance is None else guidance,
                "scheduler": spec.name,
                "schedule_type": spec.schedule_type,
                "seed": self.draw_seed() if request.seed < 0 else request.seed,
                "preview_every": max(1, steps // PREVIEWS) if request.preview_every is None else request.preview_every,
            }
        )

    def _side(self, field: str, given: int | None, entry: ModelEntry, family: FamilyFacts) -> int:
        if given is None:
            return entry.native_size
        if given % family.size_step:
            raise SizeUnsupported(
                f"The {field} must be a multiple of {family.size_step} for {family.title}; {given} is not.", field=field
            )
        smallest = min(family.min_side, entry.native_size)
        if not smallest <= given <= family.max_side:
            raise SizeUnsupported(
                f"The {field} must be from {smallest} to {family.max_side} for {family.title}; {given} is not.",
                field=field,
            )
        return given


def request_hash(request: JobRequest) -> str:
    """Return a digest that is equal for requests that ask for the same, however their JSON was written."""
    # As sent: a drawn seed or a changed default must not make a repeated request look like another one.
    return hashlib.sha256(request.model_dump_json(exclude_defaults=True).encode()).hexdigest()


def _scheduler(request: DiffusionRequest, entry: ModelEntry, family: FamilyFacts) -> SchedulerSpec:
    usual = find_scheduler(entry.default_scheduler or family.default_scheduler)
    name = request.scheduler
    if name is None and request.schedule_type is None:
        return usual
    try:
        spec = find_scheduler(name or usual.name)
    except SchedulerNameError as error:
        raise SchedulerUnknown(_sentence(error.message), field="scheduler") from None
    if request.schedule_type is not None:
        try:
            spec = find_scheduler(name or usual.name, request.schedule_type)
        except SchedulerNameError as error:
            raise ScheduleTypeUnknown(_sentence(error.message), field="schedule_type") from None
    if family.prediction not in SCHEDULERS[spec.name].predictions:
        raise SchedulerUnsupported(f"{family.title} cannot use {spec.label}.", field="scheduler")
    return spec


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _suggest(name: str, known: list[str]) -> str:
    folded = {each.casefold(): each for each in known}
    near = [folded[found] for found in difflib.get_close_matches(name[:200].casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"Near it: {', '.join(near)}."
    listed = ", ".join(known[:LISTED_NAMES])
    more = f" and {len(known) - LISTED_NAMES} more" if len(known) > LISTED_NAMES else ""
    return f"There is: {listed}{more}." if known else "None is registered yet."
