"""Embeddings (textual inversions): a tensor with a row for each token that the name stands for; of SDXL one for each text encoder."""

from typing import Final

from models_registry.entries import Kind
from models_registry.findings import Findings, component, of_one_file
from models_registry.kinds.unets import REFINER_TEXT_WIDTH, family_of_width
from models_registry.reading.bounded_files import Reads
from models_registry.reading.safetensors_header import Header, Tensor
from models_registry.refusals import Unrecognised, WeightsMismatch

#: A1111's name of the tensor; diffusers names it after the word it stands for.
A1111_NAME: Final = "emb_params"
#: SDXL has a tensor for each of its two text encoders.
SDXL_NAMES: Final = frozenset({"clip_l", "clip_g"})
#: A prompt is read in windows of so many tokens, and an embedding must fit into one.
MAX_VECTORS: Final = 75
_FLOATS: Final = frozenset({"F16", "BF16", "F32", "F64"})


def from_file(header: Header, _: Reads) -> Findings | None:
    """Read one embedding, raising `Unrecognised` for another family's; None for what is none."""
    if header.tensors.keys() == SDXL_NAMES:
        return _of_two(header)
    if len(header.tensors) != 1:
        return None
    ((name, tensor),) = header.tensors.items()
    is_vector = len(tensor.shape) == 1 and (name == A1111_NAME or name.startswith("<"))
    if not (is_vector or len(tensor.shape) == 2) or tensor.dtype not in _FLOATS:  # noqa: PLR2004 - vectors, width
        return None
    vectors, width = _sizes(tensor)
    if vectors > MAX_VECTORS:
        if name != A1111_NAME:
            return None
        _refuse_long(header, vectors)
    if width == REFINER_TEXT_WIDTH:
        raise Unrecognised(header.path, "is an embedding for the second text encoder of SDXL alone")
    # The widths of reduced models tell no family: theirs are taken for the first one's.
    return _findings(header, family_of_width(width) or "sd15", vectors, width)


def _of_two(header: Header) -> Findings:
    first, second = (_sizes(header.tensors[name]) for name in sorted(SDXL_NAMES))
    if first[0] != second[0]:
        raise WeightsMismatch(
            header.path, f"stands for {first[0]} tokens of one text encoder and {second[0]} of the other"
        )
    if first[0] > MAX_VECTORS:
        _refuse_long(header, first[0])
    return _findings(header, "sdxl", first[0], first[1] + second[1])


def _sizes(tensor: Tensor) -> tuple[int, int]:
    """Return the number of vectors and their width."""
    vectors, width = (1, 1, *tensor.shape)[-2:]
    return vectors, width


def _refuse_long(header: Header, vectors: int) -> None:
    raise Unrecognised(header.path, f"is an embedding of {vectors} vectors; a prompt holds {MAX_VECTORS} at a time")


def _findings(header: Header, family: str, vectors: int, width: int) -> Findings:
    return Findings(
        kind=Kind.EMBEDDING,
        family=family,
        weights=of_one_file(header),
        components=(component("embedding", header.tensors.values()),),
        text_width=width,
        vectors=vectors,
    )
