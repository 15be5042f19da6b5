"""Add LoRA stacks to the output of a component's layers, for the time of a call and without touching a weight.

A layer gets a hook when the first LoRA that names it is bound, and keeps it; which stack it adds is one pointer of the component. So to
switch is to set a pointer, runs with different stacks may take turns call by call, and with no stack every layer answers its own bits.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from jobs.errors import ModelDamaged
from pipelines.adapters.deltas import Delta, fits, parts
from pipelines.adapters.keys import Component, layer_name
from pipelines.adapters.lora import Lora
from pipelines.original.names import original_names
from pipelines.original.transformer_names import transformer_names

#: By layer: what is added to its output, with its weight, in order.
Stack = Mapping[torch.nn.Module, Sequence[tuple[Delta, float]]]

NOTHING: Stack = MappingProxyType({})


class Weighted(NamedTuple):
    """One LoRA of a job."""

    lora: Lora
    weight: float


class Host:
    """One component (denoiser, text encoder) that LoRAs are added to; one thread uses it."""

    def __init__(self, component: Component, module: torch.nn.Module) -> None:
        self._component = component
        self._layers = _layers(component, module)
        self._active: Stack = NOTHING
        self._hooks: dict[torch.nn.Module, Any] = {}
        self._bound: weakref.WeakKeyDictionary[Lora, Sequence[tuple[torch.nn.Module, Delta]]] = (
            weakref.WeakKeyDictionary()
        )

    def stack(self, weighted: Sequence[Weighted]) -> Stack:
        """Return what LoRAs add together, raising `ModelDamaged` when one was made for another model.

        It is summed in the order of fingerprints and weights, so that the order they were named in changes no bit; weight 0 is left out.
        """
        stack: dict[torch.nn.Module, list[tuple[Delta, float]]] = defaultdict(list)
        for lora, weight in sorted(weighted, key=lambda each: (each.lora.fingerprint, each.weight)):
            if weight == 0:
                continue
            for layer, delta in self._bind(lora):
                stack[layer].append((delta, weight * delta.scale))
        return dict(stack)

    def check(self, lora: Lora) -> None:
        """Raise `ModelDamaged` unless every layer a LoRA names is here, in the shape it was made for."""
        self._bind(lora)

    def applied(self, stack: Stack) -> Callable[[], AbstractContextManager[None]]:
        """Return how to enter the time in which a stack is added."""
        return lambda: self._during(stack)

    def close(self) -> None:
        """Take every hook off."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._bound.clear()
        self._active = NOTHING

    @contextmanager
    def _during(self, stack: Stack) -> Iterator[None]:
        before, self._active = self._active, stack
        try:
            yield
        finally:
            self._active = before

    def _bind(self, lora: Lora) -> Sequence[tuple[torch.nn.Module, Delta]]:
        """Find the layers a LoRA names, all before any gets its hook."""
        known = self._bound.get(lora)
        if known is not None:
            return known
        found: list[tuple[torch.nn.Module, Delta]] = []
        for name, delta in lora.deltas.get(self._component, {}).items():
            layers = self._layers.get(name)
            if layers is None:
                raise ModelDamaged(f"{lora.path} was made for another model: {delta.key} names no layer of this one")
            rows = [layer.weight.shape[0] for layer in layers]
            split = [delta] if len(layers) == 1 else parts(delta, rows)
            if not split or not all(map(fits, split, layers)):
                raise ModelDamaged(
                    f"{lora.path} was made for another model: {delta.key} belongs to weights {delta.shape},"
                    f" where this one has {(sum(rows), *layers[0].weight.shape[1:])}"
                )
            found.extend(zip(layers, split, strict=True))
        for layer, _ in found:
            if layer not in self._hooks:
                self._hooks[layer] = layer.register_forward_hook(self._add)
        self._bound[lora] = found
        return found

    def _add(self, layer: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        for delta, weight in self._active.get(layer, ()):
            output = output + weight * delta(layer, args[0])
        return output


def _layers(component: Component, module: torch.nn.Module) -> Mapping[str, Sequence[Any]]:
    """Return what can be added to, by the name LoRA files give it; of a denoiser by its original name too.

    Original names of transformers may stand for several layers, whose outputs lie one behind the other.
    """
    paths = {
        path: layer for path, layer in module.named_modules() if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
    }
    layers: dict[str, Sequence[Any]] = {layer_name(component, path): (layer,) for path, layer in paths.items()}
    if component == "unet":
        for path, original in original_names(paths).items():
            layers.setdefault(layer_name(component, original), (paths[path],))
    if component == "transformer":
        for original, together in transformer_names(paths).items():
            layers.setdefault(layer_name(component, original), tuple(paths[path] for path in together))
    return layers
