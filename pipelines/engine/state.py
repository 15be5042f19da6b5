"""One picture in flight, as the caller sees it: progress, preview, checkpoint, close."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from jobs.errors import JobFailure
from pipelines.engine.asks import Ask
from pipelines.engine.body import Stepped
from pipelines.engine.checkpoint import Checkpoint, CheckpointMismatchError, CheckpointUnavailableError
from pipelines.engine.work import Running
from pipelines.pictures import Picture, Pixels

Phase = Literal["prepare", "denoise", "decode", "done"]


class State:
    """One picture in flight; belongs to the thread that prepared it, and `close` must be called."""

    def __init__(
        self,
        body: Running,
        *,
        number: int,
        index: int,
        seed: int,
        request: str,
        preview: Callable[[torch.Tensor, Stepped | None, Any], Pixels],
        closed: Callable[["State"], None],
        applied: Callable[[], AbstractContextManager[object]],
        finish: Callable[[Pixels], Pixels],
    ) -> None:
        #: Unique within the family.
        self.id = f"{number}.{index}"
        #: Which picture of the job it is, and the seed of that picture.
        self.index = index
        self.seed = seed
        #: What the run waits for; None before prepare is over and after the end.
        self.ask: Ask | None = None
        #: Set when the run itself is broken; a failed model call leaves it None and can be stepped again.
        self.failure: JobFailure | None = None
        self.picture: Picture | None = None
        #: To be entered around each of its model calls.
        self.applied = applied
        #: What is done to the finished pixels.
        self.finish = finish
        self._body = body
        self._request = request
        self._preview = preview
        self._closed = closed
        self._open = True

    def __repr__(self) -> str:
        return f"<State {self.id} {self.phase} {self.step}/{self.total}>"

    @property
    def step(self) -> int:
        """Return how many steps are done, as the user counts them."""
        return self._body.step

    @property
    def total(self) -> int:
        """Return how many steps there are; 0 while preparing."""
        return self._body.total

    @property
    def phase(self) -> Phase:
        """Tell which part of the work comes next."""
        if self.picture is not None or (self.ask is not None and self.ask.kind == "done"):
            return "done"
        if self._body.total == 0:
            return "prepare"
        return "decode" if self._body.over else "denoise"

    def check_thread(self) -> None:
        """Raise `RuntimeError` on any thread but the one that prepared the state."""
        self._body.check_thread()

    def advance(self, answer: object = None) -> Ask:
        """Deliver the answer to the ask and run to the next one, raising this run's error only."""
        self.ask = None
        self.ask = self._body.advance(answer)
        return self.ask

    def preview(self) -> Pixels | None:
        """Return a small picture (height x width x 3) of what is taking shape; None before the first step."""
        if self._body.latents is None:
            return None
        with torch.no_grad():
            if self.phase == "denoise":
                return self._preview(self._body.latents, self._body.last, self._body.scheduler)
            return self._preview(self._body.latents, None, self._body.scheduler)

    def checkpoint(self) -> Checkpoint:
        """Return the run as data, raising `CheckpointUnavailableError` away from a step boundary."""
        body = self._body
        if self.ask is None or self.ask.kind != "step" or body.latents is None:
            raise CheckpointUnavailableError("a run can be kept only between two steps")
        return Checkpoint(
            request=self._request,
            scheduler_class=type(body.scheduler).__name__,
            number=body.number,
            carried={name: tensor.detach().cpu() for name, tensor in body.carried.items()},
            began=body.began,
            index=body.index,
            step=body.step,
            total=body.total,
            latents=body.latents.detach().cpu(),
            scheduler=body.changes(),
            generator=body.generator_state(),
        )

    def close(self) -> None:
        """Stop the run where it stands and free its memory; again is harmless."""
        if not self._open:
            return
        with torch.no_grad():
            self._body.close()
        self._open = False
        self.ask = None
        self._closed(self)


def check_fits(checkpoint: Checkpoint, request: str, schedulers: Sequence[object]) -> None:
    """Raise `CheckpointMismatchError` unless the checkpoint was taken from this very request; `schedulers` are those of its passes."""
    if checkpoint.request != request or checkpoint.number >= len(schedulers):
        raise CheckpointMismatchError("the checkpoint was written for another picture, job or model")
    if checkpoint.scheduler_class != type(schedulers[checkpoint.number]).__name__:
        raise CheckpointMismatchError("the checkpoint was written under another scheduler")
