"""Tell one set of weights from another without reading all of it."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from models_registry.bounded_files import BoundedFile, Reads, open_bounded
from models_registry.safetensors_header import Header

#: Weights up to this size are read whole.
WHOLE_BYTES = 8 * 1024 * 1024
#: Of larger ones both ends are read …
END_BYTES = 64 * 1024
#: … and, because a merge may leave the layers at both ends as they were, some places between.
SAMPLES = 16
SAMPLE_BYTES = 4 * 1024


def fingerprint(weights: Mapping[str, Header], others: Mapping[str, Path], reads: Reads) -> str:
    """Return 64 hex digits that depend on names, sizes and contents alone, never on paths or times."""
    digest = hashlib.sha256()
    for name, header in sorted(weights.items()):
        digest.update(f"{name}\0{header.file_bytes}\0{header.sha256}\0".encode())
        with open_bounded(header.path, reads) as file:
            _update(digest, _parts(file, header.body_start))
    for name, path in sorted(others.items()):
        with open_bounded(path, reads) as file:
            digest.update(f"{name}\0{file.size}\0".encode())
            _update(digest, _parts(file, 0))
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", parts: Iterable[bytes]) -> None:
    for part in parts:
        digest.update(part)


def _parts(file: BoundedFile, start: int) -> Iterable[bytes]:
    length = file.size - start
    if length <= WHOLE_BYTES:
        yield file.read_at(start, length)
        return
    yield file.read_at(start, END_BYTES)
    for sample in range(1, SAMPLES + 1):
        yield file.read_at(start + length * sample // (SAMPLES + 1), SAMPLE_BYTES)
    yield file.read_at(file.size - END_BYTES, END_BYTES)
