"""The parts of checkpoints (denoiser, VAE, text encoders) on one device: each content is there once, however many checkpoints have it.

It keeps nothing alive: a part is here while a loaded checkpoint has it, and gone with the last of them. Nothing that differs between two
users may be written into a part: stacks of LoRAs are added around calls, schedulers are each run's own, precision belongs to what is
shared. One thread uses it.
"""

import json
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

import torch

from pipelines.engine.engine import Counters
from pipelines.failures import attempt

#: Keys of configurations that tell where a part came from, and nothing about what it does; in diffusers' all begin with an underscore.
_ORIGINS: Final = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype"})


class _Content(NamedTuple):
    """What a part is known by before it is read."""

    #: Of its weights, as the registry hashed them.
    digest: str
    cls: type
    config: str
    dtype: torch.dtype


class _Form(NamedTuple):
    """What two parts must have in common before their numbers are compared."""

    cls: type
    config: str
    #: Name, shape and precision of each tensor.
    tensors: tuple[tuple[str, torch.Size, torch.dtype], ...]


class Components:
    """Lend parts of checkpoints, and read what is not here yet."""

    def __init__(self, device: torch.device, counters: Counters) -> None:
        self.device = device
        self._counters = counters
        self._by_content: weakref.WeakValueDictionary[_Content, torch.nn.Module] = weakref.WeakValueDictionary()
        self._forms: weakref.WeakKeyDictionary[torch.nn.Module, _Form] = weakref.WeakKeyDictionary()

    def take(
        self, digest: str, cls: type, config: Mapping[str, Any], dtype: torch.dtype, read: Callable[[], Any]
    ) -> Any:
        """Return the part of this content, by `read` unless it is here; `digest` is empty where nobody knows it.

        Raises what `read` does, and `OutOfMemory`.
        """
        content = _Content(digest, cls, _canonical(config), dtype)
        held = self._by_content.get(content) if digest else None
        if held is not None:
            self._counters.components_shared += 1
            return held
        part = self.settle(read())
        if digest:
            self._by_content[content] = part
        return part

    def settle(self, part: Any) -> Any:
        """Return the part that is here already and equals one just read, number by number; else this one, moved to the device.

        Raises `OutOfMemory`.
        """
        self._counters.components_read += 1
        self._counters.bytes_read += weigh(part)
        form = _form(part)
        for held in self._alike(form):
            if self._equal(held, part):
                self._counters.components_shared += 1
                return held
        if _is_elsewhere(part, self.device):
            attempt(lambda: part.to(self.device))
            self._counters.bytes_copied += weigh(part)
        self._forms[part] = form
        return part

    def held(self, digests: Collection[str]) -> Mapping[str, torch.nn.Module]:
        """Return the parts that are here, by those of these digests that are theirs; who keeps the answer keeps the parts."""
        return {content.digest: part for content, part in self._by_content.items() if content.digest in digests}

    def _alike(self, form: _Form) -> Iterator[torch.nn.Module]:
        yield from [part for part, other in self._forms.items() if other == form]

    def _equal(self, held: torch.nn.Module, part: torch.nn.Module) -> bool:
        """Compare tensor by tensor, so that what differs is told early and never lies on the device twice."""
        mine = held.state_dict()
        for name, tensor in part.state_dict().items():
            there = tensor
            if tensor.device.type != self.device.type:
                there = attempt(lambda each=tensor: each.to(self.device))  # type: ignore[misc]
                self._counters.bytes_copied += tensor.nbytes
            if not torch.equal(mine[name], there):
                return False
        return True


def parts_of(pipe: Any) -> Mapping[str, torch.nn.Module]:
    """Return what of a diffusers pipeline has weights, by the names of components."""
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


def weigh(part: torch.nn.Module) -> int:
    """Return the bytes of every tensor a part has; what two of its layers share counts once."""
    return sum(each.nbytes for each in (*part.parameters(), *part.buffers()))


def footprint(value: Any) -> Mapping[int, int]:
    """Return what something loaded is made of: the bytes of each part, by what tells it from the others for as long as it is here.

    A module is one part; what has `parts` is those; anything else says its `bytes`.
    """
    if isinstance(value, torch.nn.Module):
        return {id(value): weigh(value)}
    parts = getattr(value, "parts", None)
    if parts is None:
        return {id(value): int(getattr(value, "bytes", 0))}
    return {id(part): weigh(part) for part in parts.values()}


def _is_elsewhere(part: torch.nn.Module, device: torch.device) -> bool:
    return any(each.device.type != device.type for each in (*part.parameters(), *part.buffers()))


def _form(part: torch.nn.Module) -> _Form:
    config: Any = part.config
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    tensors = tuple((name, each.shape, each.dtype) for name, each in part.state_dict().items())
    return _Form(type(part), _canonical(values), tensors)


def _canonical(config: Mapping[str, Any]) -> str:
    """Return what of a configuration shapes the part, as text that is equal where that is."""
    shaping = {key: value for key, value in config.items() if not key.startswith("_") and key not in _ORIGINS}
    return json.dumps(shaping, sort_keys=True, default=str)
