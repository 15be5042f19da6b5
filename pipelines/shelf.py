"""Components that are loaded once and lent to every job that names them: LoRAs, ControlNets, embeddings, VAEs, upscalers.

It does not decide what must leave to make room: the caller does, by bytes. One thread uses it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch

from jobs.errors import DrawingFailed
from models_registry.entries import Kind, ModelEntry
from pipelines.components import Components, storages
from pipelines.engine.engine import Counters

#: Reads one component from its files onto a device; raises `ModelMissing`, `ModelDamaged` or `OutOfMemory`.
Load = Callable[[ModelEntry, torch.device, torch.dtype], Any]

_NOTHING: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class Shelved:
    """One loaded component."""

    entry: ModelEntry
    value: Any

    @property
    def weights(self) -> Mapping[int, int]:
        """Return the bytes of each storage, by its address; checkpoints may have some of them too."""
        if isinstance(self.value, torch.nn.Module):
            return storages(self.value)
        parts = getattr(self.value, "parts", None)
        if parts is not None:
            return storages(*parts.values())
        return {id(self.value): int(getattr(self.value, "bytes", 0))}

    @property
    def bytes(self) -> int:
        """Return what it weighs on the device."""
        return sum(self.weights.values())


class Shelf:
    """Keep loaded components by the content of their files, the most recently used last."""

    def __init__(
        self, loaders: Mapping[Kind, Load], device: torch.device, dtype: torch.dtype, counters: Counters
    ) -> None:
        self.device = device
        self.dtype = dtype
        #: What the checkpoints are made of that things are lent to.
        self.components = Components(device, counters)
        self._loaders = loaders
        self._counters = counters
        self._held: OrderedDict[tuple[Kind, str], Shelved] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Return what everything on the shelf weighs, what two things have in common once."""
        return sum(self.weights.values())

    @property
    def weights(self) -> Mapping[int, int]:
        """Return the bytes of each storage of everything on the shelf, by its address."""
        return {address: size for each in self._held.values() for address, size in each.weights.items()}

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Return what is loaded, the most recently used last."""
        return tuple(each.entry for each in self._held.values())

    @property
    def held(self) -> tuple[Shelved, ...]:
        """Return everything on the shelf, the most recently used last."""
        return tuple(self._held.values())

    def take(self, entry: ModelEntry, load: Load | None = None) -> Any:
        """Return a component, loading it unless one of the same content is here already; `load` reads it in place of its kind's loader."""
        # By content: a renamed file is the same component, a replaced one is another.
        key = (entry.kind, entry.fingerprint)
        if key not in self._held:
            load = load or self._loaders.get(entry.kind)
            if load is None:
                raise DrawingFailed(f"no loader for a {entry.kind} ({entry.name})")
            value = load(entry, self.device, self.dtype)
            self._held[key] = Shelved(entry, value)
            self._counters.component_loads += 1
            # A checkpoint's components are counted where they are read.
            if entry.kind is not Kind.CHECKPOINT:
                self._counters.bytes_read += self._held[key].bytes
                self._counters.bytes_copied += self._held[key].bytes if self.device.type != "cpu" else 0
        self._held.move_to_end(key)
        return self._held[key].value

    def shrink(
        self, allowed: int, keep: AbstractSet[tuple[Kind, str]] = frozenset(), beside: Mapping[int, int] = _NOTHING
    ) -> bool:
        """Drop the least recently used until at most `allowed` bytes are held, but none of `keep`; return whether some left.

        Storages that others hold `beside` the shelf count as well, and are not freed.
        """
        leaving = [key for key in self._held if key not in keep]
        left = False
        for key in leaving:
            if sum({**self.weights, **beside}.values()) <= allowed:
                break
            del self._held[key]
            left = True
        return left

    def clear(self) -> None:
        """Drop everything."""
        self._held.clear()
