"""One pipeline of each class a family draws with, built once, all over the same components: no weight is there twice."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
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

    def __init__(self, pipe: Any, classes: Mapping[PipeKey, str | type]) -> None:
        self._pipe = pipe
        self._classes = classes
        self._built: dict[str, Any] = {type(pipe).__name__: pipe}

    def take(self, task: str, *, controlled: bool = False) -> Any:
        """Return the pipeline for a task; where ControlNets guide it, they are the run's own components."""
        wanted = self._classes.get(PipeKey(task, controlled))
        if wanted is None:
            raise DrawingFailed(f"this model draws no {task}{' with ControlNets' if controlled else ''}")
        name = wanted if isinstance(wanted, str) else wanted.__name__
        if name not in self._built:
            cls = getattr(diffusers, wanted) if isinstance(wanted, str) else wanted
            self._built[name] = _around(cls, self._pipe)
        return self._built[name]

    def draws(self, task: str) -> bool:
        """Tell whether there is a pipeline for a task."""
        return PipeKey(task, controlled=False) in self._classes

    def clear(self) -> None:
        """Drop every pipeline."""
        self._pipe = None
        self._built.clear()


def neutral_options(cls: Any) -> dict[str, Any]:
    """Return the options of a pipeline class that keep it from judging or marking pictures."""
    wanted = inspect.signature(cls.__init__).parameters
    return {name: value for name, value in _NEUTRAL.items() if name in wanted}


#: Parts and options of pipelines that have nothing to do with drawing.
_NEUTRAL: Mapping[str, Any] = MappingProxyType(
    {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False, "add_watermarker": False}
)


def _around(cls: Any, pipe: Any) -> Any:
    """Build a pipeline; `from_pipe` would change the precision of the weights."""
    wanted = inspect.signature(cls.__init__).parameters
    options = {name: value for name, value in pipe.config.items() if name in wanted}
    components = {name: value for name, value in pipe.components.items() if name in wanted}
    if "controlnet" in wanted:
        components["controlnet"] = None
    return cls(**{**options, **components, **neutral_options(cls)})
