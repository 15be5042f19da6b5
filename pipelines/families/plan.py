"""How one picture is going to be drawn: which pipelines are called, with what, under which adapters, and what becomes of its pixels."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pipelines.engine.passes import Pass
from pipelines.pictures import Pixels


def as_drawn(pixels: Pixels) -> Pixels:
    """Return a picture as the pipeline drew it."""
    return pixels


@dataclass(frozen=True)
class Plan:
    """Everything the run of one picture needs beside its schedulers and its seed."""

    #: Drawn one after another; none where the picture is `given`.
    passes: Sequence[Pass]
    #: Entered around each model call of the run, because other runs use the same modules in between.
    applied: Callable[[], AbstractContextManager[object]] = nullcontext
    #: What is done to the finished pixels: put back into the picture they were cut from, and the like.
    finish: Callable[[Pixels], Pixels] = as_drawn
    #: The picture itself, where there is nothing to draw.
    given: Pixels | None = None
