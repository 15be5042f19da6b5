"""Read a textual inversion: a word that stands for vectors of its own, in each text encoder that reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch

from jobs.errors import ModelDamaged
from models_registry.entries import ModelEntry
from pipelines.adapters.keys import Component
from pipelines.reading import read_tensors

#: The name of the only tensor in A1111's layout; in diffusers' it is the word itself.
_UNNAMED = "emb_params"
#: Names of the tensors in files for models with two text encoders.
_ENCODERS: Mapping[str, Component] = MappingProxyType(
    {
        "clip_l": "text_encoder",
        "clip_g": "text_encoder_2",
        "text_encoders_0": "text_encoder",
        "text_encoders_1": "text_encoder_2",
    }
)


@dataclass(frozen=True, eq=False)
class Embedding:
    """One textual inversion."""

    path: Path
    #: The word of its own that the file gives it, in place of which its entry's name serves too.
    word: str | None
    #: By text encoder: vectors x width.
    vectors: Mapping[Component, torch.Tensor] = field(repr=False)

    @property
    def bytes(self) -> int:
        """Return what it weighs."""
        return sum(each.nbytes for each in self.vectors.values())


def load_embedding(entry: ModelEntry, device: torch.device, dtype: torch.dtype) -> Embedding:
    """Read a textual inversion onto a device, raising `ModelMissing` or `ModelDamaged` with the file."""
    tensors, _ = read_tensors(entry.path)
    if tensors.keys() <= _ENCODERS.keys() and len({_ENCODERS[name] for name in tensors}) == len(tensors) > 0:
        named: dict[Component, str] = {_ENCODERS[name]: name for name in tensors}
        word = None
    elif len(tensors) == 1:
        (name,) = tensors
        named, word = {"text_encoder": name}, None if name == _UNNAMED else name
    else:
        raise ModelDamaged(
            f"{entry.path} holds {len(tensors)} tensors; a textual inversion is one for each text encoder"
        )
    vectors = {component: _vectors(entry.path, name, tensors[name]) for component, name in named.items()}
    return Embedding(entry.path, word, {name: each.to(device, dtype) for name, each in vectors.items()})


def _vectors(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    vectors = tensor[None] if tensor.ndim == 1 else tensor
    if vectors.ndim != 2 or not vectors.is_floating_point():  # noqa: PLR2004 - vectors x width
        raise ModelDamaged(f"{path} has the tensor {name} of shape {tuple(vectors.shape)}, which are no vectors")
    if not vectors.float().isfinite().all():
        raise ModelDamaged(f"{path} has numbers in the tensor {name} that are none (NaN or infinity)")
    return vectors
