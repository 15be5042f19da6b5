"""A body of our own: code that is no diffusers pipeline, as a generator of asks, run by the same engine and seen through the same state.

It performs nothing itself, exactly like `pipelines.engine.body.Body`: each heavy call is an ask that the engine performs, so that one
that failed is performed again, and nothing else.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any, Protocol

import torch

from pipelines.engine.asks import Ask
from pipelines.engine.checkpoint import Checkpoint
from pipelines.pictures import Pixels

#: A generator that is told the answers to its asks and returns the finished picture.
Asks = Generator[Ask, Any, Pixels]


class Running(Protocol):
    """What a state needs of the run that it shows."""

    @property
    def step(self) -> int:
        """Return how many steps are done, as the user counts them."""

    @property
    def total(self) -> int:
        """Return how many steps there are; 0 until they are known."""

    @property
    def over(self) -> bool:
        """Tell whether the last step is done."""

    @property
    def number(self) -> int:
        """Return which pass of the run it is in, from 0."""

    @property
    def carried(self) -> Mapping[str, torch.Tensor]:
        """Return what that pass took over from those before it."""

    @property
    def began(self) -> torch.Tensor:
        """Return the state of the run's generator when that pass began."""

    @property
    def index(self) -> int:
        """Return the last finished round of that pass's loop, from 0; -1 before the first."""

    @property
    def latents(self) -> torch.Tensor | None:
        """Return what has taken shape; None before the first step."""

    @property
    def last(self) -> Any:
        """Return what the last step took and gave."""

    @property
    def scheduler(self) -> Any:
        """Return what steps; its class is part of a checkpoint."""

    def advance(self, answer: object = None) -> Ask:
        """Deliver the answer and run to the next ask."""

    def changes(self) -> dict[str, Any]:
        """Encode what prepare cannot make anew."""

    def generator_state(self) -> torch.Tensor:
        """Return the state of the run's generator."""

    def check_thread(self) -> None:
        """Raise `RuntimeError` on any thread but the run's own."""

    def close(self) -> None:
        """Stop the run and free its memory; again is harmless."""


class Work(ABC):
    """One picture made by code of our own: how it asks, what it shows, what it keeps."""

    def __init__(self, total: int) -> None:
        self.step = 0
        self.total = total

    @abstractmethod
    def asks(self) -> Asks:
        """Yield each heavy call and, after each step, a `step`; return the picture. Restored work yields a `step` first."""

    @abstractmethod
    def preview(self) -> Pixels:
        """Return a small picture of what is taking shape."""

    @abstractmethod
    def keep(self) -> dict[str, Any]:
        """Return copies, as plain data and tensors, of what is needed to go on from this step boundary."""

    @abstractmethod
    def restore(self, checkpoint: Checkpoint) -> None:
        """Put fresh work where the checkpoint's was."""

    def applied(self) -> AbstractContextManager[object]:
        """Return what is to be entered around each of its calls."""
        return nullcontext()

    @abstractmethod
    def close(self) -> None:
        """Free what it holds; again is harmless."""


class WorkBody:
    """One run of a work, paused between `advance` calls; `close` must be called."""

    last: Any = None
    #: There is one pass, which takes over nothing.
    number = 0
    carried: Mapping[str, torch.Tensor] = MappingProxyType({})

    def __init__(self, work: Work) -> None:
        self._work: Work | None = work
        self._asks = work.asks()
        self._thread = threading.get_ident()
        self._begun = False
        self._nothing = torch.zeros(0)
        #: No generator either: whatever noise there is belongs to runs inside.
        self.began = self._nothing

    @property
    def step(self) -> int:
        """Return how many steps are done."""
        return 0 if self._work is None else self._work.step

    @property
    def total(self) -> int:
        """Return how many steps there are."""
        return 0 if self._work is None else self._work.total

    @property
    def over(self) -> bool:
        """Tell whether the last step is done."""
        return self.step >= self.total

    @property
    def index(self) -> int:
        """Return the last finished step, from 0."""
        return self.step - 1

    @property
    def latents(self) -> torch.Tensor | None:
        """Return an empty tensor, or None before the first boundary: pictures take shape in the work."""
        return self._nothing if self._work is not None and self._begun else None

    @property
    def scheduler(self) -> Work:
        """Return the work, which is what steps here."""
        if self._work is None:
            raise RuntimeError("the run is closed")
        return self._work

    def advance(self, answer: object = None) -> Ask:
        """Deliver the answer and run to the next ask, raising whatever the work raises."""
        self.check_thread()
        try:
            ask = self._asks.send(answer)
        except StopIteration as end:
            return Ask("done", args=(end.value,))
        self._begun = self._begun or ask.kind == "step"
        return ask

    def changes(self) -> dict[str, Any]:
        """Return what the work keeps."""
        return self.scheduler.keep()

    def generator_state(self) -> torch.Tensor:
        """Return an empty tensor."""
        return self._nothing

    def check_thread(self) -> None:
        """Raise `RuntimeError` on any thread but the one that started the run, as every body does."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("a run can only be advanced and closed by the thread that prepared it")

    def close(self) -> None:
        """Stop the work where it stands and free its memory; again is harmless."""
        if self._work is None:
            return
        self.check_thread()
        self._asks.close()
        self._work.close()
        self._work = None
