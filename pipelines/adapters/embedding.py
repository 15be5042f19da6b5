"""Read a textual inversion: a word that stands for vectors of its own."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from pipelines.reading import read_tensors

#: The name of the only tensor in A1111's layout; in diffusers' it is the word itself.
_UNNAMED = "emb_params"


@dataclass(frozen=True, eq=False)
class Embedding:
    """One textual inversion."""

    path: Path
    #: The word of its own that the file gives it, in place of which its entry's name serves too.
    word: str | None
    #: Vectors x width.
    vectors: torch.Tensor = field(repr=False)

    @property
    def bytes(self) -> int:
        """Return what it weighs."""
        return self.vectors.nbytes


def load_embedding(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Embedding:
    """Read a textual inversion onto a device, raising `ModelMissing` or `ModelDamaged` with the file."""
    tensors, _ = read_tensors(entry.path)
    if len(tensors) != 1:
        raise ModelDamaged(f"{entry.path} holds {len(tensors)} tensors; a textual inversion is one")
    ((name, vectors),) = tensors.items()
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or not vectors.is_floating_point():  # noqa: PLR2004 - vectors x width
        raise ModelDamaged(f"{entry.path} has the tensor {name} of shape {tuple(vectors.shape)}, which are no vectors")
    if not vectors.float().isfinite().all():
        raise ModelDamaged(f"{entry.path} has numbers in the tensor {name} that are none (NaN or infinity)")
    return Embedding(entry.path, None if name == _UNNAMED else name, vectors.to(device, dtype))
