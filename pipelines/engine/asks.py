"""What a paused run waits for, and the stand-ins that make it wait.

Knows neither diffusers nor the engine: a proxy is given the function that pauses.
"""

import hashlib
from collections.abc import Hashable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import torch

#: `upscale` is a call of an upscaler, between two passes or as a step; `work` is any other call of runs that are no diffusers pipeline;
#: `step` is a step boundary and wants no answer; `done` carries the run's result.
Kind = Literal["denoise", "control", "encode", "decode", "upscale", "work", "step", "done"]


#: Calls of VAEs, which may be held at a higher precision than everything else.
_CODING: frozenset[Kind] = frozenset({"encode", "decode"})


class Ask(NamedTuple):
    """One thing a run waits for."""

    kind: Kind
    #: The real module and the method to call on it; None for `step` and `done`.
    module: Any = None
    method: str = ""
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    #: Named arguments that say the same of all rows of a call: where tokens lie. They are told once, and asks that differ in them part.
    shared: frozenset[str] = frozenset()

    @property
    def rows(self) -> int:
        """Return how many rows the call holds: 2 per picture under classifier-free guidance."""
        sample = self.sample
        if _is_rows(sample):
            return len(sample)
        return sample.shape[0] if isinstance(sample, torch.Tensor) and sample.ndim else 1

    @property
    def sample(self) -> Any:
        """Return what the call is about: its first argument, a tensor of rows or a list of them."""
        return self.args[0] if self.args else next(iter(self.kwargs.values()), None)

    @property
    def key(self) -> Hashable:
        """Return what must be equal for two asks to share one call."""
        rows = self.rows
        named = tuple(
            (name, _content(each) if name in self.shared else _form(each, rows)) for name, each in self.kwargs.items()
        )
        listed = _is_rows(self.sample)
        args = tuple(_rows_form(each) if listed and _is_rows(each) else _form(each, rows) for each in self.args)
        return (self.kind, id(self.module), self.method, args, named)

    def perform(self) -> Any:
        """Call the module as the run would have done."""
        return getattr(self.module, self.method)(*self.args, **self.kwargs)


class Pause(Protocol):
    """Hand an ask to the engine and return its answer."""

    def __call__(self, ask: Ask, /) -> Any:
        """Wait for the answer to `ask`."""
        ...


def _form(value: object, rows: int) -> Hashable:
    """Return what must be equal for two arguments to travel in one call, of which this one has so many rows."""
    if isinstance(value, torch.Tensor):
        # The first dimension counts rows where there is more than one dimension; of a vector (timesteps, guidance) where it has as many.
        counts = value.ndim > 1 or (value.ndim == 1 and len(value) == rows)
        return ("tensor", value.shape[1:] if counts else value.shape, value.dtype, value.device)
    if isinstance(value, Mapping):
        return tuple((name, _form(each, rows)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(_form(each, rows) for each in value)
    return value if isinstance(value, Hashable) else id(value)


def _rows_form(value: list[torch.Tensor]) -> Hashable:
    """Return the same for a list of rows: any number of them, whose first dimension may differ."""
    return ("rows", frozenset(_form(each, 0) for each in value))


def _is_rows(value: object) -> bool:
    """Tell whether an argument is a list of rows, as some denoisers take them."""
    return isinstance(value, list) and bool(value) and all(isinstance(each, torch.Tensor) for each in value)


def _content(value: object) -> Hashable:
    """Return what tells apart two arguments that all rows of a call share."""
    if not isinstance(value, torch.Tensor):
        return _form(value, 0)
    numbers = value.detach().float().cpu().contiguous().numpy().tobytes()
    return ("shared", value.shape, value.dtype, value.device, hashlib.blake2b(numbers, digest_size=16).digest())


class Proxy:
    """Stand in for a module: the named methods ask and wait, everything else is the module's own.

    Precision and place are not the run's to change, because other runs use it in between; pictures and latents come at its precision.
    """

    __slots__ = ("_kinds", "_module", "_pause", "_shared")

    def __init__(
        self, module: Any, kinds: Mapping[str, Kind], pause: Pause, shared: frozenset[str] = frozenset()
    ) -> None:
        self._module = module
        self._kinds = kinds
        self._pause = pause
        self._shared = shared

    # Pipelines ask `isinstance(self.controlnet, ControlNetModel)` and the like.
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask for a call of the module and wait."""
        return self._pause(Ask(self._kinds["__call__"], self._module, "__call__", args, kwargs, self._shared))

    def __getattr__(self, name: str) -> Any:
        kind = self._kinds.get(name)
        if kind is None:
            return getattr(self._module, name)

        def wait(*args: Any, **kwargs: Any) -> Any:
            if kind in _CODING:
                args = tuple(_at(self._module.dtype, each) for each in args)
            return self._pause(Ask(kind, self._module, name, args, kwargs))

        return wait

    def to(self, *_args: Any, **_kwargs: Any) -> "Proxy":
        """Stay as it is."""
        return self


def _at(dtype: torch.dtype, value: Any) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
