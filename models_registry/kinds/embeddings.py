"""Embeddings (textual inversions): one tensor with a row for each token that the name stands for."""

from typing import Final

from models_registry.bounded_files import Reads
from models_registry.entries import Kind
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds.unets import refuse_text_width
from models_registry.refusals import Unrecognised
from models_registry.safetensors_header import Header

#: A1111's name of the tensor; diffusers names it after the word it stands for.
A1111_NAME: Final = "emb_params"
#: SDXL has a tensor for each of its two text encoders.
_SDXL: Final = frozenset({"clip_l", "clip_g"})
#: A prompt is read in windows of so many tokens, and an embedding must fit into one.
MAX_VECTORS: Final = 75
_FLOATS: Final = frozenset({"F16", "BF16", "F32", "F64"})


def from_file(header: Header, _: Reads) -> Findings | None:
    """Read one embedding, raising `Unrecognised` for another family's; None for what is none."""
    if header.tensors.keys() == _SDXL:
        raise Unrecognised(header.path, "is an embedding for SDXL, which is not supported yet")
    if len(header.tensors) != 1:
        return None
    ((name, tensor),) = header.tensors.items()
    is_vector = len(tensor.shape) == 1 and (name == A1111_NAME or name.startswith("<"))
    if not (is_vector or len(tensor.shape) == 2) or tensor.dtype not in _FLOATS:  # noqa: PLR2004 - vectors, width
        return None
    vectors, width = (1, *tensor.shape)[-2:]
    if vectors > MAX_VECTORS:
        if name != A1111_NAME:
            return None
        raise Unrecognised(header.path, f"is an embedding of {vectors} vectors; a prompt holds {MAX_VECTORS} at a time")
    refuse_text_width(header.path, width, "an embedding")
    return Findings(
        kind=Kind.EMBEDDING,
        family="sd15",
        weights=of_one_file(header),
        components=(component("embedding", header.tensors.values()),),
        text_width=width,
        vectors=vectors,
    )
