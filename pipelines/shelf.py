"""Components that are loaded once and lent to every job that names them: LoRAs, ControlNets, embeddings, VAEs, upscalers.

It does not decide what must leave to make room: the caller does, by bytes. One thread uses it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch

from jobs.errors import DrawingFailed
from models_registry.entries import Kind, ModelEntry
from pipelines.components import Components, weigh
from pipelines.engine.engine import Counters

#: Reads one component from its files onto a device; raises `ModelMissing`, `ModelDamaged` or `OutOfMemory`.
Load = Callable[[ModelEntry, torch.device, torch.dtype], Any]


@dataclass(frozen=True)
class Shelved:
    """One loaded component."""

    entry: ModelEntry
    value: Any
    #: What it weighs on the device.
    bytes: int


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
        """Return what everything on the shelf weighs."""
        return sum(each.bytes for each in self._held.values())

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
            shelved = Shelved(entry, value, _weight(value))
            self._counters.component_loads += 1
            self._counters.bytes_read += shelved.bytes
            if self.device.type != "cpu":
                self._counters.bytes_copied += shelved.bytes
            self._held[key] = shelved
        self._held.move_to_end(key)
        return self._held[key].value

    def shrink(self, allowed: int, keep: AbstractSet[tuple[Kind, str]] = frozenset()) -> bool:
        """Drop the least recently used until at most `allowed` bytes are held, but none of `keep`; return whether some left."""
        leaving = [key for key in self._held if key not in keep]
        left = False
        for key in leaving:
            if self.bytes <= allowed:
                break
            del self._held[key]
            left = True
        return left

    def clear(self) -> None:
        """Drop everything."""
        self._held.clear()


def _weight(value: Any) -> int:
    """Return the bytes of every tensor a component says it has."""
    if isinstance(value, torch.nn.Module):
        return weigh(value)
    return int(getattr(value, "bytes", 0))
