"""How one picture is going to be drawn: which pipeline is called, with what, under which adapters, and what becomes of its pixels."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pipelines.pictures import Pixels


def as_drawn(pixels: Pixels) -> Pixels:
    """Return a picture as the pipeline drew it."""
    return pixels


@dataclass(frozen=True)
class Plan:
    """Everything the run of one picture needs beside its scheduler and its seed."""

    #: The diffusers pipeline whose `__call__` is the run's body.
    pipe: Any
    #: Keyword arguments of that call, the generator and the callback apart.
    arguments: Mapping[str, Any]
    #: Components that this run has instead of the pipeline's own: another VAE, say.
    components: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    #: Entered around each model call of the run, because other runs use the same modules in between.
    applied: Callable[[], AbstractContextManager[object]] = nullcontext
    #: What is done to the finished pixels: put back into the picture they were cut from, and the like.
    finish: Callable[[Pixels], Pixels] = as_drawn
