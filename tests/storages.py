"""The memory that loaded checkpoints really take: storages of tensors, each once."""

from collections.abc import Iterable

import torch

from pipelines.families.base import Family
from pipelines.families.refining import Refiner


def storage_bytes(families: Iterable[Family | Refiner]) -> int:
    """Return the bytes of every storage that a tensor of the families lies in, each once."""
    found = [
        tensor.untyped_storage()
        for family in families
        for part in family.parts.values()
        for tensor in (*part.parameters(), *part.buffers())
    ]
    return sum({storage.data_ptr(): storage.nbytes() for storage in found}.values())


def common(one: Family, other: Family) -> set[str]:
    """Return the names of the components whose weights lie in the same storages in both families; there is no half of one."""
    found = set()
    for name, part in one.parts.items():
        mine, theirs = _addresses(part), _addresses(other.parts.get(name, torch.nn.Module()))
        if mine & theirs:
            assert mine == theirs
            found.add(name)
    return found


def _addresses(part: torch.nn.Module) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in part.state_dict().values()}
