"""Draw by work of our own as a `Family` draws by diffusers pipelines: prepare, step, finish, and each state's close."""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from jobs.contract import JobParameters, image_seed
from jobs.errors import JobFailure
from jobs.inputs import NO_INPUTS, Inputs
from pipelines.engine.asks import Ask
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError
from pipelines.engine.engine import Counters, Engine, StepReport
from pipelines.engine.state import State, check_fits
from pipelines.engine.work import Work, WorkBody
from pipelines.failures import attempt
from pipelines.pictures import Picture, Pixels

Asked = TypeVar("Asked", bound=JobParameters)

#: What a request says about its delivery: it changes no pixel.
_DELIVERY = {"labels", "priority", "deadline_s", "preview_every", "output", "hardware", "num_images", "seed"}


class WorkDrawer(ABC, Generic[Asked]):
    """Draw by work of our own; a subclass says which."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        #: States prepared and not yet closed.
        self.open_states: set[State] = set()
        self._engine = Engine(counters)
        self._numbers = itertools.count(1)

    @abstractmethod
    def work(self, parameters: Asked, index: int, inputs: Inputs) -> Work:
        """Return the work that makes picture `index`, not yet begun."""

    def prepare(
        self, parameters: Asked, index: int, inputs: Inputs = NO_INPUTS, *, resume: Checkpoint | None = None
    ) -> State:
        """Start picture `index` of a job, or go on from a checkpoint; return it before its next step.

        Raises `JobFailure` when it cannot be drawn, and `CheckpointMismatchError` for a checkpoint of something else.
        """
        request = self._digest(parameters, index, inputs)
        work = attempt(lambda: self.work(parameters, index, inputs))
        if resume is not None:
            check_fits(resume, request, [work])
            _restore(work, resume)
        state = State(
            WorkBody(work),
            number=next(self._numbers),
            index=index,
            seed=image_seed(parameters, index),
            request=request,
            preview=lambda *_: work.preview(),
            closed=self.open_states.discard,
            applied=work.applied,
            finish=_as_made,
        )
        self.open_states.add(state)
        try:
            self._engine.start(state)
        except BaseException:
            state.close()
            raise
        return state

    def step(self, states: Sequence[State]) -> StepReport:
        """Take each state through one step; failures are in the report and hurt nobody else."""
        return self._engine.step(states)

    def finish(self, states: Sequence[State]) -> list[Picture]:
        """Return the pictures of states past their last step, in order; closes none."""
        errors = dict(self._engine.finish(states))
        for state in states:
            if state not in errors and state.picture is None:
                _take(state)
        _raise_first(errors.values())
        return [state.picture for state in states if state.picture is not None]

    def close(self) -> None:
        """Close every open state; again is harmless."""
        for state in tuple(self.open_states):
            state.close()

    def _digest(self, parameters: Asked, index: int, inputs: Inputs) -> str:
        shown = parameters.model_dump_json(exclude=_DELIVERY)
        # Of whatever was handed over: nothing is handed over that the job does not need.
        models = "\n".join(sorted(f"{entry.kind} {entry.model_key}" for entry in inputs.models.values()))
        return hashlib.sha256(f"{models}\n{shown}\n{image_seed(parameters, index)}".encode()).hexdigest()


def _restore(work: Work, checkpoint: Checkpoint) -> None:
    try:
        work.restore(checkpoint)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointMismatchError(f"the checkpoint does not fit: {type(error).__name__}") from None


def _take(state: State) -> None:
    if state.ask is None or state.ask.kind != "done":
        raise RuntimeError(f"{state!r} cannot be finished: step it until its phase is decode")
    state.picture = Picture(state.index, state.seed, state.ask.args[0])
    state.ask = Ask("done")


def _as_made(pixels: Pixels) -> Pixels:
    return pixels


def _raise_first(failures: Any) -> None:
    failure: JobFailure
    for failure in failures:
        raise failure
