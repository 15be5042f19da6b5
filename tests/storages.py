"""The memory that loaded checkpoints really take: storages of tensors, each once."""

from collections.abc import Iterable

from pipelines.components import storages
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
    """Return the names of the components that lie in the same storages in both families; there is no half of one."""
    found = set()
    for name, part in one.parts.items():
        mine, theirs = storages(part).keys(), storages(other.parts[name]).keys() if name in other.parts else set()
        if mine & theirs:
            assert mine == theirs
            found.add(name)
    return found
