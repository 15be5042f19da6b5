"""Hash whole files in one pass: every hash that models are looked up by, and a look for numbers that are none.

The tensors lie one behind the other and fill the file (`safetensors_header` has checked it), so the pass goes through them in order.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from models_registry.reading.bounded_files import BoundedFile, Reads, open_bounded
from models_registry.reading.safetensors_header import Header, Tensor
from models_registry.refusals import FileUnreadable, NotANumber

#: Read at once, bytes; a multiple of every number's size.
CHUNK: Final = 4 * 1024 * 1024

#: Number format → its bits as a whole number, and the largest of them, its sign aside, that is a number or an infinity.
#: An infinity is let pass: the masks of some text encoders are made of them.
_NUMBERS: Final[Mapping[str, tuple[type[np.unsignedinteger], int]]] = MappingProxyType(
    {
        "F64": (np.uint64, 0x7FF0_0000_0000_0000),
        "F32": (np.uint32, 0x7F80_0000),
        "F16": (np.uint16, 0x7C00),
        "BF16": (np.uint16, 0x7F80),
        "F8_E4M3": (np.uint8, 0x7E),
        "F8_E5M2": (np.uint8, 0x7C),
    }
)


class Digests(NamedTuple):
    """Hold the hashes of one file, in hex digits."""

    sha256: str
    #: SHA-256 of what follows the header, which trainers write down; None for what is no safetensors file.
    body_sha256: str | None
    crc32: str

    def by_name(self) -> dict[str, str]:
        """Return them by the names that sites know them by, beside the SHA-256 itself."""
        found = {"autov2": self.sha256[:10], "crc32": self.crc32}
        return found if self.body_sha256 is None else {**found, "autov3": self.body_sha256[:12]}


def hash_weights(header: Header, reads: Reads) -> Digests:
    """Read a safetensors file once from end to end, raising `NotANumber` for the first tensor that holds a NaN."""
    with open_bounded(header.path, reads) as file:
        head = file.read_at(0, header.body_start)
        return digest_weights(header, head, _parts(header, file))


def digest_weights(header: Header, head: bytes, body: Iterator[tuple[str, Tensor, bytes]]) -> Digests:
    """Hash what was read of a safetensors file: its head, and each part of its tensors in order."""
    whole, rest, crc, size = hashlib.sha256(head), hashlib.sha256(), zlib.crc32(head), len(head)
    for name, tensor, part in body:
        if _has_nan(part, tensor.dtype):
            raise NotANumber(header.path, f"has the tensor {name[:80]!r} with a value that is not a number")
        whole.update(part)
        rest.update(part)
        crc = zlib.crc32(part, crc)
        size += len(part)
    if size != header.file_bytes:
        raise FileUnreadable(header.path, "became shorter while it was read")
    return Digests(whole.hexdigest(), rest.hexdigest(), f"{crc:08x}")


def hash_bytes(data: bytes) -> Digests:
    """Hash a whole file that was read already."""
    return Digests(hashlib.sha256(data).hexdigest(), None, f"{zlib.crc32(data):08x}")


def parts_of(header: Header, body: bytes) -> Iterator[tuple[str, Tensor, bytes]]:
    """Cut a body that was read at once into its tensors."""
    for name, tensor in _in_order(header):
        yield name, tensor, body[tensor.start : tensor.end]


def hash_file(path: Path, reads: Reads) -> Digests:
    """Read any file once from end to end."""
    whole, crc = hashlib.sha256(), 0
    with open_bounded(path, reads) as file:
        for offset in range(0, file.size, CHUNK):
            part = file.read_at(offset, CHUNK)
            whole.update(part)
            crc = zlib.crc32(part, crc)
    return Digests(whole.hexdigest(), None, f"{crc:08x}")


def _parts(header: Header, file: BoundedFile) -> Iterator[tuple[str, Tensor, bytes]]:
    for name, tensor in _in_order(header):
        for start in range(tensor.start, tensor.end, CHUNK):
            length = min(CHUNK, tensor.end - start)
            yield name, tensor, file.read_at(header.body_start + start, length)


def _in_order(header: Header) -> list[tuple[str, Tensor]]:
    return sorted(header.tensors.items(), key=lambda item: item[1].start)


def _has_nan(data: bytes, dtype: str) -> bool:
    if dtype not in _NUMBERS:
        return False
    bits, largest = _NUMBERS[dtype]
    size = bits().itemsize
    values = np.frombuffer(data, bits, len(data) // size)
    return bool(np.any(values & bits((1 << (size * 8 - 1)) - 1) > bits(largest)))
