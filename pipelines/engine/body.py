"""The classic body: ordinary diffusers `__call__`s, run in a greenlet, that wait at every model call and step.

A clone shares the weights and owns its scheduler. The body knows no family: which components ask, and for what, is
given. It does not perform anything itself; whoever resumes it brings the answers, on the thread that started it.
"""

import copy
import functools
import inspect
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import greenlet
import torch

from pipelines.engine.asks import Ask, Kind, Proxy
from pipelines.engine.checkpoint import Checkpoint, changes, restore, snapshot
from pipelines.engine.passes import Pass

#: Component -> method -> what a call of it asks for.
Asking = Mapping[str, Mapping[str, Kind]]


class Stepped(NamedTuple):
    """What one scheduler step took and gave: enough to estimate the clean picture for a preview."""

    model_output: torch.Tensor
    timestep: Any
    sample: torch.Tensor
    #: The scheduler's output object.
    output: Any


class _Replayed(NamedTuple):
    """Stand in for a denoiser's answer, whether it is taken by its name or by its place."""

    sample: Any


class _Bar:
    """Stand in for tqdm: the engine counts steps itself."""

    def __init__(self, iterable: Iterable[Any] | None) -> None:
        self._iterable = iterable

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable or ())

    def update(self, _count: int = 1) -> None:
        """Take the pipeline's report; the step boundary has told already."""


class Body:
    """One run: passes of pipelines one after another, paused between `advance` calls; `close` must be called.

    Each of `schedulers` becomes its pass's own: hand over deep copies, because schedulers hold the state of their loop. A run without
    passes ends at once with `given`.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        schedulers: Sequence[Any],
        asking: Asking,
        generator: torch.Generator,
        resume: Checkpoint | None = None,
        *,
        given: object = None,
        shared: frozenset[str] = frozenset(),
    ) -> None:
        #: User steps done, over all passes.
        self.step = 0
        #: Which pass the run is in, from 0; what that pass took over, and the generator's state when it began.
        self.number = 0
        self.carried: Mapping[str, torch.Tensor] = {}
        self.began = generator.get_state()
        #: Rounds of the present pass's loop done, counted from 0, -1 before the first; and how many there are.
        self.index = -1
        self.rounds = 0
        self.latents: torch.Tensor | None = None
        self.last: Stepped | None = None
        self.generator = generator
        self._passes = passes
        self._schedulers = list(schedulers)
        self._asking = asking
        self._given = given
        self._shared = shared
        self._resume = resume
        self._thread = threading.get_ident()
        self._fresh: dict[str, Any] = {}
        self._scheduler: Any = None
        self._pipe: Any = None
        self._greenlet: Any = greenlet.greenlet(self._run)

    @property
    def alive(self) -> bool:
        """Tell whether the run can still be advanced."""
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def scheduler(self) -> Any:
        """Return the present pass's own scheduler."""
        return self._scheduler

    @property
    def total(self) -> int:
        """Return how many user steps there are, over all passes; 0 until a loop is reached."""
        return sum(each.steps for each in self._passes) if self.rounds or self.number else 0

    @property
    def over(self) -> bool:
        """Tell whether the last step of the last pass is done."""
        return self.number == len(self._passes) - 1 and 0 < self.rounds <= self.index + 1

    def advance(self, answer: object = None) -> Ask:
        """Deliver the answer and run to the next ask, raising whatever the pipeline raises."""
        self.check_thread()
        # Control returns to whoever advances, also when that is another greenlet than the one that prepared.
        self._greenlet.parent = greenlet.getcurrent()
        told = self._greenlet.switch(answer) if self._greenlet else self._greenlet.switch()
        return told if isinstance(told, Ask) else Ask("done", args=(told,))

    def perform(self, kind: Kind, module: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Ask for a call between two passes and wait for its answer."""
        return self._pause(Ask(kind, module, method, args, kwargs))

    def spatial(self, latents: torch.Tensor) -> torch.Tensor:
        """Return latents of the present pass (1 x ...) as 1 x channels x height x width."""
        return self._passes[self.number].spatial(latents)

    def changes(self) -> dict[str, Any]:
        """Encode what the scheduler remembers since the loop began."""
        return changes(self._scheduler, self._fresh)

    def generator_state(self) -> torch.Tensor:
        """Return the state of the run's CPU generator."""
        return self.generator.get_state()

    def close(self) -> None:
        """Unwind the run where it stands and drop every tensor; again is harmless."""
        if self._greenlet is None:
            return
        self.check_thread()
        running, self._greenlet = self._greenlet, None
        if running and not running.dead:
            running.parent = greenlet.getcurrent()
            running.throw(greenlet.GreenletExit)
        self._drop_pass()
        self._passes, self._given, self.carried = (), None, {}
        self._schedulers.clear()
        self.latents = self.last = self._resume = None

    def check_thread(self) -> None:
        """Raise `RuntimeError` on any thread but the one that started the run: greenlets cannot cross threads."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("a run can only be advanced and closed by the thread that prepared it")

    def _run(self) -> Any:
        """Draw the passes one after another; a resumed run begins with the one it was kept in."""
        output: Any = self._given
        for number, each in enumerate(self._passes):
            resume = self._resume
            if resume is not None and number < resume.number:
                continue
            if resume is None:
                carried, began = each.carry(output, self), self.generator.get_state()
            else:
                device = each.pipe.device
                carried = {name: tensor.to(device) for name, tensor in resume.carried.items()}
                began = resume.began
                self.generator.set_state(began)
            output = None
            entered = each.enter(carried, self)
            self._begin(number, carried, began)
            output = self._pipe(
                **{"output_type": "np", "return_dict": False, **each.arguments, **entered},
                generator=self.generator,
                callback_on_step_end=self._on_step_end,
                callback_on_step_end_tensor_inputs=["latents"],
            )
        return output

    def _begin(self, number: int, carried: Mapping[str, torch.Tensor], began: torch.Tensor) -> None:
        """Leave the pass before and stand before the first step of this one."""
        self._drop_pass()
        self.number, self.carried, self.began = number, carried, began
        self.index, self.rounds = -1, 0
        self._scheduler = self._watched(self._schedulers[number])
        self._pipe = self._clone(self._passes[number])

    def _drop_pass(self) -> None:
        # Clone, proxies, scheduler and body point at each other: without this they wait for the cycle collector.
        for each in (self._pipe, self._scheduler):
            if each is not None:
                vars(each).clear()
        self._fresh.clear()
        self._pipe = self._scheduler = None

    def _watched(self, scheduler: Any) -> Any:
        # Pipelines inspect the signature of `step` for `eta` and `generator`, which wraps() keeps.
        vars(scheduler)["step"] = functools.wraps(scheduler.step)(
            functools.partial(self._scheduler_step, scheduler.step)
        )
        return scheduler

    def _clone(self, each: Pass) -> Any:
        clone = copy.copy(each.pipe)
        # Through the dict, because assigning would register the proxies in the configuration.
        attributes = vars(clone)
        attributes.pop("_num_timesteps", None)
        attributes["scheduler"] = self._scheduler
        attributes.update(each.components)
        for name, kinds in self._asking.items():
            module = each.components.get(name, vars(each.pipe).get(name))
            if module is not None:
                attributes[name] = Proxy(module, kinds, self._pause, self._shared)
        attributes["progress_bar"] = self._on_prepared
        # Whoever owns the weights decides where they live, and hooks are shared between runs.
        attributes["maybe_free_model_hooks"] = _nothing
        return clone

    def _pause(self, ask: Ask) -> Any:
        if self._resume is not None and ask.kind == "control":
            # Replaying: these go into a denoiser call that is not made either.
            return (), torch.zeros(1)
        if self._resume is not None and ask.kind == "denoise":
            # Replaying: the stubbed scheduler step throws the answer away, only its shape matters.
            return _Replayed(_zeros(ask.sample))
        if ask.kind == "denoise":
            ask = self._passes[self.number].instead(ask)
        return self._greenlet.parent.switch(ask)

    def _on_prepared(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> _Bar:
        self.rounds = vars(self._pipe).get("_num_timesteps") or len(self._scheduler.timesteps)
        counted, planned = self.rounds if total is None else total, self._passes[self.number].steps
        order = getattr(self._scheduler, "order", 1)
        # Pipelines that hand a scheduler its noise levels take each of its rounds for a step.
        if counted != planned and (order == 1 or self.rounds != planned * order - (order - 1)):
            raise RuntimeError(f"the pipeline takes {counted} steps where {planned} were planned")
        self._fresh = snapshot(self._scheduler)
        return _Bar(iterable)

    def _counts(self, done: int) -> bool:
        """Tell whether round `done` ends a user step, as the progress bar of diffusers counts them.

        A second-order scheduler goes round the loop twice per step, and PLMS once more than there are steps.
        """
        order = getattr(self._scheduler, "order", 1)
        warm_up = self.rounds - self._passes[self.number].steps * order
        return done == self.rounds or (done > warm_up and done % order == 0)

    def _on_step_end(self, pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        if self._resume is not None:
            if index < self._resume.index:
                return changed
            changed["latents"] = self._wake(self._resume, tensors["latents"].device)
        else:
            self.step += self._counts(index + 1)
            # Pipelines of our own may finish a step by more than the scheduler does.
            if hasattr(type(pipe), "after_step"):
                changed["latents"] = pipe.after_step(index, tensors["latents"])
        self.index = index
        self.latents = changed.get("latents", tensors["latents"])
        self._pause(Ask("step"))
        return changed

    def _wake(self, checkpoint: Checkpoint, device: torch.device) -> torch.Tensor:
        """End the replay: put scheduler and generator where they were and return the latents of then."""
        self.step = checkpoint.step
        restore(self._scheduler, self._fresh, checkpoint.scheduler, device)
        self.generator.set_state(checkpoint.generator)
        self._resume = None
        return checkpoint.latents.to(device)

    def _scheduler_step(
        self,
        real: Any,
        model_output: Any,
        timestep: Any,
        sample: Any,
        *args: Any,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> Any:
        if self._resume is not None:
            return SimpleNamespace(prev_sample=sample) if return_dict else (sample,)
        if "generator" not in kwargs and "generator" in inspect.signature(real).parameters:
            # Pipelines for flows hand none over: noise would be the process's, and no seed's.
            kwargs["generator"] = self.generator
        output = real(model_output, timestep, sample, *args, return_dict=True, **kwargs)
        self.last = Stepped(model_output, timestep, sample, output)
        return output if return_dict else output.to_tuple()


def _zeros(rows: Any) -> Any:
    return [torch.zeros_like(each) for each in rows] if isinstance(rows, list) else torch.zeros_like(rows)


def _nothing() -> None:
    return None
