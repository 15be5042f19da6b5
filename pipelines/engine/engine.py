"""The one loop of ours: it performs what paused runs ask for, and keeps one run's error from the others.

It knows no family and no parameters. Every entry runs under `no_grad`, because grad mode belongs to the thread and not
to the greenlet: a run that ends while another is paused would otherwise switch it on for the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from jobs.errors import JobFailure
from pipelines.engine.asks import Ask, Kind
from pipelines.engine.state import Phase, State
from pipelines.failures import as_failure

#: What a prepared run may wait for: the calls of its steps, or a boundary.
_STEPPING: Final = frozenset[Kind]({"denoise", "control", "upscale", "work", "step"})


@dataclass
class Counters:
    """Count what was really done: tests gate on these, never on time."""

    loads: int = 0
    #: Of LoRAs, ControlNets, embeddings, VAEs and upscalers.
    component_loads: int = 0
    #: Parts of checkpoints that were read from their files, and those that needed no copy of their own: equal ones were here already.
    components_read: int = 0
    components_shared: int = 0
    #: Weights, of anything: read from files, and copied from the host's memory to the device's.
    bytes_read: int = 0
    bytes_copied: int = 0
    prepares: int = 0
    denoise_calls: int = 0
    denoise_rows: int = 0
    #: Calls of upscalers: each enlarges one tile, or a picture between two passes.
    upscales: int = 0
    encodes: int = 0
    decodes: int = 0
    steps: int = 0


@dataclass(frozen=True)
class StepReport:
    """Say what came of one step."""

    #: Runs that are broken or whose model call failed; the others have advanced.
    errors: Mapping[State, JobFailure] = field(default_factory=dict)


class Engine:
    """Advance runs from ask to ask."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters

    def start(self, state: State) -> None:
        """Run a new state to its first denoise ask or, resumed, to the boundary it was kept at; raise its failure."""
        errors: dict[State, JobFailure] = {}
        with torch.no_grad():
            self._advance(state, None, errors)
            self._run([state], _STEPPING, errors)
        self.counters.prepares += 1
        _raise_first(errors)

    def step(self, states: Sequence[State]) -> StepReport:
        """Take every denoising state through one scheduler step; states past their last step stay where they are."""
        going, errors = self._take(states, "denoise", frozenset({"step"}))
        self.counters.steps += sum(state not in errors for state in going)
        return StepReport(errors)

    def finish(self, states: Sequence[State]) -> dict[State, JobFailure]:
        """Decode every state that is past its last step; return the failures."""
        return self._take(states, "decode", frozenset({"done"}))[1]

    def _take(
        self, states: Sequence[State], phase: Phase, until: frozenset[Kind]
    ) -> tuple[list[State], dict[State, JobFailure]]:
        """Take the unbroken states of a phase to their next ask of `until`."""
        for state in states:
            state.check_thread()
        errors = {state: state.failure for state in states if state.failure is not None}
        going = [state for state in states if state.phase == phase and state.failure is None]
        with torch.no_grad():
            for state in going:
                # A failed call of last time left its state at the ask: that one is performed again.
                if state.ask is not None and state.ask.kind == "step":
                    self._advance(state, None, errors)
            self._run(going, until, errors)
        return going, errors

    def _run(self, states: Iterable[State], until: frozenset[Kind], errors: dict[State, JobFailure]) -> None:
        """Perform asks until every state waits for one of `until`, is done, or has an error."""
        while True:
            waiting = [state for state in states if state not in errors and _wants(state, until)]
            if not waiting:
                return
            for group in _grouped(waiting):
                self._answer(group, errors)

    def _answer(self, group: Sequence[State], errors: dict[State, JobFailure]) -> None:
        """Perform the asks of one group; for now each in a call of its own."""
        for state in group:
            ask = state.ask
            if ask is None:
                continue
            failure: JobFailure | None = None
            answer: object = None
            try:
                with state.applied():
                    answer = ask.perform()
            # Anything a model call raises is this state's error; it stays at its ask and may be stepped again.
            except Exception as error:  # noqa: BLE001
                failure = as_failure(error)
            if failure is not None:
                errors[state] = failure
                continue
            self._count(ask)
            self._advance(state, answer, errors)

    def _advance(self, state: State, answer: object, errors: dict[State, JobFailure]) -> None:
        failure: JobFailure | None = None
        try:
            state.advance(answer)
        # The pipeline's own code raised: the run is over, its neighbours are not.
        except Exception as error:  # noqa: BLE001
            failure = as_failure(error)
        if failure is not None:
            state.failure = errors[state] = failure

    def _count(self, ask: Ask) -> None:
        if ask.kind == "denoise":
            self.counters.denoise_calls += 1
            self.counters.denoise_rows += ask.rows
        elif ask.kind == "upscale":
            self.counters.upscales += 1
        elif ask.kind == "encode":
            self.counters.encodes += 1
        elif ask.kind == "decode":
            self.counters.decodes += 1


def _wants(state: State, until: frozenset[Kind]) -> bool:
    return state.ask is not None and state.ask.kind not in until and state.ask.kind != "done"


def _grouped(states: Sequence[State]) -> Iterable[Sequence[State]]:
    """Put states whose asks may share one call together, in order of arrival."""
    if len(states) == 1:
        return [states]
    groups: dict[object, list[State]] = {}
    for state in states:
        groups.setdefault(state.ask.key if state.ask else None, []).append(state)
    return groups.values()


def _raise_first(errors: Mapping[State, JobFailure]) -> None:
    for failure in errors.values():
        raise failure
