"""The memory that loaded checkpoints really take: storages of tensors, each once."""

from collections.abc import Iterable

from pipelines.families.base import Family
from pipelines.families.refining import Refiner


def storage_bytes(families: Iterable[Family | Refiner]) -> int:
    """Return the bytes of every storage that a tensor of the families lies in, each once."""
    storages = [
        tensor.untyped_storage()
        for family in families
        for part in family.parts.values()
        for tensor in (*part.parameters(), *part.buffers())
    ]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
