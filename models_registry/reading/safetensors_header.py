"""Check the header of a safetensors file before any library opens the file.

The library itself accepts hundreds of thousands of empty tensors and a hundred megabytes of header; these limits are ours.
This module never reads the tensors.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Never

from models_registry.reading.bounded_files import BoundedFile, Reads, open_bounded
from models_registry.refusals import (
    DtypeRefused,
    HeaderInvalid,
    HeaderTooLarge,
    HeaderTruncated,
    MetadataTooLarge,
    NotSafetensors,
    OffsetsInvalid,
    PickleRefused,
    RankRefused,
    TensorEmpty,
    TooManyTensors,
)

MAX_HEADER_BYTES = 8 * 1024 * 1024
#: A header may take this much whatever the size of the file, and one hundredth of a larger file.
SMALL_HEADER_BYTES = 2 * 1024 * 1024
HEADER_SHARE = 100
MAX_TENSORS = 20_000
#: Trainers of LoRAs write down how often each word of their captions occurred.
MAX_METADATA_BYTES = 1024 * 1024
#: A tensor has a handful of each, and free text may hold some; a header of them alone would take a hundred times its size in memory.
MAX_BRACKETS = 3 * MAX_TENSORS + MAX_METADATA_BYTES // 8
MAX_COMMAS = 8 * MAX_TENSORS + MAX_METADATA_BYTES // 8
MAX_RANK = 5
MAX_NAME = 512
DTYPE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "F8_E4M3": 1,
        "F8_E5M2": 1,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
    }
)
_LENGTH = 8
_MAX_SIZE = 2**62
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OFFSETS = 2
_TENSOR_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


class Tensor(NamedTuple):
    """Describe one tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def parameters(self) -> int:
        """Return how many numbers it holds."""
        return math.prod(self.shape)


class Header(NamedTuple):
    """Hold what the header of one file says."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    #: Bytes of the whole file, and where the tensors begin in it.
    file_bytes: int
    body_start: int
    #: SHA-256 of the header.
    sha256: str

    @property
    def weight_bytes(self) -> int:
        """Return the size of all tensors."""
        return self.file_bytes - self.body_start

    @property
    def parameters(self) -> int:
        """Return how many numbers all tensors hold."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """Return the number format that most bytes have."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.dtype] += tensor.end - tensor.start
        return max(sizes, key=lambda dtype: (sizes[dtype], dtype))


def read_header(path: Path, reads: Reads) -> Header:
    """Read and check the header of one file in three reads at most, raising a `FileRefused` that says which rule it breaks."""
    with open_bounded(path, reads) as file:
        raw = _raw_header(file)
        body_start = _LENGTH + len(raw)
        metadata, tensors = _parse(path, raw)
        _check_offsets(path, tensors, file.size - body_start)
        digest = hashlib.sha256(raw).hexdigest()
        return Header(path, MappingProxyType(tensors), MappingProxyType(metadata), file.size, body_start, digest)


def _raw_header(file: BoundedFile) -> bytes:
    start = file.read_at(0, _LENGTH + 1)
    length = int.from_bytes(start[:_LENGTH], "little")
    allowed = min(MAX_HEADER_BYTES, max(SMALL_HEADER_BYTES, file.size // HEADER_SHARE))
    begins_well = start[_LENGTH:] == b"{"
    if not begins_well or length > allowed:
        _refuse_pickle(file.path, start)
    if len(start) <= _LENGTH:
        raise NotSafetensors(file.path, f"has only {len(start)} bytes")
    if not begins_well:
        raise NotSafetensors(file.path, "does not begin as a safetensors file does")
    if length > allowed:
        raise HeaderTooLarge(
            file.path, f"says that its header has {length} bytes; at most {allowed} are allowed for its size"
        )
    if _LENGTH + length > file.size:
        raise HeaderTruncated(file.path, f"ends inside its header: {file.size} of {_LENGTH + length} bytes")
    raw = file.read_at(_LENGTH, length)
    if len(raw) < length:
        raise HeaderTruncated(file.path, "became shorter while it was read")
    return raw


def _refuse_pickle(path: Path, start: bytes) -> None:
    # A pickle begins with its protocol, a torch archive with a ZIP signature, whatever the file is called.
    if start.startswith(_PICKLE_STARTS):
        raise PickleRefused(path, "is a pickle by content, whatever its name says; only safetensors are opened")
    if start.startswith(b"PK\x03\x04"):
        raise PickleRefused(
            path, "is a PyTorch archive by content, whatever its name says; only safetensors are opened"
        )


def _parse(path: Path, raw: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    # Counted before parsing, because parsing a bomb is what the limit is there to avoid.
    if raw.count(b'"data_offsets"') > MAX_TENSORS:
        raise TooManyTensors(path, f"names more than {MAX_TENSORS} tensors")
    if raw.count(b"{") + raw.count(b"[") > MAX_BRACKETS or raw.count(b",") > MAX_COMMAS:
        raise HeaderInvalid(path, "has a header of more parts than any model's")
    try:
        decoded = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise HeaderInvalid(path, f"has a header that is not valid JSON: {error}") from None
    if not isinstance(decoded, dict):
        raise HeaderInvalid(path, "has a header that is not a JSON object")
    metadata = _metadata(path, decoded.pop("__metadata__", {}))
    if len(decoded) > MAX_TENSORS:
        raise TooManyTensors(path, f"names {len(decoded)} tensors; at most {MAX_TENSORS} are allowed")
    if not decoded:
        raise HeaderInvalid(path, "holds no tensors")
    return metadata, {name: _tensor(path, name, value) for name, value in decoded.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    decoded = dict(pairs)
    if len(decoded) < len(pairs):
        raise ValueError("a key appears twice")
    return decoded


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is not JSON")


def _metadata(path: Path, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise HeaderInvalid(path, "has metadata that is not text")
    size = sum(
        len(key.encode("utf-8", "replace")) + len(text.encode("utf-8", "replace")) for key, text in value.items()
    )
    if size > MAX_METADATA_BYTES:
        raise MetadataTooLarge(path, f"has {size} bytes of metadata; at most {MAX_METADATA_BYTES} are allowed")
    return value


def _tensor(path: Path, name: str, value: object) -> Tensor:
    if len(name) > MAX_NAME:
        raise HeaderInvalid(path, f"has a tensor whose name is {len(name)} characters long")
    if not isinstance(value, dict) or value.keys() != _TENSOR_FIELDS:
        raise HeaderInvalid(path, f"describes the tensor {name!r} by other fields than dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise DtypeRefused(
            path, f"stores the tensor {name!r} as {str(dtype)[:40]!r}; known are {', '.join(DTYPE_BYTES)}"
        )
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != _OFFSETS:
        raise HeaderInvalid(path, f"has a shape or offsets of the tensor {name!r} that are not whole numbers")
    if len(shape) > MAX_RANK:
        raise RankRefused(path, f"has the tensor {name!r} with {len(shape)} dimensions; at most {MAX_RANK} are allowed")
    if 0 in shape or offsets[0] == offsets[1]:
        raise TensorEmpty(path, f"has the tensor {name!r}, which holds no bytes")
    tensor = Tensor(dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.end - tensor.start != tensor.parameters * DTYPE_BYTES[dtype]:
        raise OffsetsInvalid(
            path, f"gives the tensor {name!r} {tensor.end - tensor.start} bytes, which its shape and dtype do not fill"
        )
    return tensor


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < _MAX_SIZE for item in value)


def _check_offsets(path: Path, tensors: Mapping[str, Tensor], body: int) -> None:
    expected = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].start):
        if tensor.start != expected:
            word = "overlaps the one before it" if tensor.start < expected else "leaves a gap before it"
            raise OffsetsInvalid(path, f"has the tensor {name!r}, which {word}")
        expected = tensor.end
    if expected != body:
        raise OffsetsInvalid(path, f"should have {expected} bytes after its header and has {body}")
