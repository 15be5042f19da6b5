"""One loaded model set, as its user sees it. A family adds how parameters become arguments of a diffusers pipeline.

It does not know where models come from, which of them stay loaded, or who waits for the picture.
"""

import copy
import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from jobs.contract import DiffusionJob, image_seed
from jobs.errors import DrawingFailed
from jobs.geometry import drawn_pixels, steps_per_picture
from jobs.inputs import NO_INPUTS, Inputs
from jobs.needs import needs_of
from models_registry.entries import ModelEntry
from models_registry.families import FAMILIES, FamilyFacts, facts_of, is_guided
from models_registry.schedulers import SchedulerNameError, SchedulerSpec, find_scheduler
from pipelines.adapters.adapted import Adapters
from pipelines.adapters.keys import Component
from pipelines.components import parts_of
from pipelines.engine.asks import Ask, Kind
from pipelines.engine.body import Asking, Body
from pipelines.engine.checkpoint import Checkpoint
from pipelines.engine.engine import Counters, Engine, StepReport
from pipelines.engine.state import State, check_fits
from pipelines.failures import as_failure, attempt
from pipelines.families.pipes import PipeKey, Pipes
from pipelines.families.plan import Plan
from pipelines.pictures import Picture, to_pixels
from pipelines.previews import PreviewMatrix, denoised
from pipelines.prompts import Words
from pipelines.schedulers import STEP_BOUND, build_scheduler, seed_scheduler
from pipelines.shelf import Shelf
from pipelines.tasks.setting import Setting

_CODER: Mapping[str, Kind] = MappingProxyType({"encode": "encode", "decode": "decode"})


class Cost(NamedTuple):
    """What one picture asks of the device."""

    #: Rows of each denoiser call: 2 under classifier-free guidance.
    rows: int
    #: Denoiser calls from first to last step.
    calls: int
    #: Peak of activations, bytes: an estimate from the family's facts.
    bytes: int


class Family(ABC):
    """One loaded model set: prepare, step, finish, and each state's close. One thread uses it."""

    #: A key of `models_registry.families.FAMILIES`.
    name: ClassVar[str]
    #: Which calls of which components wait for the engine.
    asking: ClassVar[Asking] = MappingProxyType(
        {
            "unet": MappingProxyType({"__call__": "denoise"}),
            "transformer": MappingProxyType({"__call__": "denoise"}),
            "vae": _CODER,
            "controlnet": MappingProxyType({"__call__": "control"}),
        }
    )
    #: Named arguments of the denoiser that say the same of all rows of a call.
    shared: ClassVar[frozenset[str]] = frozenset()
    #: Whether what guidance compares is asked for in calls of one row each, where others have both rows in one call.
    asks_apart: ClassVar[bool] = False
    #: Components that LoRAs may change.
    hosted: ClassVar[tuple[Component, ...]] = ("unet", "text_encoder")
    #: The classes it draws with, those of diffusers by name.
    pipe_classes: ClassVar[Mapping[PipeKey, str | type]]

    def __init__(
        self,
        pipe: Any,
        entry: ModelEntry,
        preview_matrix: PreviewMatrix,
        counters: Counters,
        shelf: Shelf,
    ) -> None:
        self.entry = entry
        self.pipe = pipe
        self.pipes = Pipes(pipe, self.pipe_classes)
        self.counters = counters
        #: What jobs name beside the model; shared with other families, and not this one's to empty.
        self.shelf = shelf
        self.adapters = Adapters(pipe, shelf, self.hosted)
        self.preview_matrix = preview_matrix
        #: States prepared and not yet closed.
        self.open_states: set[State] = set()
        self._engine = Engine(counters)
        #: Built once per name: a copy costs a sixth of building one.
        self._templates: dict[tuple[str, int], Any] = {}
        self._numbers = itertools.count(1)

    @property
    def facts(self) -> FamilyFacts:
        """Return what the family can do."""
        return FAMILIES[self.name]

    @property
    def parts(self) -> Mapping[str, torch.nn.Module]:
        """Return what it is made of, by the names of components; other families may have some of it too. Nothing once it is closed."""
        return {} if self.pipe is None else parts_of(self.pipe)

    @abstractmethod
    def plan(self, parameters: DiffusionJob, inputs: Inputs) -> Plan:
        """Return how a picture of these parameters is drawn."""

    def prepare(
        self,
        parameters: DiffusionJob,
        index: int,
        inputs: Inputs = NO_INPUTS,
        *,
        resume: Checkpoint | None = None,
    ) -> State:
        """Start picture `index` of a job, or go on from a checkpoint; return it before its next step.

        Raises `JobFailure` when it cannot be drawn, and `CheckpointMismatchError` for a checkpoint of something else.
        """
        seed = image_seed(parameters, index)
        request = self._digest(parameters, index, inputs)
        with torch.no_grad():
            plan = attempt(lambda: self.plan(parameters, inputs))
        schedulers = [self._scheduler(parameters, each.arguments["num_inference_steps"], seed) for each in plan.passes]
        if resume is not None:
            check_fits(resume, request, schedulers)
        body = Body(
            plan.passes,
            schedulers,
            self.asking,
            # On the CPU whatever the device: the same seed gives the same noise everywhere.
            torch.Generator("cpu").manual_seed(seed),
            resume,
            given=None if plan.given is None else (plan.given[None],),
            shared=self.shared,
        )
        state = State(
            body,
            number=next(self._numbers),
            index=index,
            seed=seed,
            request=request,
            preview=lambda latents, stepped, own: self.preview_matrix.draw(
                body.spatial(denoised(latents, stepped, own)), self.entry.latent_factor
            ),
            closed=self.open_states.discard,
            applied=plan.applied,
            finish=plan.finish,
        )
        self.open_states.add(state)
        try:
            self._engine.start(state)
        except BaseException:
            state.close()
            raise
        return state

    def step(self, states: Sequence[State]) -> StepReport:
        """Take each state through one scheduler step; failures are in the report and hurt nobody else."""
        return self._engine.step(states)

    def finish(self, states: Sequence[State]) -> list[Picture]:
        """Decode states in phase `decode` and return their pictures in order; closes none.

        When one fails, its failure is raised after the others were decoded: finish those again to have them at once.
        """
        errors = dict(self._engine.finish(states))
        for state in states:
            if state not in errors and state.picture is None:
                self._take(state, errors)
        for failure in errors.values():
            raise failure
        return [state.picture for state in states if state.picture is not None]

    def cost(self, parameters: DiffusionJob) -> Cost:
        """Estimate what one picture of the job asks of the device."""
        spec, guided = self._spec(parameters), is_guided(self.entry, parameters.guidance_scale)
        rows = 2 if guided and not self.asks_apart else 1
        # Second-order schedulers save the second call of the last step.
        calls = steps_per_picture(parameters) * spec.calls_per_step - (spec.calls_per_step - 1)
        if guided and self.asks_apart:
            calls *= 2
        pixels = drawn_pixels(parameters, self.facts.size_step)
        return Cost(rows, calls, pixels * self.facts.activation_bytes_per_pixel * rows // 2)

    def close(self) -> None:
        """Close every open state and drop the weights; again is harmless."""
        for state in tuple(self.open_states):
            state.close()
        self.adapters.close()
        self.pipe = None
        self.pipes.clear()
        self._templates.clear()

    def _take(self, state: State, errors: dict[State, Any]) -> None:
        if state.ask is None or state.ask.kind != "done":
            raise RuntimeError(f"{state!r} cannot be finished: step it until its phase is decode")
        images = np.asarray(state.ask.args[0][0])
        failure = None
        try:
            pixels = images[0] if images.dtype == np.uint8 else to_pixels(images[0])
            state.picture = Picture(state.index, state.seed, state.finish(pixels))
            state.ask = Ask("done")  # the floats are four times as large
        except Exception as error:  # noqa: BLE001 - one state's error must not lose the others' pictures
            failure = as_failure(error)
        if failure is not None:
            state.failure = errors[state] = failure

    def _setting(
        self, parameters: DiffusionJob, inputs: Inputs, encode: Callable[[Words], Mapping[str, Any]]
    ) -> Setting:
        """Return what every task's pass is made of, for pipelines with a UNet; `encode` reads the prompts, as `Adapters.adapt` says."""
        adapted = self.adapters.adapt(parameters, inputs, encode)
        return Setting(
            self.pipes,
            inputs,
            self.shelf,
            self.facts.size_step,
            {**adapted.embeddings, "guidance_scale": parameters.guidance_scale},
            adapted.components,
            adapted.applied,
        )

    def _spec(self, parameters: DiffusionJob) -> SchedulerSpec:
        """Return the scheduler that a job names, raising `DrawingFailed` where this model cannot draw by it."""
        try:
            return find_scheduler(
                parameters.scheduler, parameters.schedule_type, prediction=facts_of(self.entry).prediction
            )
        except SchedulerNameError as error:
            raise DrawingFailed(error.message) from None

    def _scheduler(self, parameters: DiffusionJob, steps: int, seed: int) -> Any:
        spec = self._spec(parameters)
        key = (spec.label, steps if spec.class_name in STEP_BOUND else 0)
        if key not in self._templates:
            config = self.pipe.scheduler.config
            self._templates[key] = attempt(lambda: build_scheduler(spec, config, steps))
        return seed_scheduler(copy.deepcopy(self._templates[key]), seed)

    def _digest(self, parameters: DiffusionJob, index: int, inputs: Inputs) -> str:
        """Identify what a checkpoint belongs to: everything that changes the picture's bits, nothing else.

        Pictures are there by the digests that name them, the other models by their contents.
        """
        shown = parameters.model_dump_json(
            exclude={"labels", "priority", "deadline_s", "preview_every", "output", "hardware", "num_images", "seed"}
        )
        others = [inputs.model(*need.ref).model_key for need in needs_of(parameters)[1:]]
        text = "\n".join([self.name, self.entry.model_key, *others, shown, str(image_seed(parameters, index))])
        return hashlib.sha256(text.encode()).hexdigest()
