"""One pipeline of each class a family draws with, built once, all over the same components: no weight is there twice."""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import diffusers

from jobs.errors import DrawingFailed


class PipeKey(NamedTuple):
    """What a pipeline class is for."""

    task: str
    #: Whether ControlNets guide it.
    controlled: bool


class Pipes:
    """Build pipelines around the components of one that is loaded."""

    def __init__(self, pipe: Any, classes: Mapping[PipeKey, str]) -> None:
        self._pipe = pipe
        self._classes = classes
        self._built: dict[str, Any] = {type(pipe).__name__: pipe}

    def take(self, task: str, *, controlled: bool = False) -> Any:
        """Return the pipeline for a task; where ControlNets guide it, they are the run's own components."""
        name = self._classes.get(PipeKey(task, controlled))
        if name is None:
            raise DrawingFailed(f"this model draws no {task}{' with ControlNets' if controlled else ''}")
        if name not in self._built:
            self._built[name] = _around(getattr(diffusers, name), self._pipe)
        return self._built[name]

    def clear(self) -> None:
        """Drop every pipeline."""
        self._pipe = None
        self._built.clear()


def _around(cls: Any, pipe: Any) -> Any:
    """Build a pipeline; `from_pipe` would change the precision of the weights."""
    wanted = inspect.signature(cls.__init__).parameters
    components = {name: value for name, value in pipe.components.items() if name in wanted}
    if "controlnet" in wanted:
        components["controlnet"] = None
    if "requires_safety_checker" in wanted:
        components["requires_safety_checker"] = False
    return cls(**components)
