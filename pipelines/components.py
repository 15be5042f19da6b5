"""The parts of checkpoints (denoiser, VAE, text encoders) on one device: each content is there once, however many checkpoints have it.

What is shared are tensors. Every user gets modules of its own around them, so that hooks, flags and precision of one are nothing to the
others; only what is written into the numbers themselves would be, and nobody does that. Nothing is kept alive here: a part is here while a
loaded checkpoint has it, and gone with the last of them. One thread uses it.
"""

import copy
import json
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

import torch

from pipelines.engine.engine import Counters
from pipelines.failures import attempt

#: Keys of configurations that tell where a part came from, and nothing about what it does; in diffusers' all begin with an underscore.
_ORIGINS: Final = frozenset({"transformers_version", "architectures", "dtype", "torch_dtype"})


class Numbers(NamedTuple):
    """What tells the tensors of a part from others, before anything is read."""

    #: As the registry hashed them.
    digest: str
    dtype: torch.dtype


class _Content(NamedTuple):
    """What a part is known by before it is read."""

    #: Of its weights, as the registry hashed them.
    digest: str
    cls: type
    config: str
    dtype: torch.dtype


class _Form(NamedTuple):
    """What a part is beside its numbers: those of two are compared where their tensors are alike."""

    cls: type
    config: str
    #: Name, shape and precision of each tensor.
    tensors: tuple[tuple[str, torch.Size, torch.dtype], ...]


class Components:
    """Lend parts of checkpoints, and read what is not here yet."""

    def __init__(self, device: torch.device, counters: Counters) -> None:
        self.device = device
        self._counters = counters
        # Of the parts as they were read, which nobody uses.
        self._by_content: weakref.WeakValueDictionary[_Content, torch.nn.Module] = weakref.WeakValueDictionary()
        self._forms: weakref.WeakKeyDictionary[torch.nn.Module, _Form] = weakref.WeakKeyDictionary()
        #: What users have, each with the part that it was made of, which stays for as long.
        self._lent: weakref.WeakKeyDictionary[torch.nn.Module, torch.nn.Module] = weakref.WeakKeyDictionary()

    def take(
        self, digest: str, cls: type, config: Mapping[str, Any], dtype: torch.dtype, read: Callable[[], Any]
    ) -> Any:
        """Return a part of this content, by `read` unless it is here; `digest` is empty where nobody knows it.

        Raises what `read` does, and `OutOfMemory`.
        """
        content = _Content(digest, cls, _canonical(config), dtype)
        held = self._by_content.get(content) if digest else None
        if held is not None:
            self._counters.components_shared += 1
            return self._lend(held)
        part = self._settle(read())
        if digest:
            self._by_content[content] = part
        return self._lend(part)

    def settle(self, part: Any) -> Any:
        """Return a part that was just read, on the device: over the tensors that are there already where they are equal, number by number.

        Raises `OutOfMemory`.
        """
        return self._lend(self._settle(part))

    def held(self, wanted: Collection[Numbers]) -> Mapping[Numbers, torch.nn.Module]:
        """Return the parts that are here of those wanted; whoever keeps the answer keeps them here."""
        here = {Numbers(content.digest, content.dtype): part for content, part in self._by_content.items()}
        return {numbers: part for numbers, part in here.items() if numbers in wanted}

    def _settle(self, part: torch.nn.Module) -> torch.nn.Module:
        self._counters.components_read += 1
        self._counters.bytes_read += weigh(part)
        form = _form(part)
        held = next((each for each in self._alike(form) if self._equal(each, part)), None)
        if held is not None:
            self._counters.components_shared += 1
            if self._forms[held] == form:
                return held
            # The same numbers under other settings: a part of its own, over the same tensors.
            part.load_state_dict(held.state_dict(), assign=True)
        elif _is_elsewhere(part, self.device):
            self._counters.bytes_copied += weigh(part)
        # Of a part whose tensors are there already, what is computed and not stored.
        attempt(lambda: part.to(self.device))
        self._forms[part] = form
        return part

    def _lend(self, part: torch.nn.Module) -> torch.nn.Module:
        """Make modules of their own around the same tensors."""
        tensors: dict[int, Any] = {
            # Whether they may learn stays as it is: torch takes other routines for what may not, and some processors then give other bits.
            **{id(each): torch.nn.Parameter(each.data, each.requires_grad) for each in part.parameters()},
            **{id(each): each.data for each in part.buffers()},
        }
        lent = copy.deepcopy(part, tensors)
        self._lent[lent] = part
        return lent

    def _alike(self, form: _Form) -> Iterator[torch.nn.Module]:
        # Those first that are the same altogether.
        found = [part for part, other in self._forms.items() if other.tensors == form.tensors]
        yield from sorted(found, key=lambda part: self._forms[part] != form)

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


def storages(*parts: torch.nn.Module) -> Mapping[int, int]:
    """Return the memory that parts take together: the bytes of each storage, by its address."""
    found = [each.untyped_storage() for part in parts for each in (*part.parameters(), *part.buffers())]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def weigh(part: torch.nn.Module) -> int:
    """Return the bytes that a part takes."""
    return sum(storages(part).values())


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
