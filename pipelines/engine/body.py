"""The classic body: an ordinary diffusers `__call__`, run in a greenlet, that waits at every model call and step.

The clone shares the weights and owns its scheduler. The body knows no family: which components ask, and for what, is
given. It does not perform anything itself; whoever resumes it brings the answers, on the thread that started it.
"""

import copy
import functools
import threading
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple, Self

import greenlet
import torch

from pipelines.engine.asks import Ask, Kind, Proxy
from pipelines.engine.checkpoint import Checkpoint, changes, restore, snapshot

#: Component -> method -> what a call of it asks for.
Asking = Mapping[str, Mapping[str, Kind]]


class Stepped(NamedTuple):
    """What one scheduler step took and gave: enough to estimate the clean picture for a preview."""

    model_output: torch.Tensor
    timestep: Any
    sample: torch.Tensor
    #: The scheduler's output object.
    output: Any


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
    """One run of a pipeline, paused between `advance` calls; `close` must be called.

    `scheduler` becomes the run's own: hand over a deep copy, because schedulers hold the state of their loop. `components` take the place
    of the pipeline's own.
    """

    def __init__(
        self,
        pipe: Any,
        scheduler: Any,
        asking: Asking,
        arguments: Mapping[str, Any],
        generator: torch.Generator,
        resume: Checkpoint | None = None,
        *,
        components: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        #: User steps done and to do; `total` is 0 until the loop is reached.
        self.step = 0
        self.total = 0
        #: Passes of the loop done, counted from 0; -1 before the first.
        self.index = -1
        self.passes = 0
        self.latents: torch.Tensor | None = None
        self.last: Stepped | None = None
        self._generator = generator
        self._resume = resume
        self._thread = threading.get_ident()
        self._fresh: dict[str, Any] = {}
        self._scheduler = self._watched(scheduler)
        self._pipe = self._clone(pipe, asking, components)
        call = functools.partial(
            self._pipe.__call__,
            **arguments,
            generator=generator,
            callback_on_step_end=self._on_step_end,
            callback_on_step_end_tensor_inputs=["latents"],
        )
        self._greenlet: Any = greenlet.greenlet(call)

    @property
    def alive(self) -> bool:
        """Tell whether the run can still be advanced."""
        return self._greenlet is not None and not self._greenlet.dead

    @property
    def scheduler(self) -> Any:
        """Return the run's own scheduler."""
        return self._scheduler

    def advance(self, answer: object = None) -> Ask:
        """Deliver the answer and run to the next ask, raising whatever the pipeline raises."""
        self.check_thread()
        # Control returns to whoever advances, also when that is another greenlet than the one that prepared.
        self._greenlet.parent = greenlet.getcurrent()
        told = self._greenlet.switch(answer) if self._greenlet else self._greenlet.switch()
        return told if isinstance(told, Ask) else Ask("done", args=(told,))

    def changes(self) -> dict[str, Any]:
        """Encode what the scheduler remembers since the loop began."""
        return changes(self._scheduler, self._fresh)

    def generator_state(self) -> torch.Tensor:
        """Return the state of the run's CPU generator."""
        return self._generator.get_state()

    def close(self) -> None:
        """Unwind the run where it stands and drop every tensor; again is harmless."""
        if self._greenlet is None:
            return
        self.check_thread()
        running, self._greenlet = self._greenlet, None
        if running and not running.dead:
            running.parent = greenlet.getcurrent()
            running.throw(greenlet.GreenletExit)
        # Clone, proxies, scheduler and body point at each other: without this they wait for the cycle collector.
        vars(self._pipe).clear()
        vars(self._scheduler).clear()
        self._fresh.clear()
        self._pipe = self._scheduler = None
        self.latents = self.last = self._resume = None

    def check_thread(self) -> None:
        """Raise `RuntimeError` on any thread but the one that started the run: greenlets cannot cross threads."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("a run can only be advanced and closed by the thread that prepared it")

    def _watched(self, scheduler: Any) -> Any:
        # Pipelines inspect the signature of `step` for `eta` and `generator`, which wraps() keeps.
        vars(scheduler)["step"] = functools.wraps(scheduler.step)(
            functools.partial(self._scheduler_step, scheduler.step)
        )
        return scheduler

    def _clone(self, pipe: Any, asking: Asking, components: Mapping[str, Any]) -> Any:
        clone = copy.copy(pipe)
        # Through the dict, because assigning would register the proxies in the configuration.
        attributes = vars(clone)
        attributes.pop("_num_timesteps", None)
        attributes["scheduler"] = self._scheduler
        attributes.update(components)
        for name, kinds in asking.items():
            attributes[name] = Proxy(components.get(name) or getattr(pipe, name), kinds, self._pause)
        attributes["progress_bar"] = self._on_prepared
        # Whoever owns the weights decides where they live, and hooks are shared between runs.
        attributes["maybe_free_model_hooks"] = _nothing
        return clone

    def _pause(self, ask: Ask) -> Any:
        if self._resume is not None and ask.kind == "denoise":
            # Replaying: the stubbed scheduler step throws the answer away, only its shape matters.
            zeros = torch.zeros_like(ask.args[0] if ask.args else next(iter(ask.kwargs.values())))
            return SimpleNamespace(sample=zeros) if ask.kwargs.get("return_dict", True) else (zeros,)
        return self._greenlet.parent.switch(ask)

    def _on_prepared(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> _Bar:
        self.passes = vars(self._pipe).get("_num_timesteps") or len(self._scheduler.timesteps)
        self.total = self.passes if total is None else total
        self._fresh = snapshot(self._scheduler)
        return _Bar(iterable)

    def _counts(self, done: int) -> bool:
        """Tell whether pass `done` ends a user step, as the progress bar of diffusers counts them.

        A second-order scheduler passes the loop twice per step, and PLMS once more than there are steps.
        """
        order = getattr(self._scheduler, "order", 1)
        return done == self.passes or (done > self.passes - self.total * order and done % order == 0)

    def _on_step_end(self, _pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        changed: dict[str, Any] = {}
        if self._resume is not None:
            if index < self._resume.index:
                return changed
            changed["latents"] = self._wake(self._resume, tensors["latents"].device)
        elif self._counts(index + 1):
            self.step += 1
        self.index = index
        self.latents = changed.get("latents", tensors["latents"])
        self._pause(Ask("step"))
        return changed

    def _wake(self, checkpoint: Checkpoint, device: torch.device) -> torch.Tensor:
        """End the replay: put scheduler and generator where they were and return the latents of then."""
        self.step = checkpoint.step
        restore(self._scheduler, self._fresh, checkpoint.scheduler, device)
        self._generator.set_state(checkpoint.generator)
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
        output = real(model_output, timestep, sample, *args, return_dict=True, **kwargs)
        self.last = Stepped(model_output, timestep, sample, output)
        return output if return_dict else output.to_tuple()


def _nothing() -> None:
    return None
